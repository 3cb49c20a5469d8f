"""Masks: exact counts, unique ids, and each example's own, whatever stands beside it."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.errors import UserError
from mmjax.objectives.views import Corrupt, Keep, View

KEY = jax.random.key(7)
ROWS, PATCHES = 6, 20
SHARES = (0.1, 0.15, 0.5, 1.0)  # few, so that each is compiled once
few = settings(max_examples=12, deadline=None)
masks = st.lists(st.lists(st.booleans(), min_size=PATCHES, max_size=PATCHES), min_size=ROWS, max_size=ROWS)
indices = st.lists(st.integers(0, 2**32 - 1), min_size=ROWS, max_size=ROWS, unique=True)
KEEP = {share: jax.jit(Keep(share).draw) for share in SHARES}
CORRUPT = {rate: jax.jit(Corrupt(vocab=50, rate=rate).draw) for rate in SHARES}


@few
@given(st.sampled_from(SHARES), masks, indices)
def test_keep_draws_exactly_the_share_of_the_valid_patches(
    share: float, mask: list[list[bool]], index: list[int]
) -> None:
    valid = np.array(mask)
    ids = np.asarray(KEEP[share](KEY, np.array(index, np.uint32), valid))
    assert ids.shape == (ROWS, math.ceil(share * PATCHES))
    for row, allowed in zip(ids, valid, strict=True):
        real = row[row >= 0]
        assert len(real) == math.ceil(share * allowed.sum() - 1e-9)
        assert (np.diff(real) > 0).all()  # ascending, so unique too
        assert allowed[real].all()
        assert (row[len(real) :] == -1).all()


@few
@given(st.sampled_from(SHARES), masks, indices, st.permutations(range(ROWS)))
def test_a_mask_depends_on_its_own_example_alone(
    share: float, mask: list[list[bool]], index: list[int], order: list[int]
) -> None:
    valid, rows = np.array(mask), np.array(index, np.uint32)
    words = np.random.default_rng(0).integers(0, 50, valid.shape).astype(np.int32)
    whole = np.asarray(KEEP[share](KEY, rows, valid))
    np.testing.assert_array_equal(KEEP[share](KEY, rows[order], valid[order]), whole[order])
    seen, chosen = CORRUPT[share](KEY, rows, words, valid)
    again = CORRUPT[share](KEY, rows[order], words[order], valid[order])
    np.testing.assert_array_equal(again[0], np.asarray(seen)[order])
    np.testing.assert_array_equal(again[1], np.asarray(chosen)[order])
    others = valid.copy()
    others[1:] = ~others[1:]
    np.testing.assert_array_equal(np.asarray(KEEP[share](KEY, rows, others))[0], whole[0])


def test_masks_differ_by_example_step_and_view() -> None:
    valid, index = np.ones((ROWS, PATCHES), bool), np.arange(ROWS, dtype=np.uint32)
    first = np.asarray(KEEP[0.5](KEY, index, valid))
    assert len(np.unique(first, axis=0)) == ROWS
    assert (np.asarray(KEEP[0.5](jax.random.fold_in(KEY, 1), index, valid)) != first).any(axis=1).all()
    image, audio = View("image", Keep(0.5)).key(KEY), View("audio", Keep(0.5)).key(KEY)
    assert (np.asarray(KEEP[0.5](image, index, valid)) != np.asarray(KEEP[0.5](audio, index, valid))).any()


def test_keep_is_uniform_over_the_patches() -> None:
    rows = 4000
    ids = np.asarray(jax.jit(Keep(0.25).draw)(KEY, np.arange(rows, dtype=np.uint32), np.ones((rows, PATCHES), bool)))
    share = np.bincount(ids.ravel(), minlength=PATCHES) / rows
    np.testing.assert_allclose(share, 0.25, atol=5 * math.sqrt(0.25 * 0.75 / rows))


@few
@given(st.sampled_from(SHARES), masks, st.integers(0, 2**31 - 1))
def test_corrupt_chooses_an_exact_count_and_no_special_token(rate: float, mask: list[list[bool]], seed: int) -> None:
    valid = np.array(mask)
    words = np.random.default_rng(seed).integers(0, 12, valid.shape).astype(np.int32)  # 5 of 12 are special
    seen, chosen = map(np.asarray, CORRUPT[rate](KEY, np.arange(ROWS, dtype=np.uint32), words, valid))
    maskable = valid & (words >= 5)
    assert not (chosen & ~maskable).any()
    assert (seen[~chosen] == words[~chosen]).all()
    n = maskable.sum(axis=1)
    assert chosen.sum(axis=1).tolist() == [min(k, max(1, round(rate * k))) for k in n.tolist()]
    assert ((seen[chosen] >= 5) | (seen[chosen] == 4)).all()


def test_corrupt_is_eighty_ten_ten_of_fifteen_percent() -> None:
    rows, length, vocab = 3000, 40, 1000
    words = np.random.default_rng(0).integers(5, vocab, (rows, length)).astype(np.int32)
    draw = jax.jit(Corrupt(vocab=vocab).draw)
    seen, chosen = map(np.asarray, draw(KEY, np.arange(rows, dtype=np.uint32), words, np.ones(words.shape, bool)))
    assert chosen.mean() == pytest.approx(0.15)
    n = chosen.sum()
    masked, same = seen[chosen] == 4, seen[chosen] == words[chosen]
    for part, expected in ((masked, 0.8), (same, 0.1 + 0.1 / (vocab - 5)), (~masked & ~same, 0.1)):
        assert abs(part.mean() - expected) < 5 * math.sqrt(expected * (1 - expected) / n)
    drawn = seen[chosen][~masked & ~same]
    assert drawn.min() < 30  # over all ids that aren't special
    assert drawn.max() > vocab - 30
    assert np.abs(chosen.mean(axis=0) - 0.15).max() < 5 * math.sqrt(0.15 * 0.85 / rows)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Keep(0.0), "share=0.0"),
        (lambda: Keep(1.5), "share=1.5"),
        (lambda: Corrupt(vocab=50, rate=0.0), "rate=0.0"),
        (lambda: Corrupt(vocab=50, masked=0.8, random=0.3), "at most 1 together"),
        (lambda: Corrupt(vocab=50, mask_id=50), "0 to 49"),
    ],
)
def test_shares_out_of_range_are_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
