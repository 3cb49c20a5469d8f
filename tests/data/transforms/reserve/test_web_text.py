"""Masked spans of a text: put back, they give the text."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.chains import Chains
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.reserve.ids import ReserveIds
from mmjax.data.transforms.reserve.web_text import LENGTHS, MaskSpans
from mmjax.data.transforms.values import Cut
from mmjax.errors import UserError
from tests.data.conftest import kind_of
from tests.data.transforms.reserve.windows import SHIFT, Numerals, masked

MASK = 3


def text(count: int) -> str:
    return " ".join(map(str, range(count)))


def put_back(found) -> list[int]:
    (ids, mask), labels = masked(found), found.labels
    pieces = []
    for id, pointer in zip(ids[mask].tolist(), labels["text_ptr"][mask].tolist(), strict=True):
        assert (id == MASK) == (pointer >= 0)
        pieces += labels["spans"][pointer, : labels["lengths"][pointer]].tolist() if pointer >= 0 else [id]
    return pieces


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 120), st.integers(1, 6), st.integers(12, 40), st.one_of(st.none(), st.integers(0, 999)))
def test_what_was_masked_is_put_back(count, spans, length, seed):
    step = MaskSpans(Numerals(), spans=spans, length=length)
    found = step(text(count), None if seed is None else np.random.default_rng(seed))
    pieces = put_back(found)
    begin = pieces[0] - SHIFT
    assert pieces == [SHIFT + begin + i for i in range(len(pieces))]
    if seed is None:
        assert begin == 0
    (ids, mask), labels = masked(found), found.labels
    if len(pieces) < count:  # the rest had no room
        assert mask.all()
        assert isinstance(found.value, Cut)
        assert found.value.whole == count
    else:
        assert not isinstance(found.value, Cut)
    used = int((labels["lengths"] > 0).sum())
    assert labels["text_ptr"][labels["text_ptr"] >= 0].tolist() == list(range(used))
    assert (labels["lengths"][used:] == 0).all()
    assert used == (spans if count >= length + 15 * spans else used)
    assert used >= (count > 1)
    assert mask.tolist() == [True] * int(mask.sum()) + [False] * (length - int(mask.sum()))
    assert (ids[~mask] == 0).all()
    places = np.flatnonzero(labels["text_ptr"] >= 0)
    assert (np.diff(places) > 1).all()  # a piece stays between two masks


def test_the_paper_masks_38_spans_with_a_mean_of_623():
    lengths = np.arange(1, 16)
    assert np.dot(lengths, LENGTHS) / sum(LENGTHS) == pytest.approx(6.23, abs=1e-4)
    step, drawn = MaskSpans(Numerals()), []
    for seed in range(40):
        found = step(text(2000), np.random.default_rng(seed))
        assert masked(found).mask.all()
        assert (masked(found).values == MASK).sum() == 38
        drawn += found.labels["lengths"].tolist()
    assert np.mean(drawn) == pytest.approx(6.23, abs=0.35)
    assert (min(drawn), max(drawn)) == (1, 15)


def test_lengths_are_the_histograms():
    drawn = []
    for seed in range(30):
        step = MaskSpans(Numerals(), spans=20, length=200, histogram=(1.0, 0.0, 3.0))
        drawn += step(text(500), np.random.default_rng(seed)).labels["lengths"].tolist()
    assert set(drawn) == {1, 3}
    assert np.mean(np.asarray(drawn) == 3) == pytest.approx(0.75, abs=0.06)


def test_spans_lie_everywhere_and_so_does_the_part():
    step = MaskSpans(Numerals(), spans=1, length=4, histogram=(1.0,))
    places, begins = [], []
    for seed in range(2000):
        found = step(text(6), np.random.default_rng(seed))
        places.append(int(np.flatnonzero(found.labels["text_ptr"] >= 0)[0]))
        begins.append(put_back(found)[0] - SHIFT)
    np.testing.assert_allclose(np.bincount(places) / 2000, [0.25] * 4, atol=0.04)
    np.testing.assert_allclose(np.bincount(begins) / 2000, [1 / 3] * 3, atol=0.04)


def test_a_short_text_has_fewer_spans_in_proportion():
    counts = [np.mean([(step_of(n, seed).labels["lengths"] > 0).sum() for seed in range(20)]) for n in (80, 400, 2000)]
    assert counts[2] == 38
    assert counts[1] == pytest.approx(38 * 400 / 839, abs=1)
    assert counts[0] == pytest.approx(38 * 80 / 839, abs=1)


def step_of(count, seed):
    return MaskSpans(Numerals())(text(count), np.random.default_rng(seed))


def test_spans_of_very_different_lengths_leave_a_piece_between_two():
    step = MaskSpans(Numerals(), spans=6, length=12, histogram=(1.0, *[0.0] * 8, 1.0))
    for count in range(1, 60):
        for seed in range(10):
            found = step(text(count), np.random.default_rng(seed))
            assert (np.diff(np.flatnonzero(found.labels["text_ptr"] >= 0)) > 1).all()
            assert np.diff(put_back(found)).tolist() == [1] * (len(put_back(found)) - 1)


def test_evaluation_and_equal_draws_give_the_same():
    step = MaskSpans(Numerals(), spans=4, length=40)
    for rng in (lambda: None, lambda: np.random.default_rng(3)):
        one, two = step(text(90), rng()), step(text(90), rng())
        np.testing.assert_array_equal(masked(one).values, masked(two).values)
        np.testing.assert_array_equal(one.labels["spans"], two.labels["spans"])
    other = step(text(90), np.random.default_rng(4))
    assert not np.array_equal(masked(one).values, masked(other).values)


def test_a_chain_of_any_text():
    described = SentencePiece(60)
    chains = Chains(
        {"story": (MaskSpans(described, spans=3, length=20, ids=ReserveIds(shift=20)),)},
        {"story": PieceTokenizer(described.train(["a red dog runs", "a blue cat sleeps"]))},
    )
    row = chains.row({"id": "a", "story": "a red cat runs"}, lambda name: np.random.default_rng(0))
    assert row["story"].shape == row["story_text_ptr"].shape == (20,)
    assert row["story_spans"].shape == (3, 15)
    ids = row["story"][row["story_mask"]]
    assert MASK in ids
    assert ids[ids != MASK].min() >= 20


def test_what_cannot_be_is_told():
    wrong: list[dict[str, Any]] = [
        {"spans": 0},
        {"length": 1.5},
        {"spans": 321},
        {"histogram": ()},
        {"histogram": (0.0,)},
        {"histogram": (2.0, -1.0)},
    ]
    for fields in wrong:
        with pytest.raises(UserError, match=rf"MaskSpans\(.*{next(iter(fields))}="):
            MaskSpans(Numerals(), **fields)
    step = MaskSpans(Numerals())
    assert kind_of(step, " ") == "empty"
    assert kind_of(step, b"text") == "undecodable"
    with pytest.raises(TypeError, match="no model yet"):
        MaskSpans(SentencePiece())("a", None)
