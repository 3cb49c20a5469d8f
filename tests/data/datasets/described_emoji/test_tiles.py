import itertools
from collections import Counter

import pytest

from mmjax.data.datasets.asked_emoji.things import colourless_things
from mmjax.data.datasets.described_emoji.tiles import CELL, FACTS, PLACES, ColouredTile, planned_tiles
from mmjax.errors import UserError

SPLITS = ("train", "validation", "test")
SIZES = {"train": 3_000, "validation": 300, "test": 300}


def values(tile):
    return tuple(tile.facts().values())


def test_kinds_are_the_groups_that_can_be_counted():
    assert FACTS["kind"] == ("animal", "building", "face", "flag", "hand", "plant", "symbol", "vehicle")
    assert {fact: len(each) for fact, each in FACTS.items()} == {"kind": 8, "colour": 9, "count": 4, "place": 4}


def test_splits_have_the_stated_numbers_of_scenes_of_their_own_emoji(planned):
    things = {thing.id: thing for thing in colourless_things()}
    shown = {split: {tile.emoji for scene in planned[split] for tile in scene.tiles} for split in SPLITS}
    assert {split: len(scenes) for split, scenes in planned.items()} == SIZES
    for one, other in itertools.combinations(SPLITS, 2):
        assert not shown[one] & shown[other]
    for split in SPLITS:
        assert {things[emoji].split for emoji in shown[split]} == {split}
        assert all(things[tile.emoji].word == tile.kind for scene in planned[split] for tile in scene.tiles)
        of_kinds = {thing.id for thing in things.values() if thing.split == split and thing.word in FACTS["kind"]}
        assert shown[split] == of_kinds  # none is left out
    assert len(shown["train"]) > 700


def test_no_two_scenes_have_the_same_facts(planned):
    found = [frozenset(map(values, scene.tiles)) for scenes in planned.values() for scene in scenes]
    assert len(set(found)) == len(found)


def test_tiles_of_a_scene_differ_in_every_fact(planned):
    for scene in itertools.chain(*planned.values()):
        assert all(one != other for one, other in zip(*map(values, scene.tiles), strict=True))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("fact", FACTS)
def test_each_pair_of_values_is_as_frequent_as_any_other(planned, split, fact):
    """But for the last deal, and for scenes that were there before."""
    pairs = Counter(tuple(tile.facts()[fact] for tile in scene.tiles) for scene in planned[split])
    number = len(FACTS[fact]) * (len(FACTS[fact]) - 1)
    assert len(pairs) == number
    even = SIZES[split] / number
    assert all(abs(times - even) < 1 + 0.1 * even for times in pairs.values())


def test_emoji_of_a_kind_are_shown_equally_often(planned):
    for kind in FACTS["kind"]:
        times = Counter(tile.emoji for scene in planned["train"] for tile in scene.tiles if tile.kind == kind)
        assert max(times.values()) - min(times.values()) <= 1


def test_copies_lie_on_their_tile_and_apart_from_each_other(planned):
    boxes = set()
    for tile in (tile for scene in planned["test"] for tile in scene.tiles):
        row, column = PLACES[tile.place]
        left, top, right, bottom = tile.box
        boxes.add((left - 64 * column, top - 64 * row, right - 64 * column, bottom - 64 * row))
        assert 64 * column <= left < right <= 64 * (column + 1)
        assert 64 * row <= top < bottom <= 64 * (row + 1)
        assert len(tile.copies) == ["one", "two", "three", "four"].index(tile.count) + 1
        for copy in tile.copies:
            assert left <= copy.x < copy.x + copy.side <= right
            assert top <= copy.y < copy.y + copy.side <= bottom
        for one, other in itertools.combinations(tile.copies, 2):
            apart = max(abs(one.x // CELL - other.x // CELL), abs(one.y // CELL - other.y // CELL))
            assert apart >= 1
            assert max(one.x, other.x) >= min(one.x + one.side, other.x + other.side) or max(one.y, other.y) >= min(
                one.y + one.side, other.y + other.side
            )
    assert len(boxes) > 50


def at(place):
    return ColouredTile("face", "red", "one", place, "", (0, 0, 0, 0), ())


def test_relations_are_those_of_the_places():
    assert at("top left").relations(at("top right")) == {"side": "left"}
    assert at("bottom right").relations(at("top right")) == {"height": "below"}
    assert at("top right").relations(at("bottom left")) == {"side": "right", "height": "above"}


def test_a_scene_does_not_depend_on_how_many_follow(planned):
    assert planned_tiles({"train": 40})["train"] == planned["train"][:40]


def test_what_cannot_be_made_is_told():
    with pytest.raises(UserError, match=r"described_emoji: 30000 pictures, and there can be 29030: lower the numbers"):
        planned_tiles({"train": 30_000})
    with pytest.raises(UserError, match=r"the split 'dev' has no emoji of the kind 'animal': raise limit"):
        planned_tiles({"dev": 3})
