"""The learning rate over a run: each schedule against its formula, and what can't be."""

import math

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.optim.optimizers import AdamW

TOTAL, WARMUP = 100, 10


def rates(**fields):
    optimizer = AdamW(2.0, warmup_steps=WARMUP, **fields)
    return np.array([float(optimizer.learning_rate(step, TOTAL)) for step in range(TOTAL)])


@pytest.mark.parametrize(
    ("fields", "formula"),
    [
        ({"schedule": "linear"}, lambda s: 2 * (1 - s / 90)),
        ({"schedule": "linear", "end_lr": 0.5}, lambda s: 2 - 1.5 * s / 90),
        ({"schedule": "cosine", "end_lr": 0.5}, lambda s: 0.5 + 1.5 * (1 + math.cos(math.pi * s / 90)) / 2),
        ({"schedule": "rsqrt", "timescale": 25}, lambda s: 2 * math.sqrt(25 / (25 + s))),
        ({"schedule": "constant"}, lambda s: 2),
        ({"schedule": "constant", "cooldown_steps": 20}, lambda s: 2 * min(1, (90 - s) / 20)),
        (
            {"schedule": "rsqrt", "timescale": 25, "cooldown_steps": 30, "end_lr": 0.1},
            lambda s: 0.1 + (2 * math.sqrt(25 / (25 + s)) - 0.1) * min(1, (90 - s) / 30),
        ),
        ({"schedule": "steps", "drops": (40, 60, 80)}, lambda s: 2 / 2 ** max(0, (s + 10) // 20 - 1)),
        ({"schedule": "steps", "drops": (11, 99), "drop": 0.1}, lambda s: 2 * 0.1 ** ((s >= 1) + (s >= 89))),
    ],
)
def test_each_schedule_is_its_formula(fields, formula):
    found = rates(**fields)
    np.testing.assert_allclose(found[:WARMUP], [2 * (s + 1) / WARMUP for s in range(WARMUP)], rtol=1e-6)
    np.testing.assert_allclose(found[WARMUP:], [formula(s) for s in range(TOTAL - WARMUP)], rtol=1e-5)


@pytest.mark.parametrize("fields", [{"schedule": "linear"}, {"schedule": "constant", "cooldown_steps": 90}])
def test_the_last_step_is_one_short_of_the_end_which_the_next_would_have(fields):
    optimizer = AdamW(2.0, warmup_steps=WARMUP, end_lr=0.2, **fields)
    last, beyond = (float(optimizer.learning_rate(step, TOTAL)) for step in (TOTAL - 1, TOTAL))
    assert last == pytest.approx(0.2 + 1.8 / 90, rel=1e-5)
    assert beyond == pytest.approx(0.2, rel=1e-6)


def test_the_stable_part_does_not_depend_on_the_length_of_the_run():
    long = AdamW(1.0, warmup_steps=WARMUP, schedule="rsqrt", timescale=25, cooldown_steps=20)
    for step in range(80):
        assert float(long.learning_rate(step, 100)) == float(long.learning_rate(step, 1000))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "linar"}, "must be cosine, linear, constant, rsqrt or steps; did you mean linear"),
        ({"schedule": "cosine", "cooldown_steps": 5}, "goes with schedule='constant' or 'rsqrt'"),
        ({"schedule": "constant", "cooldown_steps": -1}, "cooldown_steps=-1 must be at least 0"),
        ({"schedule": "rsqrt", "timescale": 0}, "timescale=0 at least 1"),
        ({"schedule": "steps"}, r"drops=\(\) go with schedule='steps', and there must be one"),
        ({"schedule": "cosine", "drops": (5,)}, r"drops=\(5,\) go with schedule='steps'.*is 'cosine'"),
        ({"schedule": "steps", "drops": (9, 5)}, r"drops=\(9, 5\) must be steps from 1 on, each later"),
        ({"schedule": "steps", "drops": (0, 5)}, r"drops=\(0, 5\) must be steps from 1 on"),
        ({"schedule": "steps", "drops": (5,), "drop": 1.0}, "drop=1.0 must be above 0 and below 1"),
        ({"schedule": "steps", "drops": (5,), "cooldown_steps": 5}, "'steps' ends by itself"),
    ],
)
def test_a_schedule_that_cannot_be_is_an_error(fields, message):
    with pytest.raises(UserError, match=f"AdamW: .*{message}"):
        AdamW(1.0, **fields)


def test_warm_up_and_cooldown_must_fit_into_the_run():
    optimizer = AdamW(1.0, warmup_steps=60, schedule="constant", cooldown_steps=50)
    with pytest.raises(UserError, match="warmup_steps=60 and cooldown_steps=50 are more than the run's 100 steps"):
        optimizer.learning_rate(0, 100)


def test_drops_count_from_the_begin_of_a_run_of_any_length():
    """CAV-MAE's: half after ten epochs, a quarter after fifteen, ..."""
    optimizer = AdamW(4e-4, schedule="steps", drops=(10, 15, 20))
    for total in (25, 1_000):
        found = [float(optimizer.learning_rate(step, total)) for step in (0, 9, 10, 14, 15, 19, 20, 24)]
        np.testing.assert_allclose(found, [4e-4, 4e-4, 2e-4, 2e-4, 1e-4, 1e-4, 5e-5, 5e-5], rtol=1e-6)
