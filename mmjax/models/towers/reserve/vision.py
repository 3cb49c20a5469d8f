"""The vision tower of MERLOT Reserve: each frame of a video by a ViT that knows rows and columns by rotation."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.reserve.encoder import on_grid
from mmjax.models.towers.reserve.parts import PartsTower
from mmjax.models.towers.tubelets import Videos, check_videos
from mmjax.models.towers.vit import normalised

CHANNELS = 3


class ReserveVision(PartsTower, kw_only=True):
    """Frames `[B, N, H, W, 3]`, bytes or floats in [0, 1] -> square patches -> transformer -> `ratio` x `ratio` patches
    pooled to one token (Zellers et al. 2022, arXiv:2201.02639). Pixels are read as they are, from 0 to 1, in the paper.

    Attributes:
        size: (height, width) of a frame in pixels.
        patch: side of a patch in pixels.
        ratio: patches along each side of those that are pooled.
        mean, std: of each channel, from 0 to 1, by which bytes are normalised.
    """

    size: tuple[int, int] = (192, 320)
    patch: int = 16
    ratio: int = 2
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def rows_columns(self) -> tuple[int, int]:
        """Rows and columns of a frame's pooled tokens."""
        sides = [side // self.patch // self.ratio for side in self.size]
        return sides[0], sides[1]

    @property
    def each(self) -> int:
        """The number of tokens of a frame: one, and those of its grid."""
        rows, columns = self.rows_columns
        return 1 + rows * columns

    def check_input(self, path: str, given: Incoming) -> None:
        """Accepts videos of frames of `size`."""
        check_videos(path, given)
        if given.shape[1:3] != self.size:
            raise UserError(
                f"data.transforms gives frames of {given.shape[1]}x{given.shape[2]} pixels, and {path}.size="
                f"{self.size}: set both to the same"
            )

    def grid(self, x: Videos) -> tuple[int, ...]:
        """The number of frames, and that of each one's tokens."""
        return x.shape[1], self.each

    def setup(self) -> None:
        for side, name in zip(self.size, ("down", "across"), strict=True):
            if side % self.patch:
                raise UserError(f"size={self.size} doesn't divide into patches of {self.patch}x{self.patch}")
            self._check(side // self.patch, self.ratio, name, f"size={self.size}, ratio={self.ratio}")
        super().setup()

    def _values(self) -> int:
        return self.patch**2 * CHANNELS

    def _sides(self) -> tuple[int, int]:
        return self.size[0] // self.patch, self.size[1] // self.patch

    def _patches(self, x: Array) -> Float[Array, "b n p"]:
        if x.shape[1:3] != self.size:
            raise UserError(f"frames of {x.shape[1]}x{x.shape[2]} pixels, and size={self.size}: set it to theirs")
        (rows, columns), p = self._sides(), self.patch
        cut = x.reshape(-1, rows, p, columns, p, CHANNELS).transpose(0, 1, 3, 2, 4, 5)  # as bytes: less to move
        return normalised(cut, self.mean, self.std).reshape(len(x), rows * columns, -1)

    def _places(self) -> Float[np.ndarray, "n a"]:
        return on_grid(*self._sides())

    def _groups(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b m r d"]:
        (rows, columns), r = self.rows_columns, self.ratio
        cut = tokens.reshape(-1, rows, r, columns, r, tokens.shape[-1])
        return jnp.swapaxes(cut, 2, 3).reshape(-1, rows * columns, r * r, tokens.shape[-1])
