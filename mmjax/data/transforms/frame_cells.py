"""Cuts the frames of a video into the cells of a grid, each a small video of its own."""

from dataclasses import dataclass

from mmjax.data.transforms.contract import VARIES, Rng, Spec, Transform
from mmjax.data.transforms.values import Masked
from mmjax.errors import UserError


@dataclass(frozen=True)
class CutCells(Transform):
    """Cuts frames uint8 `[F, H, W, 3]` with their mask into cells, `[F * rows * columns, H / rows, W / columns, 3]`: of
    each clip of `frames` frames the cells row by row, and of each cell its frames in their order. So what makes one
    feature of `frames` frames (`PooledPixels`) makes one of each cell of each clip, and visual words tell what is where
    though they are few: a word for a whole clip would need one for each arrangement.

    VideoBERT has one word a clip; a network's features of whole clips tell more than colours do.

    Raises UserError for numbers below 1, for frames of unknown size, and where clips or cells don't divide them.
    """

    rows: int
    columns: int
    frames: int = 1

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.frames) < 1:
            raise UserError(f"{self}: all must be at least 1")

    def __call__(self, value: Masked, rng: Rng) -> Masked:
        del rng
        frames, mask = value
        shape = self._shape(frames.shape)
        clips, high, wide = len(frames) // self.frames, *shape[1:3]
        parts = frames.reshape(clips, self.frames, self.rows, high, self.columns, wide, -1)
        real = mask.reshape(clips, 1, self.frames).repeat(self.rows * self.columns, axis=1)
        return Masked(parts.transpose(0, 2, 4, 1, 3, 5, 6).reshape(shape), real.reshape(-1))

    def spec(self, before: Spec | None) -> Spec:
        if before is None:
            raise UserError("CutCells(...) follows frames: DecodeVideo(frames) comes before it")
        return before._replace(shape=self._shape(before.shape))

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 4 or VARIES in shape:
            raise UserError(f"{self} was given {list(shape)}, and reads frames [F, H, W, 3] of one size: Resize them")
        if shape[0] % self.frames or shape[1] % self.rows or shape[2] % self.columns:
            raise UserError(f"{self} was given frames {list(shape)}, which it doesn't divide")
        return shape[0] * self.rows * self.columns, shape[1] // self.rows, shape[2] // self.columns, *shape[3:]
