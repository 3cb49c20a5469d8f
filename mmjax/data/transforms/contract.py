"""The contract of transforms."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from mmjax.data.bad_example import BadExample as BadExample  # what a transform raises: found here by those who use them

Rng = np.random.Generator | None


class Spec(NamedTuple):
    """One example's array of a modality: `shape`, `dtype`, and whether a bool mask over its first axis goes with it.

    labels: what else the chain tells of the example, (name, shape, dtype) each; in a batch it is `<modality>_<name>`.
    """

    shape: tuple[int, ...]
    dtype: str
    masked: bool = False
    labels: tuple[tuple[str, tuple[int, ...], str], ...] = ()


class Masked(NamedTuple):
    """An array and the mask over its first axis: True where it holds something, False where it is padding."""

    values: Shaped[np.ndarray, "length *rest"]
    mask: Bool[np.ndarray, " length"]


class Labelled(NamedTuple):
    """An array, with its mask or not, and by name the labels that the `Spec` announces."""

    value: np.ndarray | Masked
    labels: Mapping[str, Any]


class Transform:
    """A step of a modality's chain. `random` says whether it draws from `rng`."""

    random: ClassVar[bool] = False

    def __call__(self, value: Any, rng: Rng) -> Any:
        """Gives the transformed value. Raises `BadExample` where the value can't be used."""
        raise NotImplementedError

    def spec(self, before: Spec | None) -> Spec | None:
        """The result's shape and dtype given the input's; None where it varies. Here: what came in."""
        return before


class RecordTransform:
    """A step on the whole record of an example, before the chains read their inputs in it. `random` says whether it
    draws from `rng`, which no chain draws from."""

    random: ClassVar[bool] = False

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        """Gives the record that the chains read: a chain `caption_2` reads the entry `caption_2`.

        `record` is a copy of what the source has, by column: `id`, captions, and pictures and sounds as they are stored
        (bytes, or a `File` to be read). An entry may be None. In evaluation `rng` is None. Raises `BadExample` where
        the example can't be used: all its inputs are then bad.
        """
        raise NotImplementedError

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        """The columns of a source's records afterwards, those that it adds among them. Here: as before."""
        return before


def prefix_mask(length: int, real: int) -> Bool[np.ndarray, " length"]:
    """True for the first `real` places, False for the padding behind them."""
    mask = np.zeros(length, bool)
    mask[:real] = True
    return mask
