"""Masks of regions: the papers' rates, each example's own, and only real regions are chosen or give features."""

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.objectives import CorruptRegions

KEY = jax.random.key(3)
ROWS, N = 600, 36
INDEX: Any = np.arange(ROWS, dtype=np.uint32)
REAL: Any = np.arange(N) < np.random.default_rng(0).integers(1, N + 1, (ROWS, 1))
FEATURES: Any = np.arange(1, ROWS * N + 1, dtype=np.float32).reshape(ROWS, N, 1)  # each tells where it comes from
LXMERT, VILBERT = CorruptRegions(zeroed=0.8, other=0.1), CorruptRegions()


@pytest.mark.parametrize(("masking", "shares"), [(VILBERT, (0.9, 0.0, 0.1)), (LXMERT, (0.8, 0.1, 0.1))])
def test_the_papers_rates(masking: CorruptRegions, shares: tuple[float, ...]) -> None:
    seen, chosen = map(np.asarray, jax.jit(masking.draw)(KEY, INDEX, FEATURES, REAL))
    assert not (chosen & ~REAL).any()
    np.testing.assert_array_equal(seen[~chosen], FEATURES[~chosen])
    count = chosen.sum()
    assert abs(count / REAL.sum() - 0.15) < 4 * np.sqrt(0.15 * 0.85 / REAL.sum())
    zeroed, stayed = (seen[..., 0] == 0) & chosen, (seen == FEATURES)[..., 0] & chosen
    replaced = chosen & ~zeroed & ~stayed
    # Of the replaced ones some get their own features again: one in as many as are real.
    again = (1 / np.broadcast_to(REAL.sum(axis=1, keepdims=True), REAL.shape)[chosen]).mean()
    expected = (shares[0], shares[1] * (1 - again), shares[2] + shares[1] * again)
    for found, share in zip((zeroed, replaced, stayed), expected, strict=True):
        assert abs(found.sum() / count - share) < 4 * np.sqrt(share * (1 - share) / count) + 1e-9
    assert replaced.any() == (shares[1] > 0)
    for row, place in zip(*np.nonzero(replaced), strict=True):
        assert seen[row, place] in FEATURES[row][REAL[row]]


def test_a_mask_depends_on_its_own_example_alone() -> None:
    order = np.random.default_rng(1).permutation(ROWS)[:40]
    whole = LXMERT.draw(KEY, INDEX, FEATURES, REAL)
    some = LXMERT.draw(KEY, INDEX[order], FEATURES[order], REAL[order])
    for got, expected in zip(some, whole, strict=True):
        np.testing.assert_array_equal(got, np.asarray(expected)[order])
    other = LXMERT.draw(jax.random.key(4), INDEX, FEATURES, REAL)
    assert (np.asarray(other[1]) != np.asarray(whole[1])).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": 0.0}, r"rate=0.0.*above 0"),
        ({"zeroed": 0.9, "other": 0.2}, r"zeroed=0.9, other=0.2.*at most 1"),
        ({"other": -0.1, "zeroed": 0.5}, r"other=-0.1"),
    ],
)
def test_parts_that_can_t_be_are_refused(fields: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CorruptRegions(**fields)


def test_texts_are_refused() -> None:
    VILBERT.check_ids("o", "towers.regions", 0, None)
    with pytest.raises(UserError, match=r"o hides features of regions, and towers.text reads token ids"):
        VILBERT.check_ids("o", "towers.text", 0, 30)
