"""Values that steps of a chain return besides plain arrays: an array with its mask, a part of one, one with labels."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Shaped


class Masked(NamedTuple):
    """An array and the mask over its first axis: True where it holds something, False where it is padding."""

    values: Shaped[np.ndarray, "length *rest"]
    mask: Bool[np.ndarray, " length"]


class Cut(Masked):
    """A `Masked` that holds only a part of its example, which was too long: `whole` is the length of all of it."""

    whole: int

    def __new__(cls, values: np.ndarray, mask: np.ndarray, whole: int = 0) -> Self:
        self = super().__new__(cls, values, mask)
        self.whole = whole
        return self


class Labelled(NamedTuple):
    """An array, with its mask or without, and its labels by the names that the `Spec` has."""

    value: np.ndarray | Masked
    labels: Mapping[str, Any]


def real_ids(row: Labelled) -> list[int]:
    """The values of a masked row that aren't padding."""
    assert isinstance(row.value, Masked)
    return row.value.values[row.value.mask].tolist()


def prefix_mask(length: int, real: int) -> Bool[np.ndarray, " length"]:
    """A mask that is True for the first `real` places, False for the padding behind them."""
    mask = np.zeros(length, bool)
    mask[:real] = True
    return mask
