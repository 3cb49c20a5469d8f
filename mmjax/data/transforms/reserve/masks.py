"""The sub-segments that are masked, and the words that go with each."""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.data.transforms.reserve.subsegments import SubsegmentTimes


class MaskedSets(NamedTuple):
    """Two sets of sub-segments that share none, in order: `heard`, whose words and sound are to be found from what is
    read, and `read`, whose words are to be found from what is heard.
    """

    heard: list[int]
    read: list[int]


def drawn_sets(
    subsegments: int, count: int, rng: np.random.Generator, preferred: Bool[np.ndarray, " n"] | None = None
) -> MaskedSets:
    """Two disjoint sets of `count` sub-segments each, drawn uniformly.

    preferred: which are drawn before any other; where they aren't enough, both sets have as many of them, or one more.
    """
    drawn = rng.permutation(subsegments)
    if preferred is None:
        return MaskedSets(sorted(drawn[:count].tolist()), sorted(drawn[count : 2 * count].tolist()))
    drawn = drawn[np.argsort(~preferred[drawn], kind="stable")][: 2 * count].tolist()
    return MaskedSets(sorted(drawn[::2]), sorted(drawn[1::2]))


def blocks_of(
    sources: tuple[int, ...], groups: int, share: float, rng: np.random.Generator
) -> Int[np.ndarray, " segments"]:
    """The block of attention of each segment: within a group, segments that see each other have the same number.

    sources: the video of each segment: different ones don't see each other. share: the probability that a group is cut,
    at a random place between two of its segments, into two parts that don't see each other.
    """
    of_source = np.unique(np.asarray(sources), return_inverse=True)[1].reshape(groups, -1)
    count = of_source.shape[1]
    cut, place = rng.random(groups) < share, rng.integers(1, max(count, 2), groups)
    behind = cut[:, None] & (np.arange(count) >= place[:, None])
    return (2 * of_source + behind).reshape(-1)


def next_to(places: Collection[int], rooms: list[int]) -> set[int]:
    """The sub-segments right before and behind those at `places`, without these, that see them.

    rooms: a number for each sub-segment, the same for those that see each other.
    """
    found = {k + step for k in places for step in (-1, 1) if 0 <= k + step < len(rooms) and rooms[k + step] == rooms[k]}
    return found.difference(places)


def grown(
    bounds: list[int],
    masked: list[int],
    centres: Float[np.ndarray, " words"],
    times: SubsegmentTimes,
    rooms: list[int],
    within: float,
) -> list[int]:
    """The bounds after masked sub-segments took words of neighbours that see them and aren't masked themselves.

    bounds: words `bounds[k]` to `bounds[k + 1]` are those of sub-segment k. A mask takes the last word before it and
    the first behind it where the word's centre is at most `within` seconds outside its sound, so that nothing of what
    is heard there is left to be read. One that has no word then takes that one of these two that is nearest in time.
    """
    bounds, hidden = list(bounds), set(masked)
    begins, middles = times.starts.tolist(), centres.tolist()
    for k in masked:
        begin, end = begins[k], begins[k] + times.seconds
        left = k > 0 and k - 1 not in hidden and rooms[k - 1] == rooms[k]
        right = k + 1 < len(rooms) and k + 1 not in hidden and rooms[k + 1] == rooms[k]
        before = begin - middles[bounds[k] - 1] if left and bounds[k - 1] < bounds[k] else math.inf
        behind = middles[bounds[k + 1]] - end if right and bounds[k + 1] < bounds[k + 2] else math.inf
        empty = bounds[k] == bounds[k + 1]
        take_before, take_behind = before <= within, behind <= within
        if empty and not (take_before or take_behind) and min(before, behind) < math.inf:
            take_before, take_behind = before <= behind, before > behind
        bounds[k] -= take_before
        bounds[k + 1] += take_behind
    return bounds


def heard_slots(rng: np.random.Generator, near: Collection[int], count: int, share: float) -> Bool[np.ndarray, " n"]:
    """For each of `count` sub-segments whether it is given as sound: all are, but those of `near` only with the
    probability 1 - `share`.
    """
    read = rng.random(count) < share
    choice = np.zeros(count, bool)
    choice[list(near)] = True
    return ~(choice & read)
