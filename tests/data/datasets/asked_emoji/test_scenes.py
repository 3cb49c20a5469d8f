from collections import Counter
from itertools import pairwise

import pytest

from mmjax.data.datasets.asked_emoji.scenes import SIDE, scenes
from mmjax.errors import UserError
from tests.data.datasets.asked_emoji.made import many, thing


@pytest.fixture(scope="module")
def drawn():
    return scenes([*many(), *many("test", 2)], "train", 240)


def places(scene):
    return {placed.thing.id: (placed.row, placed.column) for placed in scene.placed}


def test_scenes_have_one_to_four_different_emoji_of_their_split(drawn):
    numbers = Counter(len(scene.placed) for scene, _ in drawn)
    assert set(numbers) == {1, 2, 3, 4}
    assert numbers[4] > numbers[1] > 15
    for twins in drawn:
        for scene in twins:
            assert len(places(scene)) == len(set(places(scene).values())) == len(scene.placed)
            assert all(placed.thing.split == "train" for placed in scene.placed)


def test_twins_are_of_the_same_emoji_and_the_ends_of_a_diagonal_changed_places(drawn):
    for first, second in drawn:
        before, after = places(first), places(second)
        assert set(before) == set(after)
        moved = [emoji for emoji in before if before[emoji] != after[emoji]]
        assert len(moved) == (1 if len(before) < 3 else 2)
        for emoji in moved:
            row, column = before[emoji]
            assert after[emoji] == (1 - row, 1 - column)
    assert {places(first)[first.placed[0].thing.id] for first, _ in drawn} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_each_emoji_lies_in_its_quarter(drawn):
    sides = set()
    for placed in (placed for twins in drawn for scene in twins for placed in scene.placed):
        assert placed.column * SIDE / 2 <= placed.x <= placed.x + placed.side <= (placed.column + 1) * SIDE / 2
        assert placed.row * SIDE / 2 <= placed.y <= placed.y + placed.side <= (placed.row + 1) * SIDE / 2
        sides.add(placed.side)
    assert (min(sides), max(sides)) == (30, 46)


def test_all_emoji_are_drawn_and_none_much_more_often_than_others_of_its_word(drawn):
    times = Counter(placed.thing.id for first, _ in drawn for placed in first.placed)
    assert len(times) == len(many())
    assert max(times.values()) < 3 * min(times.values())


def test_a_scene_does_not_depend_on_how_many_follow(drawn):
    assert scenes([*many(), *many("test", 2)], "train", 24) == drawn[:24]
    assert all(before != after for before, after in pairwise(drawn))


def test_too_few_emoji_are_an_error():
    with pytest.raises(UserError, match=r"the split 'test' has 3 emoji"):
        scenes([*many(), *(thing(f"cat {i}", "animal", split="test") for i in "abc")], "test", 1)
