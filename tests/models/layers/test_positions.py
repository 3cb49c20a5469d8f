import math

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.layers.positions import resize, sincos


def test_one_axis():
    table = sincos((5,), 8)
    for p in range(5):
        angles = [p / 10_000 ** (k / 4) for k in range(4)]
        np.testing.assert_allclose(table[p], [*map(math.sin, angles), *map(math.cos, angles)], atol=1e-6)


def test_two_axes_column_first():
    table = sincos((3, 4), 16).reshape(3, 4, 16)
    for row in range(3):
        for column in range(4):
            np.testing.assert_array_equal(table[row, column, :8], sincos((4,), 8)[column])
            np.testing.assert_array_equal(table[row, column, 8:], sincos((3,), 8)[row])


def test_the_places_of_a_video_are_those_of_a_sequence():
    """Of three axes any even width will do: 1,024, which three axes don't divide."""
    np.testing.assert_array_equal(sincos((2, 3, 4), 1024), sincos((24,), 1024))


def test_a_longer_grid_begins_as_a_shorter_one():
    np.testing.assert_array_equal(sincos((9,), 8)[:5], sincos((5,), 8))


def test_width_must_hold_all_axes():
    with pytest.raises(UserError, match=r"width=18 .* multiple of 4"):
        sincos((2, 2), 18)


def test_resize_to_the_same_grid_is_the_identity():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(13, 4)))
    np.testing.assert_array_equal(resize(table, (3, 4), (3, 4), prefix=1), table)


def test_resize_keeps_the_prefix_and_follows_a_smooth_table():
    y, x = np.meshgrid((np.arange(8) + 0.5) / 8, (np.arange(6) + 0.5) / 6, indexing="ij")
    table = jnp.asarray(np.concatenate([[[9.0, 9.0]], np.stack([y, x], -1).reshape(-1, 2)]), jnp.float32)
    got = resize(table, (8, 6), (16, 12), prefix=1)
    assert got.shape == (1 + 16 * 12, 2)
    np.testing.assert_array_equal(got[0], [9.0, 9.0])
    inner = np.asarray(got[1:]).reshape(16, 12, 2)[4:-4, 4:-4]  # the border has no neighbours to go by
    y, x = np.meshgrid((np.arange(16) + 0.5) / 16, (np.arange(12) + 0.5) / 12, indexing="ij")
    np.testing.assert_allclose(inner, np.stack([y, x], -1)[4:-4, 4:-4], atol=1e-5)


def test_resize_refuses_a_table_of_another_grid():
    with pytest.raises(UserError, match=r"table of 10 positions, 1 of them prefix, cannot go from grid \(3, 4\)"):
        resize(jnp.zeros((10, 4)), (3, 4), (2, 2), prefix=1)
