"""Masks: exact counts, unique ids, and each example's own, whatever stands beside it."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.errors import UserError
from mmjax.objectives.contract import View
from mmjax.objectives.masking import Corrupt, Keep, KeepOutsideBands, KeepOutsideBlocks

KEY = jax.random.key(7)
ROWS, PATCHES = 6, 20
SHARES = (0.1, 0.15, 0.5, 1.0)  # few, so that each is compiled once
few = settings(max_examples=12, deadline=None)
masks = st.lists(st.lists(st.booleans(), min_size=PATCHES, max_size=PATCHES), min_size=ROWS, max_size=ROWS)
indices = st.lists(st.integers(0, 2**32 - 1), min_size=ROWS, max_size=ROWS, unique=True)
KEEP = {share: jax.jit(Keep(share).draw) for share in SHARES}
AT_MOST = jax.jit(Keep(0.5, most=6).draw)
GRID = (10, 8)  # of those that ask for one
ON_GRID = {
    KeepOutsideBlocks(0.6, smallest=6): lambda rows, bands: math.ceil(0.6 * rows * bands - 1e-9),
    KeepOutsideBlocks(0.05, smallest=40): lambda rows, bands: math.ceil(0.05 * rows * bands - 1e-9),
    KeepOutsideBands(0.2, 0.3): lambda rows, bands: max(1, 8 * rows // 10) * (7 * bands // 10),
    KeepOutsideBands(0.7, 0.0): lambda rows, bands: max(1, 3 * rows // 10) * bands,
}
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


@few
@given(masks, indices)
def test_no_more_are_kept_than_the_most_and_of_the_same_draw(mask: list[list[bool]], index: list[int]) -> None:
    """An example that the bound doesn't touch keeps what it would keep without it."""
    valid, rows = np.array(mask), np.array(index, np.uint32)
    ids, free = np.asarray(AT_MOST(KEY, rows, valid)), np.asarray(KEEP[0.5](KEY, rows, valid))
    assert ids.shape == (ROWS, 6)  # of 20 the half would be 10
    for row, other, allowed in zip(ids, free, valid, strict=True):
        real, longer = row[row >= 0], other[other >= 0]
        assert len(real) == min(6, math.ceil(0.5 * allowed.sum() - 1e-9))
        assert set(real) <= set(longer)
        assert (row[len(real) :] == -1).all()


def test_what_has_no_bound_draws_as_before_there_was_one() -> None:
    """The keys of its masks are made from this text."""
    assert View("image", Keep(0.25)).text() == "View(modality='image', masking=Keep(share=0.25))"
    blocks = "KeepOutsideBlocks(share=0.5, smallest=16, aspect=0.3)"
    assert View("image", KeepOutsideBlocks(0.5)).text() == f"View(modality='image', masking={blocks})"
    assert repr(Keep(0.25, most=9)) == "Keep(share=0.25, most=9)"
    assert eval(repr(KeepOutsideBlocks(0.5, most=9))) == KeepOutsideBlocks(0.5, most=9) != KeepOutsideBlocks(0.5)


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


@pytest.mark.parametrize("masking", ON_GRID)
def test_on_a_grid_the_count_is_exact_and_an_example_is_alone(masking: KeepOutsideBlocks | KeepOutsideBands) -> None:
    """Of examples whose first times are valid, all or none of them: padded sounds."""
    times = np.array([10, 7, 1, 0, 3, 10])
    valid = np.repeat(np.arange(GRID[0]) < times[:, None], GRID[1], axis=1)
    draw = jax.jit(masking.draw, static_argnums=3)
    index = np.arange(ROWS, dtype=np.uint32)
    ids = np.asarray(draw(KEY, index, valid, GRID))
    for row, allowed, count in zip(ids, valid, times.tolist(), strict=True):
        real = row[row >= 0]
        assert len(real) == (ON_GRID[masking](count, GRID[1]) if count else 0)
        assert (np.diff(real) > 0).all()
        assert allowed[real].all()
        assert (row[len(real) :] == -1).all()
        if isinstance(masking, KeepOutsideBands) and len(real):
            kept = np.zeros(GRID, bool)
            kept.flat[real] = True
            np.testing.assert_array_equal(kept, np.outer(kept.any(axis=1), kept.any(axis=0)))
    order = [5, 0, 4, 1, 3, 2]
    np.testing.assert_array_equal(draw(KEY, index[order], valid[order], GRID), ids[order])
    assert (ids[0] != ids[5]).any()
    assert (np.asarray(draw(jax.random.fold_in(KEY, 1), index, valid, GRID))[0] != ids[0]).any()


def test_published_counts() -> None:
    assert KeepOutsideBands(0.2, 0.2).slots(512, (64, 8)) == 51 * 6  # AudioMAE's fine-tuning hides 206 of 512
    assert KeepOutsideBlocks(121 / 196).slots(196, (14, 14)) == 196 - 75


def beit(random: np.random.Generator, side: int, wanted: int, smallest: int, aspect: float) -> np.ndarray:
    """BEiT's rectangles, one after the other; then single patches, as many as are missing."""
    hidden, failures = np.zeros((side, side), bool), 0
    while hidden.sum() < wanted and failures < 10:
        left = wanted - hidden.sum()
        area = smallest + (left - smallest) * random.random()
        ratio = math.exp(random.uniform(math.log(aspect), -math.log(aspect)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        failures += 1
        if height < side and width < side:
            top, start = random.integers(side - height + 1), random.integers(side - width + 1)
            block = np.zeros_like(hidden)
            block[top : top + height, start : start + width] = True
            if 0 < (block & ~hidden).sum() <= left:
                hidden, failures = hidden | block, 0
    missing = random.permutation(np.flatnonzero(~hidden))[: wanted - hidden.sum()]
    hidden.flat[missing] = True
    return hidden


def test_blocks_are_those_of_a_plain_loop() -> None:
    """How often each patch is hidden, and it and its neighbours together, which tells blocks from scattered patches."""
    rows, side, wanted = 3000, 8, 25
    random = np.random.default_rng(0)
    theirs = np.stack([beit(random, side, wanted, 6, 0.3) for _ in range(rows)])
    masking = KeepOutsideBlocks(1 - wanted / side**2, smallest=6)
    valid = np.ones((rows, side**2), bool)
    draw = jax.jit(masking.draw, static_argnums=3)
    ids = np.asarray(draw(KEY, np.arange(rows, dtype=np.uint32), valid, (side, side)))
    ours = np.ones((rows, side**2), bool)
    np.put_along_axis(ours, ids, False, axis=1)
    ours = ours.reshape(rows, side, side)
    assert (ours.sum(axis=(1, 2)) == wanted).all()

    def seen(hidden: np.ndarray) -> list[np.ndarray]:
        across, down = hidden[:, :, 1:] & hidden[:, :, :-1], hidden[:, 1:] & hidden[:, :-1]
        far = hidden[:, :, 3:] & hidden[:, :, :-3]
        return [each.mean(axis=0) for each in (hidden, across, down, far)]

    for mine, other in zip(seen(ours), seen(theirs), strict=True):
        assert np.abs(mine - other).max() < 4.5 * math.sqrt(2 * 0.25 / rows)
        assert abs(mine.mean() - other.mean()) < 0.005
    uniform = (wanted / side**2) ** 2
    assert seen(ours)[1].mean() > 1.7 * uniform


def test_bands_are_uniform_over_times_and_bands() -> None:
    rows = 3000
    draw = jax.jit(KeepOutsideBands(0.4, 0.5).draw, static_argnums=3)
    ids = np.asarray(draw(KEY, np.arange(rows, dtype=np.uint32), np.ones((rows, 80), bool), GRID))
    share = np.bincount(ids.ravel(), minlength=80) / rows
    np.testing.assert_allclose(share, 0.6 * 0.5, atol=5 * math.sqrt(0.3 * 0.7 / rows))


def test_another_grid_is_refused() -> None:
    for masking in (KeepOutsideBands(), KeepOutsideBlocks(0.5)):
        with pytest.raises(UserError, match=rf"{type(masking).__name__} needs patches in .* grid of \(20,\)"):
            masking.slots(20, (20,))


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
        (lambda: Keep(0.5, most=0), "most=0.*at least 1"),
        (lambda: KeepOutsideBlocks(1.5), r"KeepOutsideBlocks\(share=1.5"),
        (lambda: KeepOutsideBlocks(0.5, aspect=2.0), "aspect=2.0"),
        (lambda: KeepOutsideBands(time=1.0), "time=1.0"),
        (lambda: Corrupt(vocab=50, rate=0.0), "rate=0.0"),
        (lambda: Corrupt(vocab=50, masked=0.8, random=0.3), "at most 1 together"),
        (lambda: Corrupt(vocab=50, mask_id=50), "0 to 49"),
    ],
)
def test_shares_out_of_range_are_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
