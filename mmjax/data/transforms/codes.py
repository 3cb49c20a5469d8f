"""Discrete codes of a picture's patches, as an entry of a batch: given by a tokenizer, or made of mean colours."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.errors import UserError


@dataclass(frozen=True)
class Codes(Transform):
    """Takes the codes that a frozen tokenizer of pictures gave for an example, as int32 `[length]`.

    They are a column of lists of whole numbers (Parquet, TFDS), flat or rows of a grid, row by row. They hold for the
    picture as it was tokenized: its chain is to give the same crop, so nothing of it may be random (DALL-E's codes of
    112 x 112 pixels go with `Resize(224)`, patches of 16).

    Attributes:
        length: number of codes of an example, one for each patch.
        count: number of different codes, the tokenizer's; each is in [0, count).

    Raises UserError where an example has another number of codes, or one that isn't among them: it is another
    tokenizer's.
    """

    length: int
    count: int

    def __post_init__(self) -> None:
        if self.length < 1 or self.count < 1:
            raise UserError(f"Codes(length={self.length}, count={self.count}): both must be at least 1")

    def __call__(self, value: Any, rng: Rng) -> Int32[np.ndarray, " {self.length}"]:
        del rng
        codes = np.asarray(value).reshape(-1)
        if codes.shape != (self.length,) or not np.issubdtype(codes.dtype, np.integer):
            raise UserError(
                f"Codes(length={self.length}) was given {codes.dtype}{list(codes.shape)}: the column holds lists of so "
                "many whole numbers"
            )
        if codes.min() < 0 or codes.max() >= self.count:
            found = int(codes.min()) if codes.min() < 0 else int(codes.max())
            raise UserError(
                f"Codes(count={self.count}) was given the code {found}: codes are 0 to {self.count - 1}; set count to "
                "the tokenizer's number"
            )
        return codes.astype(np.int32)

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self.length,), "int32", pieces=self.count)


@dataclass(frozen=True)
class ColourCodes(Transform):
    """Turns a picture uint8 `[H, W, 3]` into a code for each patch, int32 `[N]`, row by row: its mean colour, of which
    each channel is rounded down to one of `levels` equal steps.

    A stand-in for a tokenizer of pictures where none is at hand: the code is `(r * levels + g) * levels + b`, and there
    are levels³. It knows no shape, so it asks less than learned codes do. What comes before it is the picture's own
    chain, without anything random.

    Attributes:
        patch: side of a patch in pixels; as the tower's.
        levels: number of steps of a channel.

    Raises UserError for a number out of its range, and for pictures that don't divide into patches.
    """

    patch: int
    levels: int = 4

    def __post_init__(self) -> None:
        if self.patch < 1 or not 2 <= self.levels <= 256:
            raise UserError(
                f"ColourCodes(patch={self.patch}, levels={self.levels}): patch must be at least 1, levels 2 to 256"
            )

    def __call__(self, value: UInt8[np.ndarray, "h w 3"], rng: Rng) -> Int32[np.ndarray, " n"]:
        del rng
        rows, columns = self._grid(value.shape)
        cut = value.reshape(rows, self.patch, columns, self.patch, 3)
        totals = cut.sum(axis=(1, 3), dtype=np.int64)  # whole numbers: the same on every machine
        steps = totals * self.levels // (256 * self.patch**2)
        red, green, blue = np.moveaxis(steps, -1, 0)
        return ((red * self.levels + green) * self.levels + blue).reshape(-1).astype(np.int32)

    def spec(self, before: Spec | None) -> Spec | None:
        if before is None:
            return None
        rows, columns = self._grid(before.shape)
        return Spec((rows * columns,), "int32", pieces=self.levels**3)

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if len(shape) != 3 or shape[2] != 3 or shape[0] % self.patch or shape[1] % self.patch:
            raise UserError(
                f"ColourCodes(patch={self.patch}) was given {list(shape)}: it reads pictures [H, W, 3] whose sides are "
                "multiples of patch; put Resize(size) before it"
            )
        return shape[0] // self.patch, shape[1] // self.patch
