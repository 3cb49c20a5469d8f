"""Features of a video's clips from the mean colours of its frames: small stand-ins for a network's features."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import VARIES, Rng, Spec, Transform
from mmjax.data.transforms.values import Masked
from mmjax.data.transforms.video_input import VideoInput
from mmjax.errors import UserError

_WHITE = 255
_CHANNELS = 3


class FilmedFeatures(VideoInput):
    """Reads videos, of which a batch holds features or words: those can be neither drawn nor disturbed."""

    draws, moves, amount = False, False, ""


@dataclass(frozen=True)
class PooledPixels(Transform):
    """Turns frames uint8 `[F, H, W, 3]` with their mask into features of clips, float32 `[F / frames, D]` with a mask:
    the mean red, green and blue, in [0, 1], of each cell of a grid over the frames.

    A stand-in for a network's features (VideoBERT's are S3D's) where there is none: they tell colours, their places and
    how these change, and no object. Of a clip of several frames they are the mean over the frames, and behind it the
    mean over its second half less that over its first, which tells which way things move: frames in the reverse order
    give the opposite numbers. (The frames one after the other would tell that too, but what stands still would count
    once for each frame in a distance, and outweigh what moves.) Of an odd number of frames the middle one is in the
    mean alone. `D = grid * grid * 3`, twice that for clips of two frames or more.

    A clip is real where all its frames are; the frames of a last one that a video doesn't fill are left out.

    Attributes:
        grid: cells of a frame's height, and of its width.
        frames: of a clip.

    Raises UserError for numbers below 1, for what are no frames, and where clips don't divide them. A video that is
    shorter than a clip, or has fewer pixels than cells, is a bad example.
    """

    grid: int = 4
    frames: int = 1

    def __post_init__(self) -> None:
        if self.grid < 1 or self.frames < 1:
            raise UserError(f"PooledPixels(grid={self.grid}, frames={self.frames}): both must be at least 1")

    def __call__(self, value: Masked, rng: Rng) -> Masked:
        del rng
        frames, mask = value
        clips = self._clips(frames.shape)
        if frames.dtype != np.uint8:
            raise UserError(f"PooledPixels was given frames of {frames.dtype}: put DecodeVideo(frames) before it")
        if min(frames.shape[1:3]) < self.grid:
            raise BadExample(f"frames of {frames.shape[1:3]} pixels have no {self.grid}x{self.grid} cells", "unfit")
        real = np.asarray(mask.reshape(clips, self.frames).all(axis=1))
        if not real.any():
            raise BadExample(f"of {int(mask.sum())} frames there is no clip of {self.frames}", "unfit")
        cells = self._cells(frames).reshape(clips, self.frames, -1)
        features = cells.mean(axis=1)
        if half := self.frames // 2:
            change = cells[:, -half:].mean(axis=1) - cells[:, :half].mean(axis=1)
            features = np.concatenate([features, change], axis=1)
        return Masked(np.where(real[:, None], features, 0).astype(np.float32), real)

    def _cells(self, frames: UInt8[np.ndarray, "f h w 3"]) -> Float32[np.ndarray, "f d"]:
        """The mean colours of each frame's cells, row by row."""
        edges = [np.arange(self.grid) * side // self.grid for side in frames.shape[1:3]]
        # Sums of whole numbers: the same on every machine.
        sums = np.add.reduceat(np.add.reduceat(frames, edges[0], axis=1, dtype=np.int64), edges[1], axis=2)
        high, wide = (np.diff([*starts, side]) for starts, side in zip(edges, frames.shape[1:3], strict=True))
        means = sums / (high[:, None] * wide)[..., None] / _WHITE
        return means.reshape(len(frames), -1).astype(np.float32)

    def spec(self, before: Spec | None) -> Spec:
        if before is None:
            raise UserError("PooledPixels(...) follows frames: DecodeVideo(frames) comes before it")
        width = self.grid**2 * _CHANNELS * (2 if self.frames > 1 else 1)
        return Spec((self._clips(before.shape), width), "float32", masked=True, kind=FilmedFeatures)

    def _clips(self, shape: tuple[int, ...]) -> int:
        if len(shape) != 4 or shape[3] != _CHANNELS:
            raise UserError(f"PooledPixels was given {list(shape)}, and reads frames [F, H, W, 3] as DecodeVideo gives")
        if shape[0] == VARIES or shape[0] % self.frames:
            raise UserError(
                f"PooledPixels(frames={self.frames}) was given {shape[0]} frames, which aren't whole clips: let "
                f"DecodeVideo give a multiple of {self.frames}"
            )
        return shape[0] // self.frames
