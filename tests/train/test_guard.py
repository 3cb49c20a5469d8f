"""A step's loss and gradient are judged as plain Python would judge them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.experiment.definition import Spike
from mmjax.train.guard import clipped, fresh, judge


def judged(losses, spike=None, norms=None):
    """For each loss whether its update was made; and the counts at the end."""
    step = jax.jit(lambda counts, loss, norm: judge(counts, loss, norm, spike))
    counts, good = fresh(spike), []
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        made, counts = step(counts, jnp.float32(loss), jnp.float32(norm))
        good.append(bool(made))
    return good, {name: np.asarray(value).item() for name, value in counts.items()}


def test_what_is_not_finite_is_skipped_and_counted():
    inf, nan = np.inf, np.nan
    good, counts = judged([1, nan, 1, inf, 1, 1], norms=[1, 1, 1, 1, nan, inf])
    assert good == [True, False, True, False, False, False]
    assert counts == {"skipped": 4, "in_a_row": 3}
    assert judged([nan, nan, 1])[1] == {"skipped": 2, "in_a_row": 0}


def test_mean_and_variance_are_those_of_the_losses_until_the_window_is_full():
    losses = np.random.default_rng(0).normal(5, 1, 20)
    _, counts = judged(losses, Spike(window=20))
    assert counts["mean"] == pytest.approx(losses.mean(), rel=1e-5)
    assert counts["variance"] == pytest.approx(losses.var(), rel=1e-4)


def test_a_spike_is_skipped_and_not_learnt_from():
    calm = [2.0, 2.2] * 10
    good, counts = judged([*calm, 9.0, 9.0, 2.1], Spike(deviations=4, window=10))
    assert good == [True] * 20 + [False, False, True]
    assert (counts["skipped"], counts["spikes"], counts["in_a_row"], counts["seen"]) == (2, 2, 0, 21)
    assert counts["mean"] == pytest.approx(2.1, abs=0.05)


def test_a_low_loss_is_no_spike_nor_is_one_before_the_window_is_full():
    assert all(judged([2.0, 2.2] * 10 + [0.1], Spike(deviations=4, window=10))[0])
    assert all(judged([2.0, 2.2, 2.0, 2.2, 9.0], Spike(deviations=4, window=10))[0])


def test_a_loss_that_is_not_finite_is_not_learnt_from():
    _, counts = judged([1.0, np.nan, 3.0], Spike(window=5))
    assert (counts["seen"], counts["mean"]) == (2, 2.0)
    assert counts["spikes"] == 0


@pytest.mark.parametrize(("fields", "message"), [({"deviations": 0}, "above 0"), ({"window": 1}, "at least 2")])
def test_numbers_that_cannot_be_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Spike(**fields)


def test_the_share_of_samples_at_full_scale_is_told_of_every_waveform():
    sound = np.zeros((3, 8), np.int16)
    sound[0, :3] = 32767, -32767, -32768
    sound[1] = 32766
    mask = np.zeros((3, 8), bool)
    mask[0, :4] = mask[1] = True  # the third is missing
    batch = {"audio": sound, "audio_mask": mask, "text": np.full((3, 8), 32767, np.int32), "text_mask": mask}
    batch |= {"image": np.full((3, 2, 2, 3), 255, np.uint8), "audio_valid": np.array([True, True, False])}
    found = jax.jit(clipped)(batch)
    assert {name: float(value) for name, value in found.items()} == {"clipped/audio": 3 / 12}
    nothing = clipped({"audio": sound * 0, "audio_mask": mask & False})
    assert float(nothing["clipped/audio"]) == 0.0
    assert clipped({"image": batch["image"]}) == {}
