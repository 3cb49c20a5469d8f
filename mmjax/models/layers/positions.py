"""Position tables: fixed sines and cosines, and learned ones resized to another grid."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmjax.errors import UserError

PositionName = Literal["learned", "sincos", "rotary", "none"]
WAVELENGTH = 10_000.0  # the longest, in units of 2 pi positions (Vaswani et al. 2017, arXiv:1706.03762)


def sincos(grid: tuple[int, ...], width: int) -> Float[np.ndarray, "n d"]:
    """The fixed table of a `grid`, row by row, float32 `[prod(grid), width]`.

    An axis fills its share of the channels with `[sin(p w), cos(p w)]`, w_k = 10000^(-k / (share / 2)). On a 2-D grid
    the first half of the channels is the column's, the second the row's (as in MAE: He et al. 2021, arXiv:2111.06377).
    The places of a grid of more axes, a video's, are those of one sequence (as in VideoMAE: Tong et al. 2022,
    arXiv:2203.12602, whose table has the sine and the cosine of a frequency side by side).

    Raises:
        UserError: `width` doesn't divide into sines and cosines of each axis.
    """
    grid = grid if len(grid) < 3 else (math.prod(grid),)
    if width % (2 * len(grid)):
        raise UserError(
            f"width={width} cannot hold sines and cosines of {len(grid)} axes: take a multiple of {2 * len(grid)}"
        )
    share = width // len(grid)
    frequencies = WAVELENGTH ** (-np.arange(share // 2) / (share // 2))
    axes = np.meshgrid(*(np.arange(size) for size in grid), indexing="ij")
    angles = [np.multiply.outer(axis.reshape(-1), frequencies) for axis in reversed(axes)]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=-1).astype(np.float32)


def resize(
    table: Float[Array, "n d"], old: tuple[int, ...], new: tuple[int, ...], prefix: int = 0
) -> Float[Array, "m d"]:
    """Learned positions of the grid `old`, for the grid `new`: bicubic; the first `prefix` rows (CLS) stay as they are.

    Raises:
        UserError: the table doesn't have `prefix + prod(old)` rows, or the grids differ in their number of axes.
    """
    if len(table) != prefix + math.prod(old) or len(old) != len(new):
        raise UserError(
            f"a table of {len(table)} positions, {prefix} of them prefix, cannot go from grid {old} to {new}"
        )
    if old == new:
        return table
    rows = jnp.asarray(table)[prefix:].reshape(*old, -1)
    rows = jax.image.resize(rows, (*new, rows.shape[-1]), method="bicubic", antialias=False)
    return jnp.concatenate([jnp.asarray(table)[:prefix], rows.reshape(math.prod(new), -1)])
