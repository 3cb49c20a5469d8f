"""Embeds rows as unit vectors: in batches of a few sizes, each compiled once, over the devices of this machine."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError
from mmjax.inference.inputs import Row
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.runtime.mesh import Mesh, put, replicated

T = TypeVar("T")
Compute = Callable[[dict[str, Any], dict[str, jax.Array]], jax.Array]

MANY = 4  # chunks


class RowEmbedder:
    """Embeds rows of one modality at a time, with the given variables, or computes something else of rows.

    Batches are padded to powers of two (times the number of devices, where there are several), so that few shapes
    compile: each once for every dtype that an input comes in (pixels, and preprocessed floats). The ambient mesh stays
    as it is.
    """

    def __init__(self, pretrainer: Pretrainer, variables: dict[str, Any], compute: Compute | None = None):
        """compute: `compute(variables, batch)` gives an array `[B, ...]` in the place of the embeddings."""
        self._pretrainer, self._host_variables = pretrainer, variables

        def embed(variables: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
            return next(iter(pretrainer.apply(variables, batch, method="embed").values()))  # pyright: ignore

        self._embed = jax.jit(compute or embed, out_shardings=replicated(self._mesh))

    @cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        return Mesh().build(jax.local_devices())

    @cached_property
    def _variables(self) -> dict[str, Any]:
        """The variables on every device, from the first use on."""
        return jax.device_put(self._host_variables, replicated(self._mesh))

    def bucket(self, rows: int) -> int:
        """The padded batch size for so many rows."""
        devices = self._mesh.size
        return devices * (1 << max(0, -(-rows // devices) - 1).bit_length())

    def size(self, row: Row) -> int:
        """The number of dimensions E of such a row's embedding; nothing is computed."""
        batch = {name: np.broadcast_to(array, (1, *array.shape)) for name, array in row.items()}
        return jax.eval_shape(self._embed, self._host_variables, batch).shape[-1]

    def __call__(self, rows: Iterable[list[Row]]) -> Float[np.ndarray, "n e"]:
        """Unit vectors, float32, of chunks of rows, in their order; at least one row.

        The rows of the next chunk are made while the devices are busy with the last one.
        """
        found: list[np.ndarray] = []
        before: list[tuple[list[int], jax.Array]] = []
        largest = 0
        for number, chunk in enumerate(rows):
            groups = _alike(chunk)
            # The rest at the end of many chunks is padded to their size: to compile another size takes longer.
            least = self.bucket(largest) if number >= MANY and len(groups) == 1 else 1
            largest = max(largest, len(chunk))
            now = [(places, self._dispatch([chunk[i] for i in places], least)) for places in groups]
            found += _in_order(before)
            before = now
        return np.concatenate(found + _in_order(before))

    def _dispatch(self, rows: list[Row], least: int = 1) -> jax.Array:
        size = max(self.bucket(len(rows)), least)
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        if size > len(rows):
            # Padded with the first row, not with zeros, which could make numbers that aren't finite.
            batch = {name: np.concatenate([a, np.repeat(a[:1], size - len(a), axis=0)]) for name, a in batch.items()}
        return self._embed(self._variables, put(batch, self._mesh))


def _alike(rows: list[Row]) -> list[list[int]]:
    """The places of rows that can be in one batch: pixels and floats can't."""
    groups: dict[Any, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(tuple((name, array.dtype) for name, array in row.items()), []).append(place)
    return list(groups.values())


def _in_order(groups: list[tuple[list[int], jax.Array]]) -> list[np.ndarray]:
    if not groups:
        return []
    places = [place for group, _ in groups for place in group]
    vectors = np.concatenate([np.asarray(vectors)[: len(group)] for group, vectors in groups])
    return [vectors[np.argsort(places)]]


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one perhaps shorter."""
    if size < 1:
        raise UserError(f"batch_size={size} must be at least 1")
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
