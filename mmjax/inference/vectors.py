"""Vectors that `embed` gave and a user gives back, and their cosines."""

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
