"""From cosines to probabilities, against the objectives' own arithmetic."""

import math

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.inference.calibration import Calibration, calibration
from mmjax.objectives.contrastive.objective import Contrastive


def test_the_scale_is_clipped_as_in_training_and_sigmoid_has_a_bias():
    objectives = {"a": Contrastive(("image", "text")), "b": Contrastive(("text", "audio"), loss="sigmoid")}
    params = {
        "objectives_a": {"log_scale": np.float32(math.log(500))},
        "objectives_b": {"log_scale": np.float32(math.log(500)), "bias": np.float32(-7)},
    }
    assert calibration(objectives, params, ("image", "text")) == Calibration("softmax", 100.0, 0.0)
    found = calibration(objectives, params, ("audio", "text"))
    assert (found.loss, found.bias) == ("sigmoid", -7.0)
    assert found.scale == pytest.approx(500, rel=1e-5)
    with pytest.raises(UserError, match="several objectives fit, a"):
        calibration(objectives, params, (None, "text"))
    with pytest.raises(UserError, match="no scale for audio and image"):
        calibration(objectives, params, ("image", "audio"))
    with pytest.raises(UserError, match="contrastive objectives are none"):
        calibration({}, {}, ("image", "text"))


def test_probabilities_are_finite_however_large_the_logits():
    logits = np.array([[1000.0, -1000.0, 0.0], [3.0, 1.0, 2.0]], np.float32)
    softmax = Calibration("softmax", 1.0, 0.0).probabilities(logits)
    np.testing.assert_allclose(softmax, jax.nn.softmax(logits), atol=1e-6)
    np.testing.assert_allclose(softmax.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        Calibration("sigmoid", 1.0, 0.0).probabilities(logits), jax.nn.sigmoid(logits), rtol=1e-6, atol=1e-30
    )
    assert Calibration("softmax", 1.0, 0.0).probabilities(np.zeros((0, 3), np.float32)).shape == (0, 3)
