"""The video tower: a vision transformer over tubelets, patches of several frames (ViViT: Arnab et al. 2021,
arXiv:2103.15691; VideoMAE: Tong et al. 2022, arXiv:2203.12602), and the base of those that keep space and time apart.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, UInt8

from mmjax.errors import UserError
from mmjax.models.layers import rotary
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.parameters import Initializer, check_heads, parameter
from mmjax.models.layers.positions import sincos
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.contract import PatchTower
from mmjax.models.towers.vit import normalised

Videos = UInt8[Array, "b f h w 3"] | Float[Array, "b f h w 3"]


def check_videos(path: str, given: Incoming) -> None:
    """Raises UserError where a tower of videos is given something else."""
    if len(given.shape) != 4 or given.shape[3] != 3:
        raise UserError(
            f"{path} reads videos [F, H, W, 3], and data.transforms gives {given}: take a chain that gives videos, or "
            "another tower (a ViT for pictures)"
        )


def with_real_frames(x: Videos, mask: Bool[Array, "b f"]) -> Videos:
    """The videos with each frame that isn't real replaced by the real one before it, or else by the first real one, so
    that its own values are read nowhere. Of a video without a real frame it is the first.
    """
    before = jax.lax.cummax(jnp.where(mask, jnp.arange(mask.shape[1]), -1), axis=1)
    rows = jnp.where(before < 0, jnp.argmax(mask, axis=1)[:, None], before)
    return jax.vmap(lambda video, row: video[row])(x, rows)


class TubeletViT(PatchTower, kw_only=True):
    """Videos uint8 `[B, F, H, W, 3]` -> tubelets -> transformer, in which all of them attend to each other (VideoMAE;
    ViViT's model 1). Float videos are taken as normalised already.

    A mask bool `[B, F]` says which frames are real. A tubelet is if one of its frames is; others in it are filled with
    the real one before. The tokens come step by step of `patch[0]` frames, each step's row by row. Rotary positions
    turn as many channels of a head as divide into pairs for each of three axes (60 of 64).

    Attributes:
        patch: (frames, height, width) of a tubelet.
        frames: the longest video, in frames; learned positions hold for it, and shorter ones use the first of them.
        size: (height, width) of the frames in pixels, or one number for both; learned positions hold for it alone,
            rotary ones of another grid are stretched to it.
        central_frame: whether the stem starts as one of pictures, that reads the frame `patch[0] // 2` of a tubelet
            alone (ViViT); else all of its frames alike.
        mean, std: of the channels, for values in [0, 1]; the defaults bring pixels to [-1, 1].
    """

    patch: tuple[int, int, int] = (2, 16, 16)
    frames: int
    size: int | tuple[int, int]
    central_frame: bool = False
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def check_input(self, path: str, given: Incoming) -> None:
        check_videos(path, given)
        frames, *size = given.shape[:3]
        mine = f"{path} has patch={self.patch}, frames={self.frames} and size={self.size}"
        try:
            self._steps_and_grid(given.shape)
        except ValueError as error:
            raise UserError(
                f"data.transforms gives videos of {frames} frames of {size[0]}x{size[1]}, {mine}: {error}"
            ) from error
        if self.positions == "learned" and frames != self.frames:
            raise UserError(
                f"data.transforms gives videos of {frames} frames, {mine}: learned positions of later frames would "
                f"never be learned: set {path}.frames={frames}, or the chain's frames to {self.frames}"
            )

    def _whole(self) -> tuple[int, int, int]:
        """The grid of a video of `frames` and `size`."""
        return self._cut((self.frames, *((self.size, self.size) if isinstance(self.size, int) else self.size)))

    def _cut(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Steps, rows and columns of tubelets of `[F, H, W]`."""
        if len(self.patch) != 3 or min(self.patch) < 1:
            raise UserError(f"patch={self.patch} must be (frames, height, width) of a tubelet, each at least 1")
        if any(whole % part for whole, part in zip(shape, self.patch, strict=True)):
            (f, h, w), (t, p, q) = shape, self.patch
            raise UserError(f"videos of {f} frames of {h}x{w} pixels don't divide into tubelets of {t}x{p}x{q}")
        return cast(Any, tuple(whole // part for whole, part in zip(shape, self.patch, strict=True)))

    def _steps_and_grid(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Steps, rows and columns of videos `[F, H, W, 3]`; raises UserError where positions don't hold for them."""
        grid, whole = self._cut(shape[:3]), self._whole()
        if self.positions == "learned" and (grid[0] > whole[0] or grid[1:] != whole[1:]):
            raise UserError(
                f"videos of {shape[0]} frames of {shape[1]}x{shape[2]} pixels have {grid} tubelets, but learned "
                f"positions are for {whole}: set frames and size to the videos'"
            )
        return grid

    def capacity(self) -> tuple[int, ...]:
        return self._whole()

    def grid(self, x: Videos) -> tuple[int, ...]:
        """Steps, rows and columns of tubelets.

        Raises:
            UserError: the videos don't divide into them, or learned positions are of another size.
        """
        return self._steps_and_grid(x.shape[1:])

    def stem_init(self) -> Initializer:
        usual, frames = super().stem_init(), self.patch[0]
        if not self.central_frame:
            return usual

        def init(key: Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
            one = usual(key, (shape[0] // frames, shape[1]), dtype)
            return jnp.zeros((frames, *one.shape), dtype).at[frames // 2].set(one).reshape(shape)

        return init

    def turned(self, size: int, axes: int) -> int:
        return size - size % (2 * axes) or size

    def coordinates(self, grid: tuple[int, ...]) -> Float[np.ndarray, "n a"]:
        """Steps, rows and columns; the last two, of frames of another size, in patches of the grid of `size`."""
        stretch = np.ones(len(grid), np.float32)
        stretch[-2:] = np.array(self._whole()[1:], np.float32) / np.array(grid[-2:], np.float32)
        return super().coordinates(grid) * stretch

    def patches(
        self, x: Videos, mask: Bool[Array, "b f"] | None = None
    ) -> tuple[Float[Array, "b n p"], Bool[Array, "b n"]]:
        """The normalised pixels of each tubelet, float32 `[B, N, frames * height * width * 3]`, frame by frame, each
        row by row; and which tubelets are real.
        """
        batch, (steps, rows, columns), (t, p, q) = len(x), self._steps_and_grid(x.shape[1:]), self.patch
        real = jnp.ones((batch, steps), bool)
        if mask is not None:
            x, real = with_real_frames(x, mask), mask.reshape(batch, steps, t).any(axis=2)
        # Cut up as bytes: a quarter of the memory to move.
        cut = x.reshape(batch, steps, t, rows, p, columns, q, 3).transpose(0, 1, 3, 5, 2, 4, 6, 7)
        pixels = normalised(cut, self.mean, self.std)
        cells = rows * columns
        return pixels.reshape(batch, steps * cells, -1), jnp.repeat(real, cells, axis=1)


class SpaceAndTime(TubeletViT, kw_only=True):
    """The base of towers over tubelets whose positions in space and in time are apart: `position` is a picture's, as a
    `ViT` has it, and `temporal_position` that of a step.
    """

    def capacity(self) -> tuple[int, ...]:
        """The rows and columns for which learned positions are kept."""
        return self._whole()[1:]

    def setup(self) -> None:
        if self.trunk is not None:
            raise UserError(f"a {type(self).__name__} has blocks of its own: leave trunk out, or take a TubeletViT")
        super().setup()

    def _check_keep(self, keep: Array | None) -> None:
        if keep is not None:
            raise UserError(
                f"a {type(self).__name__} attends along whole steps and whole frames, so no patch can be left out: "
                "leave masking out, or take a TubeletViT"
            )

    def _temporal_table(self, init: Initializer, before: int = 0) -> None:
        """Makes the learned positions of steps, for `setup`, after `before` of tokens that stand in front."""
        if self.positions == "learned":
            shape = (before + self._whole()[0], self.sizes.width)
            self.temporal_position = parameter(self, "temporal_position", init, ("position", "embed"), shape)

    def _temporal(self, steps: int, before: int = 0) -> Float[Array, "t d"] | None:
        """The positions of the steps."""
        if self.positions in ("rotary", "none"):
            return None
        if self.positions == "sincos":
            return jnp.asarray(sincos((steps,), self.sizes.width))
        return self.temporal_position[before : before + steps]

    def _temporal_angles(self, steps: int, blocks: Blocks, before: int = 0) -> Float[Array, "t p"] | None:
        """The rotary angles of the steps, for heads of these blocks, after `before` tokens that aren't turned; None
        where positions aren't rotary.
        """
        if self.positions != "rotary":
            return None
        size = self.turned(check_heads(blocks.width, blocks.heads), 1)
        found = rotary.angles(np.arange(steps, dtype=np.float32)[:, None], size)
        return jnp.pad(found, [(before, 0), (0, 0)])
