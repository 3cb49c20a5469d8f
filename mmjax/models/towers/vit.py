"""The image tower: a vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.contract import PatchTower

Pictures = UInt8[Array, "b h w 3"] | Float[Array, "b h w 3"]


def normalised(pixels: Array, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Float[Array, "..."]:
    """Normalises pixels 0 to 255 `[..., 3]` to float32; floats count as normalised already, and are unchanged."""
    if jnp.issubdtype(pixels.dtype, jnp.floating):
        return pixels.astype(jnp.float32)
    return (pixels / jnp.float32(255) - jnp.array(mean, jnp.float32)) / jnp.array(std, jnp.float32)


def check_pictures(path: str, tower: Any, given: Incoming, patch: str = "") -> None:
    """Raises UserError where a tower of pictures isn't given pictures, or such as have another size than its own.

    patch: what besides `size` decides it, ` and patch=4`.
    """
    if len(given.shape) != 3 or given.shape[2] != 3:
        raise UserError(
            f"{path} reads pictures [H, W, 3], and data.transforms gives {given}: end the chain in Resize(size), say, "
            "or take another tower"
        )
    try:
        tower.grid(cast(Any, np.broadcast_to(np.uint8(0), (1, *given.shape))))  # of which it reads the shape
    except ValueError as error:
        size = f"{given.shape[0]}x{given.shape[1]}"
        raise UserError(
            f"data.transforms gives pictures of {size}, {path} has size={tower.size}{patch}: {error}"
        ) from error


class ViT(PatchTower, kw_only=True):
    """Pictures uint8 `[B, H, W, 3]` -> square patches -> transformer. Float pictures are taken as normalised already.

    Attributes:
        patch: side of a patch in pixels.
        size: (height, width) of the pictures in pixels, or one number for both; learned positions hold for it alone,
            rotary ones of another grid are stretched to it.
        drop_rest: whether pixels at the right and lower edge that fill no patch are left out, as a convolution does
            (SigLIP's So400m/14 sees 378 of 384); else they are an error.
        mean, std: of the channels, for values in [0, 1]; the defaults bring pixels to [-1, 1].
    """

    patch: int
    size: int | tuple[int, int]
    drop_rest: bool = False
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def check_input(self, path: str, given: Incoming) -> None:
        check_pictures(path, self, given, f" and patch={self.patch}")

    def capacity(self) -> tuple[int, int]:
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return self._grid(height, width)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        if not self.drop_rest and (height % self.patch or width % self.patch):
            raise UserError(
                f"pictures of {height}x{width} pixels don't divide into patches of {self.patch}x{self.patch}"
            )
        return height // self.patch, width // self.patch

    def grid(self, x: Pictures) -> tuple[int, int]:
        """Rows and columns of patches.

        Raises:
            UserError: the pictures don't divide into patches, or learned positions are of another size.
        """
        grid = self._grid(*x.shape[1:3])
        if self.positions == "learned" and grid != self.capacity():
            raise UserError(
                f"pictures of {x.shape[1]}x{x.shape[2]} pixels have {grid} patches, but learned positions are for "
                f"{self.capacity()}: set size to the pictures', and bring learned positions to it by positions.resize"
            )
        return grid

    def coordinates(self, grid: tuple[int, ...]) -> Float[np.ndarray, "n a"]:
        """Rows and columns, of a grid of another size in patches of the grid of `size`."""
        stretch = np.array(self.capacity(), np.float32) / np.array(grid, np.float32)
        return super().coordinates(grid) * stretch

    def patches(self, x: Pictures, mask: None = None) -> tuple[Float[Array, "b n p"], Bool[Array, "b n"]]:
        """The normalised pixels of each patch, float32 `[B, N, patch * patch * 3]`, row by row; all are real."""
        batch, (rows, columns), p = len(x), self.grid(x), self.patch
        # Cut up as bytes: a quarter of the memory to move.
        cut = x[:, : rows * p, : columns * p].reshape(batch, rows, p, columns, p, 3).transpose(0, 1, 3, 2, 4, 5)
        pixels = normalised(cut, self.mean, self.std)
        return pixels.reshape(batch, rows * columns, -1), jnp.ones((batch, rows * columns), bool)
