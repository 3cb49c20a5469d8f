"""Stories about few emoji, which all splits know."""

import itertools
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmjax.data.datasets.asked_emoji.drawings import drawing
from mmjax.data.datasets.emoji_stories.builder import EmojiStories, StoriesConfig
from mmjax.data.datasets.emoji_stories.familiar import familiar_things, split_of_plot
from mmjax.data.datasets.emoji_stories.shortcuts import check_cast_told
from mmjax.data.datasets.emoji_stories.stories import actors, planned_stories
from mmjax.data.datasets.tagged_emoji.kinds import KINDS
from mmjax.errors import UserError

COUNT = 25
SHARES = {"train": (0.74, 0.86), "validation": (0.06, 0.14), "test": (0.06, 0.14)}


@pytest.fixture(scope="module")
def plan():
    config = next(config for config in EmojiStories.BUILDER_CONFIGS if config.name == "familiar")
    assert config.familiar == COUNT
    return planned_stories(config.stories, config.events, config.limit, config.familiar)


def test_the_same_emoji_act_in_all_splits_about_equally_often(plan):
    known = {story.emoji[0] for story in plan["train"]}
    assert len(known) == COUNT
    for stories in plan.values():
        shown = Counter(emoji for story in stories for emoji in story.emoji)
        assert set(shown) == known
        assert max(shown.values()) <= 2 * min(shown.values())
        assert all(len(story.cast) == 2 for story in stories)
        assert not any(story.novel for story in stories)


def test_no_plot_is_in_two_splits_and_twins_stay_together(plan):
    plots = {split: {story.plot.events for story in stories} for split, stories in plan.items()}
    for one, other in itertools.combinations(plots, 2):
        assert not plots[one] & plots[other]
    for split, stories in plan.items():
        assert all(split_of_plot(story.plot) == split for story in stories)
        for first, second in zip(stories[::2], stories[1::2], strict=True):
            assert (first.plot, first.cast) == (second.plot, second.cast[::-1])
            assert (first.container, second.container) == ("mp4", "webm")


def test_plots_are_divided_by_their_events_alone(plan):
    story = plan["test"][0]
    assert split_of_plot(story.plot._replace(sides=(1, 2))) == "test"
    turned = (story.plot._replace(events=(*story.plot.events, event)) for event in story.plot.events)
    everything = [split_of_plot(plot) for plot in turned]
    shortened = [split_of_plot(s.plot._replace(events=s.plot.events[:n])) for s in plan["train"] for n in range(3, 6)]
    found = Counter(everything + shortened)
    for split, (least, most) in SHARES.items():
        assert least < found[split] / found.total() < most


def test_five_of_each_group_with_names_of_one_word_and_no_two_alike():
    everything = actors()
    things = familiar_things(everything, COUNT)
    assert Counter(next(kind for kind, words in KINDS.items() if thing.word in words) for thing in things) == (
        dict.fromkeys(KINDS, COUNT // len(KINDS))
    )
    assert all(" " not in thing.name and thing.split == "train" for thing in things)
    assert familiar_things(everything[::-1], COUNT) == things

    def nearest(chosen):
        looks = []
        for thing in chosen:
            pixels = np.asarray(drawing(thing.id, 32), float)
            shown = pixels[..., :3] * pixels[..., 3:] / 255 + 255 - pixels[..., 3:]
            looks.append(shown.reshape(8, 4, 8, 4, 3).mean((1, 3)).ravel())
        return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(looks, 2))

    training = [thing for thing in everything if thing.split == "train"]
    assert nearest(things) > 1.2 * max(nearest(training[start::17][:COUNT]) for start in range(5))


def test_words_tell_little_of_each_other(plan):
    """By the best guess of each word from all other words of its sentence, names of others taken as one."""
    for split, most in (("train", {"name": 0.08, "verb": 0.65}), ("test", {"name": 0.2, "verb": 0.65})):
        guesses: dict[str, Any] = {"name": defaultdict(Counter), "verb": defaultdict(Counter)}
        for story in plan[split]:
            for event in story.plot.events:
                others = (event.way, event.other is None)
                guesses["name"][event.kind, *others][story.names[event.actor]] += 1
                guesses["verb"][others][event.kind] += 1
        for word, counted in guesses.items():
            right = sum(max(counts.values()) for counts in counted.values())
            assert right / sum(counts.total() for counts in counted.values()) < most[word]


def test_each_does_everything(plan):
    does = {(event.kind, story.emoji[event.actor]) for story in plan["train"] for event in story.plot.events}
    assert len(does) == 7 * COUNT


def test_nothing_else_tells_who_acts(plan):
    check_cast_told(plan)
    spoilt = [replace(story, tone=int(story.emoji[0][:5], 16) % 8, cast=story.cast[:1]) for story in plan["train"]]
    with pytest.raises(UserError, match="the background of a story of 'train' tells its emoji"):
        check_cast_told({"train": spoilt})


def test_it_does_not_depend_on_other_splits(plan):
    assert planned_stories({"test": 8}, (6, 8), None, COUNT)["test"] == plan["test"][:8]


def test_it_is_built(tmp_path):
    """As `familiar` is, but of few emoji and stories."""
    counts = {"train": 2, "test": 2}
    config = StoriesConfig(name="few", stories=counts, events=(4, 4), limit=6, familiar=5)
    made: Any = EmojiStories(config=config, data_dir=str(tmp_path))
    made.download_and_prepare()
    known = {thing.id for thing in familiar_things(actors(6), 5)}
    for split in counts:
        records = list(made.as_data_source(split=split))
        assert len(records) == 2
        assert {emoji.decode() for record in records for emoji in record["emoji"]} <= known


def test_too_few_are_told():
    with pytest.raises(UserError, match="0 emoji have no story of 'test' in 1000: raise familiar or events"):
        planned_stories({"test": 2}, (4, 4), 0, 25)
    with pytest.raises(UserError, match="familiar=1 must be at least 2"):
        planned_stories({"test": 2}, (4, 4), 6, 1)
