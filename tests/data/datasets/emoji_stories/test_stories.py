import dataclasses
import itertools
from collections import Counter

import pytest

from mmjax.data.datasets.emoji_stories.builder import EmojiStories
from mmjax.data.datasets.emoji_stories.stories import HELD_OUT, actors, groups_of, planned_stories
from mmjax.data.datasets.emoji_stories.telling import story_text
from mmjax.data.datasets.spoken_emoji.catalogue import TEST_VOICES, TRAIN_VARIANTS, VALIDATION_VOICES
from mmjax.data.datasets.tagged_emoji.kinds import KINDS as GROUPS
from mmjax.errors import UserError
from tests.data.datasets.emoji_stories.made import KINDS

SPLITS = ("train", "validation", "test")
SECONDS = 12  # frames


def combinations(stories):
    return Counter(groups_of(event, story.cast) for story in stories for event in story.plot.events)


def pairs(stories):
    return list(zip(stories[::2], stories[1::2], strict=True))


def test_splits_have_the_stated_numbers_lengths_and_casts(planned):
    assert {split: len(stories) for split, stories in planned.items()} == {"train": 480, "validation": 64, "test": 64}
    for stories in planned.values():
        for story in stories:
            assert 12 <= sum(story.lengths) / SECONDS <= 20
            assert len(story.lengths) == len(story.plot.events) in (5, 6, 7)
            assert all(2 <= length / SECONDS <= 3 for length in story.lengths)
            assert 2 <= len(story.cast) == len(set(story.emoji)) <= 5
    assert {len(story.cast) for story in planned["train"]} == {2, 3, 4, 5}


def test_splits_share_no_emoji_and_each_of_a_split_acts(planned):
    everything = actors()
    shown = {split: Counter(e for story in planned[split] for e in story.emoji) for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(shown[one]) & set(shown[other])
    for split in SPLITS:
        assert set(shown[split]) == {thing.id for thing in everything if thing.split == split}
        assert max(shown[split].values()) <= 2 * min(shown[split].values()) + 4
    assert len(shown["train"]) > 400


def test_names_of_a_story_share_no_word(planned):
    for story in (story for stories in planned.values() for story in stories):
        words = [word for name in story.names for word in name.split()]
        assert len(set(words)) == len(words)


def test_actors_have_short_singular_names_and_no_doing():
    names = {thing.name for thing in actors()}
    assert {"goat", "bus", "rocket", "fire engine"} <= names
    assert not names & {"glasses", "man running", "french fries", "person lifting weights", "t-shirt", ""}
    assert all(len(name) <= 14 and len(name.split()) <= 2 for name in names)


def test_twins_have_one_plot_and_the_same_emoji_in_reverse(planned):
    for split in SPLITS:
        for first, second in pairs(planned[split]):
            assert first.plot == second.plot
            assert first.cast == second.cast[::-1]
            assert (first.container, second.container) == ("mp4", "webm")
            assert first.novel == second.novel
            assert first.late != second.late
            assert first.id < second.id
        assert 0.2 < sum(first.late for first, _ in pairs(planned[split])) / len(pairs(planned[split])) < 0.8


def test_who_comes_before_whom_is_as_frequent_either_way(planned):
    for split in SPLITS:
        before = Counter(
            pair for story in planned[split] for pair in itertools.combinations(story.emoji, 2)
        )  # roles are in the order in which they appear
        assert all(before[b, a] == times for (a, b), times in before.items())


def test_each_kind_of_event_follows_each_other_about_equally_often(planned):
    follows = Counter(pair for story in planned["train"] for pair in story.plot.following())
    kinds = [kind for kind in KINDS if kind != "appear"]
    assert set(follows) == set(itertools.product(kinds, kinds))
    even = sum(follows.values()) / len(follows)
    assert sum(0.75 * even < times < 1.25 * even for times in follows.values()) >= 33
    # After somebody has left, two others who can meet are rarely there.
    assert {pair for pair, times in follows.items() if times < even / 3} <= {("leave", "meet")}
    meetings = [times for event, times in combinations(planned["train"]).items() if event[0] == "meet"]
    assert len(meetings) == 20
    assert min(meetings) >= 4


def test_no_training_story_has_what_is_held_out_and_novel_tells_which_have(planned):
    for split in SPLITS:
        for story in planned[split]:
            assert story.novel == any(groups_of(e, story.cast) in HELD_OUT for e in story.plot.events)
        assert sum(story.novel for story in planned[split]) == (0 if split == "train" else len(planned[split]) / 2)
    assert not HELD_OUT & set(combinations(planned["train"]))
    assert len(HELD_OUT & set(combinations(planned["test"]))) >= 6


def test_training_has_the_parts_of_what_is_held_out(planned):
    """Each kind with the other groups, each group with the other kinds, and of those that don't meet the reverse."""
    known = combinations(planned["train"])
    for kind, *groups in HELD_OUT:
        if len(groups) == 2:
            assert known[kind, groups[1], groups[0]] >= 3
        else:
            assert all(known[kind, other] >= 5 for other in GROUPS if other != groups[0])
            assert sum(known[other, groups[0]] > 0 for other in KINDS) == len(KINDS) - 2  # nor does it "meet" alone
    for group in GROUPS:
        assert known["appear", group] >= 50


def test_what_an_event_s_groups_are(planned):
    story = next(s for s in planned["train"] if any(e.kind == "meet" for e in s.plot.events))
    event = next(e for e in story.plot.events if e.kind == "meet")
    kind, first, second = groups_of(event, story.cast)
    assert kind == "meet"
    assert story.cast[event.actor].word in GROUPS[first]
    assert story.cast[event.other].word in GROUPS[second]


def test_every_text_is_of_one_story(planned):
    for split in SPLITS:
        texts = [story_text(story.plot.events, story.names) for story in planned[split]]
        assert len(set(texts)) == len(texts)


def test_voices_are_those_of_the_split(planned):
    heard = {split: Counter(story.voice.voice for story in planned[split]) for split in SPLITS}
    assert {voice.partition("+")[2] for voice in heard["train"]} == set(TRAIN_VARIANTS)
    assert set(heard["validation"]) == set(VALIDATION_VOICES)
    assert set(heard["test"]) == set(TEST_VOICES)
    assert all(165 <= story.voice.rate <= 190 for stories in planned.values() for story in stories)


def test_the_same_plan_comes_again_and_does_not_depend_on_other_splits(planned):
    again = planned_stories({"test": 16}, (5, 7))["test"]
    assert again == planned["test"][:16]


def test_shifted_has_the_same_stories_as_all():
    configs = {config.name: config for config in EmojiStories.BUILDER_CONFIGS}
    assert (configs["all"].stories, configs["all"].events, configs["all"].limit) == (
        configs["shifted"].stories,
        configs["shifted"].events,
        configs["shifted"].limit,
    )
    assert (configs["all"].shifted, configs["shifted"].shifted) == (False, True)


def test_too_few_emoji_and_odd_numbers_are_told():
    with pytest.raises(UserError, match=r"of 0 emoji of the split 'test' no story in 1000 lacks what is held out"):
        planned_stories({"test": 64}, (3, 3), limit=0)
    with pytest.raises(UserError, match="5 stories of 'train' can't be told in twins"):
        planned_stories({"train": 5}, (3, 4), limit=6)


def test_a_story_s_names_and_ids_are_by_role(planned):
    story = planned["train"][0]
    assert story.names == [thing.name for thing in story.cast]
    assert dataclasses.replace(story, cast=story.cast[::-1]).emoji == story.emoji[::-1]
