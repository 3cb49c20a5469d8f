"""The masked sets, blocks of attention, and the words that masks take."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.transforms.reserve.masks import blocks_of, drawn_sets, grown, heard_slots, next_to
from mmjax.data.transforms.reserve.subsegments import SubsegmentTimes

TIMES = SubsegmentTimes(np.array([0.0, 2.0, 4.0, 6.0]), 1.6, 4, (0,) * 4)


@settings(deadline=None)
@given(st.integers(2, 48), st.integers(0, 99), st.data())
def test_sets_share_nothing_and_have_their_size(subsegments, seed, data):
    count = data.draw(st.integers(1, subsegments // 2))
    sets = drawn_sets(subsegments, count, np.random.default_rng(seed))
    assert [len(set(one)) for one in sets] == [count, count]
    assert not set(sets.heard) & set(sets.read)
    assert [*sets.heard] == sorted(sets.heard)
    assert set(sets.heard + sets.read) <= set(range(subsegments))


def test_each_subsegment_is_drawn_as_often():
    rng = np.random.default_rng(0)
    hits = np.zeros((2, 12))
    for _ in range(4000):
        for row, one in zip(hits, drawn_sets(12, 3, rng), strict=True):
            row[one] += 1
    np.testing.assert_allclose(hits / 4000, 0.25, atol=0.03)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=48), st.integers(0, 99), st.data())
def test_those_that_are_preferred_come_first_and_fall_to_both_sets(preferred, seed, data):
    count = data.draw(st.integers(1, len(preferred) // 2))
    sets = drawn_sets(len(preferred), count, np.random.default_rng(seed), np.array(preferred))
    assert [len(set(one)) for one in sets] == [count, count]
    assert not set(sets.heard) & set(sets.read)
    heard, read = (sum(preferred[k] for k in one) for one in sets)
    assert heard + read == min(sum(preferred), 2 * count)
    assert heard - read in (0, 1)


def test_each_that_is_preferred_is_drawn_as_often():
    rng, preferred = np.random.default_rng(0), np.array([True] * 8 + [False] * 4)
    hits = np.zeros((2, 12))
    for _ in range(4000):
        for row, one in zip(hits, drawn_sets(12, 3, rng, preferred), strict=True):
            row[one] += 1
    np.testing.assert_allclose(hits / 4000, [[3 / 8] * 8 + [0] * 4] * 2, atol=0.03)


def take(words, masked, rooms=(0, 0, 0, 0), within=0.125):
    """The sub-segments after words went to masks: [[times in each]]."""
    places = [place for place, _ in words]
    centres = np.array([centre for _, centre in words])
    bounds = np.searchsorted(places, np.arange(5)).tolist()
    found = grown(bounds, masked, centres, TIMES, list(rooms), within)
    assert bounds == np.searchsorted(places, np.arange(5)).tolist()  # they are the other stream's too
    assert found == sorted(found)
    return [centres[found[k] : found[k + 1]].tolist() for k in range(4)]


def test_a_mask_takes_the_words_at_its_borders():
    words = [(0, 0.5), (0, 1.9), (1, 2.2), (2, 3.7), (2, 3.71), (2, 5.0)]
    assert take(words, [1]) == [[0.5], [1.9, 2.2, 3.7], [3.71, 5.0], []]
    assert take(words, [1], within=0.05) == [[0.5, 1.9], [2.2], [3.7, 3.71, 5.0], []]
    assert take(words, [1], within=0.1 + 1e-9) == [[0.5], [1.9, 2.2, 3.7], [3.71, 5.0], []]
    assert take(words, [1], rooms=(0, 1, 1, 1)) == [[0.5, 1.9], [2.2, 3.7], [3.71, 5.0], []]
    assert take(words, [1], rooms=(1, 1, 2, 2)) == [[0.5], [1.9, 2.2], [3.7, 3.71, 5.0], []]
    assert take(words, [0, 1]) == [[0.5, 1.9], [2.2, 3.7], [3.71, 5.0], []]  # a masked one keeps its own
    assert take(words, [2]) == [[0.5, 1.9], [2.2], [3.7, 3.71, 5.0], []]  # nothing is near


def test_a_mask_without_words_takes_the_nearest_next_to():
    assert take([(0, 0.5), (0, 1.5), (2, 4.5)], [1]) == [[0.5], [1.5], [4.5], []]
    assert take([(0, 0.5), (0, 1.5), (2, 3.9)], [1]) == [[0.5, 1.5], [3.9], [], []]
    assert take([(0, 0.5), (2, 4.5)], [1, 2]) == [[], [0.5], [4.5], []]
    assert take([(0, 0.5), (2, 4.5)], [0, 1, 2]) == [[0.5], [], [4.5], []]
    assert take([(0, 0.5)], [2]) == [[0.5], [], [], []]  # no neighbour has one
    assert take([(0, 0.5)], [1], rooms=(0, 1, 1, 1)) == [[0.5], [], [], []]
    assert take([(2, 4.5)], [1, 3]) == [[], [4.5], [], []]  # the first of two takes the only one
    assert take([(2, 4.5), (2, 5.0)], [1, 3]) == [[], [4.5], [], [5.0]]
    assert take([(3, 6.5)], [2]) == [[], [], [6.5], []]
    assert take([], [0, 3]) == [[], [], [], []]


@settings(deadline=None)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 6), st.floats(0, 1))
def test_blocks_part_videos_and_split_groups(seed, groups, of_group, share):
    rng = np.random.default_rng(seed)
    sources = tuple(rng.integers(3, size=groups * of_group).tolist())
    rows = blocks_of(sources, groups, share, rng).reshape(groups, of_group)
    for row, own in zip(rows, np.reshape(sources, (groups, of_group)), strict=True):
        alike = row[:, None] == row
        assert not (alike & (own[:, None] != own)).any()  # different videos never see each other
        cuts = [
            place
            for place in range(of_group)
            if (
                alike
                == (own[:, None] == own) & ((np.arange(of_group) < place)[:, None] == (np.arange(of_group) < place))
            ).all()
        ]
        assert cuts  # it is one cut or none


def test_the_share_of_groups_that_are_split():
    rng, places = np.random.default_rng(0), []
    for _ in range(3000):
        for row in blocks_of((0,) * 8, 2, 0.1, rng).reshape(2, 4):
            places += [int(np.argmax(row != row[0]))] if (row != row[0]).any() else []
    assert len(places) / 6000 == pytest.approx(0.1, abs=0.02)
    np.testing.assert_allclose(np.bincount(places) / len(places), [0, 1 / 3, 1 / 3, 1 / 3], atol=0.07)
    assert (blocks_of((5, 5, 5), 3, 1.0, rng) == blocks_of((5, 5, 5), 3, 1.0, rng)).all()  # nothing to be cut


def test_neighbours_see_the_mask():
    assert next_to([1, 2], [0, 0, 0, 0, 0]) == {0, 3}
    assert next_to([0, 4], [0, 0, 0, 0, 0]) == {1, 3}
    assert next_to([1, 3], [0, 0, 1, 1, 1]) == {0, 2, 4}
    assert next_to([1, 3], [0, 0, 1, 2, 3]) == {0}


def test_neighbours_are_read_with_their_probability():
    found = np.mean([heard_slots(np.random.default_rng(s), {1, 3}, 5, 0.8) for s in range(2000)], axis=0)
    np.testing.assert_allclose(found, [1, 0.2, 1, 0.2, 1], atol=0.03)
