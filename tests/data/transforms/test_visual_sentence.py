"""Visual words as a sentence: its ends and ids, padding, and the pace at which a video goes by."""

import numpy as np
import pytest

from mmjax.data import RandomPace, Spec, VisualSentence
from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.values import Masked
from mmjax.errors import UserError

WORDS = np.array([7, 0, 4, 4, 9, 2], np.int32)
PADDED = Masked(np.concatenate([WORDS, np.full(3, 99, np.int32)]), np.arange(9) < 6)


@pytest.mark.parametrize(("given", "length"), [(WORDS, 8), (PADDED, 11)])
def test_words_stand_between_their_ends_and_behind_the_special_ids(given: np.ndarray | Masked, length: int):
    ids, mask = VisualSentence(begin=2, end=0, special=4)(given, None)
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 11, 4, 8, 8, 13, 6, 0] + [0] * (length - 8)
    assert mask.tolist() == [True] * 8 + [False] * (length - 8)


def test_what_it_says_of_itself_is_what_it_gives():
    before = Spec((9,), "int32", pieces=20_736)
    after = VisualSentence().spec(RandomPace().spec(before))
    assert after == Spec((11,), "int32", masked=True, pieces=20_739)
    ids, mask = VisualSentence()(RandomPace()(PADDED, None), None)
    assert after is not None
    assert (ids.shape, mask.shape) == (after.shape, after.shape)
    assert VisualSentence().spec(None) is RandomPace().spec(None) is None
    unknown = VisualSentence().spec(Spec((9,), "int32"))
    assert unknown is not None
    assert unknown.pieces == 0  # it isn't known how many there are


def test_every_pace_is_drawn_and_takes_what_it_says():
    wanted = {tuple(WORDS[::pace].tolist()): pace for pace in range(1, 4)}
    random, paces = np.random.default_rng(0), []
    for _ in range(300):
        ids, mask = RandomPace(3)(PADDED, random)
        assert (ids.dtype, ids.shape) == (np.int32, (9,))
        assert not ids[~mask].any()
        assert mask.tolist() == (np.arange(9) < mask.sum()).tolist()
        paces.append(wanted[tuple(ids[mask].tolist())])
    assert all(70 < paces.count(pace) < 130 for pace in (1, 2, 3))
    assert RandomPace.random  # so the pipeline gives it a generator


def test_in_evaluation_all_words_stay():
    ids, mask = RandomPace(5)(PADDED, None)
    assert ids[mask].tolist() == WORDS.tolist()
    assert not ids[~mask].any()


@pytest.mark.parametrize("step", [RandomPace(), VisualSentence()])
def test_a_video_without_words_is_a_bad_example(step: RandomPace | VisualSentence):
    for empty in (WORDS[:0], Masked(WORDS, np.zeros(6, bool))):
        with pytest.raises(BadExample, match="no visual words") as caught:
            step(empty, np.random.default_rng(0))
        assert caught.value.kind == "empty"


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"RandomPace\(fastest=0\) must be at least 1"):
        RandomPace(0)
    for ends in ({"begin": 1}, {"end": 3}, {"begin": -1}, {"special": 1}):
        with pytest.raises(UserError, match="must be different ids from 0 on and below special"):
            VisualSentence(**ends)
    for shape, dtype in (((4, 3), "int32"), ((4,), "float32")):
        with pytest.raises(UserError, match="follows visual words"):
            VisualSentence().spec(Spec(shape, dtype))
