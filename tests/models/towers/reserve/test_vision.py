"""The vision tower equals frames by hand, one at a time."""

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from tests.models.towers.reserve import twin
from tests.models.towers.reserve.towers import SIZE, drawn, frame_by_hand, vision

RANDOM = np.random.default_rng(3)
X = RANDOM.integers(0, 256, (2, 3, *SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("fields", [{}, {"scaled": True}, {"ratio": 1}, {"patch": 4, "ratio": 1}])
def test_tokens_equal_frames_by_hand(fields: dict[str, Any]) -> None:
    tower = vision(**fields)
    variables = drawn(tower, X)
    mask = np.array([[True, True, False], [False, True, True]])
    tokens, real = jax.jit(lambda *inputs: tower.apply(*inputs, method="tokens"))(variables, X, mask)
    held = twin.in_float64(variables["params"])
    tokens = np.asarray(tokens).reshape(2, 3, tower.each, -1)
    for row in range(2):
        for place in np.flatnonzero(mask[row]):
            expected = frame_by_hand(X[row, place], held, tower)
            np.testing.assert_allclose(tokens[row, place], expected, atol=1e-5, rtol=1e-5)
    assert tower.each == 1 + np.prod(tower.rows_columns)
    assert np.asarray(real).sum() == mask.sum() * tower.each


def test_floats_are_taken_as_they_are_and_bytes_by_255() -> None:
    tower = vision()
    variables = drawn(tower, X)
    run: Any = jax.jit(tower.apply)
    first, second = (run(variables, x) for x in (X, (X / 255).astype(np.float32)))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_bytes_are_normalised() -> None:
    tower = vision()
    mean, std = (0.5, 0.25, 0.75), (0.5, 0.125, 2.0)
    given = ((X / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
    variables = drawn(tower, X)
    found = jax.jit(vision(mean=mean, std=std).apply)(variables, X)
    np.testing.assert_allclose(found, jax.jit(tower.apply)(variables, given), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch": 5}, r"size=\(8, 12\) doesn't divide into patches of 5x5"),
        ({"ratio": 3}, r"size=\(8, 12\), ratio=3: 4 patches down aren't pooled by 3: take a divisor of 4"),
        ({"ratio": 4}, r"ratio=4: 6 patches across aren't pooled by 4"),
        ({"size": (8, 16)}, r"frames of 8x12 pixels, and size=\(8, 16\): set it to theirs"),
    ],
)
def test_sizes_that_do_not_fit_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        vision(**fields).init(jax.random.key(0), X)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Incoming((8, 12, 3), "uint8"), r"towers.video reads videos \[F, H, W, 3\]"),
        (Incoming((4, 8, 8, 3), "uint8"), r"frames of 8x8 pixels, and towers.video.size=\(8, 12\): set both"),
    ],
)
def test_inputs_that_do_not_fit_are_named(given: Incoming, message: str) -> None:
    vision().check_input("towers.video", Incoming((4, *SIZE, 3), "uint8"))
    with pytest.raises(UserError, match=message):
        vision().check_input("towers.video", given)
