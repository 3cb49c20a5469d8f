import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mmjax.errors import UserError
from mmjax.models.fusion.missing import present_inputs
from tests.models.fusion.embedded import KEYS, THERE, remaining

MANY = 20_000
LEAST_P = 1e-3  # the keys are fixed: a rule that is right passes always


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(3), MANY)


def expected(there: tuple[bool, ...], rate: float) -> dict[tuple[bool, ...], float]:
    """The probability of each choice of inputs: each drops by itself; one of equal ones stays where all would."""
    count = sum(there)
    found = {}
    for left in itertools.product([True, False], repeat=len(there)):
        if all(here or not stays for here, stays in zip(there, left, strict=True)) and any(left):
            stay = sum(left)
            found[left] = (1 - rate) ** stay * rate ** (count - stay) + (rate**count / count if stay == 1 else 0)
    return found


@pytest.mark.parametrize("rate", [0.25, 0.7])
@pytest.mark.parametrize("there", [(True, True, True), (True, False, True)])
def test_choices_are_as_frequent_as_the_rule_says(there, rate, keys):
    left = np.asarray(present_inputs(jnp.broadcast_to(jnp.array(there), (MANY, 3)), rate, keys))
    want = expected(there, rate)
    assert sum(want.values()) == pytest.approx(1)
    counts = {choice: int((left == np.array(choice)).all(axis=1).sum()) for choice in want}
    assert sum(counts.values()) == MANY  # nothing else ever is left
    p = stats.chisquare(list(counts.values()), [MANY * share for share in want.values()]).pvalue
    assert p > LEAST_P
    k = sum(there)
    dropped = 1 - left[:, 0].mean()
    assert dropped == pytest.approx(rate - rate**k / k, abs=4 * (0.25 / MANY) ** 0.5)


def test_plain_loops_leave_the_same_and_the_last_one_always_stays():
    there = np.concatenate([THERE] * 8)
    keys = jax.random.split(jax.random.key(5), len(there))
    for rate in (0.3, 0.99):
        left = np.asarray(present_inputs(jnp.asarray(there), rate, keys))
        np.testing.assert_array_equal(left, remaining(there, rate, keys))
        assert (left <= there).all()
        assert (left.any(axis=1) == there.any(axis=1)).all()


def test_an_example_is_treated_alike_however_the_batch_is_cut_up():
    there = jnp.asarray(THERE)
    whole = present_inputs(there, 0.5, KEYS)
    order = np.random.default_rng(0).permutation(len(THERE))
    parts = [present_inputs(there[rows], 0.5, KEYS[rows]) for rows in np.split(order, [1, 3])]
    np.testing.assert_array_equal(np.concatenate(parts), np.asarray(whole)[order])


def test_without_keys_or_rate_all_stay():
    there = jnp.asarray(THERE)
    np.testing.assert_array_equal(present_inputs(there, 0.9, None), THERE)
    np.testing.assert_array_equal(present_inputs(there, 0.0, KEYS), THERE)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_what_is_no_rate_is_named(rate):
    with pytest.raises(UserError, match=rf"drop_inputs={rate} is not a rate .* at least 0 and below 1"):
        present_inputs(jnp.asarray(THERE), rate, KEYS)
