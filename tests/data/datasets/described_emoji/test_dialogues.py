from collections import Counter, defaultdict

import pytest

from mmjax.data.datasets.described_emoji.dialogues import dialogues_of
from mmjax.data.datasets.described_emoji.tiles import FACTS
from tests.data.datasets.described_emoji.reader import answers

SPLITS = ("train", "validation", "test")
VALUES = {**FACTS, "side": ("left", "right"), "height": ("above", "below")}


def facts_of(scene):
    return [tile.facts() for tile in scene.tiles]


@pytest.mark.parametrize("split", SPLITS)
def test_who_has_heard_all_before_has_every_answer(held, split):
    for scene, turns in held[split]:
        assert answers([turn.question for turn in turns], facts_of(scene)) == [turn.answer for turn in turns]


@pytest.mark.parametrize("split", SPLITS)
def test_who_has_heard_nothing_before_understands_what_stands_alone_and_nothing_else(held, split):
    for scene, turns in held[split]:
        for turn in turns:
            assert answers([turn.question], facts_of(scene)) == [None if turn.needs_history else turn.answer]


@pytest.mark.parametrize("split", SPLITS)
def test_dialogues_have_three_to_five_turns_of_which_some_refer_back(held, split):
    lengths = Counter(len(turns) for _, turns in held[split])
    assert set(lengths) == {3, 4, 5}
    assert min(lengths.values()) > 0.2 * len(held[split])
    for _, turns in held[split]:
        assert not turns[0].needs_history
        assert any(turn.needs_history for turn in turns[1:])
        assert all(turn.answer in VALUES[turn.fact] for turn in turns)


def test_the_two_dialogues_of_a_scene_refer_back_by_the_same_words_and_have_other_answers(held):
    pairs = defaultdict(list)
    for scene, turns in held["train"]:
        pairs[scene.id].append(turns)
    for first, second in pairs.values():
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert one.kind == other.kind
            assert one.answer != other.answer
            assert (one.question == other.question) == one.needs_history


def test_no_answer_was_told_before(held):
    """Neither as a fact of the tile, nor by how both tiles stand to each other."""
    for scene, turns in held["train"]:
        before = ""
        place = compared = False
        for turn in turns:
            named = turn.question if not turn.needs_history else ""
            place |= turn.fact == "place" or any(f"the {where} tile" in named for where in FACTS["place"])
            compared |= turn.fact in ("side", "height")
            assert turn.answer not in before.split(" / "), (scene, turns)
            before += f" / {turn.answer}" + "".join(
                f" / {value}" for values in FACTS.values() for value in values if f"the {value} tile" in turn.question
            )
        assert not (place and compared)


def test_what_the_other_tile_has_is_known_if_it_was_told(held):
    for scene, turns in held["train"]:
        for number, turn in enumerate(turns):
            before = {each.answer for each in turns[:number]} | {
                value
                for each in turns[:number]
                for tile in scene.tiles
                for value in tile.facts().values()
                if f"the {value} tile" in each.question
            }
            there = {tile.facts().get(turn.fact) for tile in scene.tiles} - {turn.answer, None}
            assert {turn.told} - {""} == there & before


def test_ways_facts_and_wordings_all_occur(held):
    turns = [turn for _, turns in held["train"] for turn in turns]
    ways = Counter(turn.way for turn in turns)
    assert set(ways) == {"named", "it", "other", "compared"}
    assert min(ways.values()) > 0.03 * len(turns)
    assert sum(turn.needs_history for turn in turns) > 0.5 * len(turns)
    facts = Counter(turn.fact for turn in turns)
    assert all(facts[fact] > 0.15 * len(turns) for fact in FACTS)
    assert len({turn.question for turn in turns if turn.needs_history}) == 3 + 2 + 4 * 2
    answers_of = defaultdict(Counter)
    for turn in turns:
        answers_of[turn.fact][turn.answer] += 1
    for fact, times in answers_of.items():
        assert max(times.values()) < 1.3 * sum(times.values()) / len(VALUES[fact])


def test_dialogues_depend_on_the_scene_alone(planned):
    scene = planned["test"][7]
    assert dialogues_of(scene) == dialogues_of(scene)
    assert dialogues_of(scene)[0] != dialogues_of(scene)[1]
