"""Vectors that `embed` gave and a user gives back, and their cosines."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError

Vectors = Float[np.ndarray, "*n e"]
Scores = Float[np.ndarray, "..."]  # [N, M], without the axis of a side that is a single input


def checked_vectors(vectors: Any, who: str) -> Vectors:
    """Given vectors, checked and as unit vectors."""
    array = np.asarray(vectors) if not isinstance(vectors, str | bytes) else np.empty(0, "U1")
    if array.dtype.kind != "f" or array.ndim not in (1, 2):
        raise UserError(
            f"{who}() takes vectors [E] or [N, E] from embed(); inputs are given by name, {who}(image=..., text=...)"
        )
    array = array.astype(np.float32)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), np.float32(1e-12))


def cosines(a: Vectors, b: Vectors) -> Scores:
    """The cosines `[N, M]` of unit vectors."""
    return np.asarray(a @ b.T, np.float32)


def two_sides(
    vectors: tuple[Any, ...], inputs: Mapping[str, Any], embed: Callable[[str, Any], Vectors], who: str
) -> list[tuple[Vectors, str | None]]:
    """The vectors of both sides of a comparison, with the modality of a side that is inputs.

    Raises UserError where there are fewer or more than two, or their vectors have two sizes.
    """
    if len(vectors) + len(inputs) != 2:
        raise UserError(
            f"{who}() compares two sides, not {len(vectors) + len(inputs)}: {who}(image=[...], text=[...]), or "
            "vectors from embed() in place of either"
        )
    sides: list[tuple[Vectors, str | None]] = [(checked_vectors(v, who), None) for v in vectors]
    sides += [(embed(modality, value), modality) for modality, value in inputs.items()]
    if len({side.shape[-1] for side, _ in sides}) > 1:
        sizes = " and ".join(f"{m or 'vectors'} of {v.shape[-1]}" for v, m in sides)
        raise UserError(f"{who}() compares vectors of one size, not {sizes} dimensions")
    return sides
