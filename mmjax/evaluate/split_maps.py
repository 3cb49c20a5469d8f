"""Maps of what words look at in a few examples of a split, for a page."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from mmjax.data.evaluation import evaluation_batches, evaluation_count
from mmjax.data.pipeline import Prepared
from mmjax.evaluate.attention_maps import AttentionMaps, WordMaps
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.runtime import hosts
from mmjax.runtime.mesh import put, replicated

RULE = "relevance"


class Looked(NamedTuple):
    """The maps of one example."""

    row: int
    objective: str
    maps: WordMaps
    pictures: dict[str, UInt8[np.ndarray, "h w 3"]]
    """By input, what the model sees."""


class SplitMaps:
    """Follows the attention of a model's fusion on examples of a split, over the mesh.

    Of several hosts each reads its part, and all get the whole: all must make the same calls.
    """

    def __init__(self, pretrainer: Pretrainer, data: Prepared, mesh: jax.sharding.Mesh, batch_size: int):
        """batch_size: over all hosts; the mesh must divide it."""
        self._data, self._mesh, self._batch_size = data, mesh, batch_size
        self._part = hosts.reader(mesh, batch_size)
        self._maps = maps = AttentionMaps(pretrainer, data.chains)

        def compute(variables: dict[str, Any], batch: Any, objective: str, kept: tuple[str, ...]) -> tuple[Any, Any]:
            return maps.matrix(variables, batch, objective, RULE), {name: batch[name] for name in kept}

        self._compute = jax.jit(compute, static_argnames=("objective", "kept"), out_shardings=replicated(mesh))

    def __call__(self, variables: dict[str, Any], split: str, count: int) -> list[Looked]:
        """The maps of `count` examples at most, evenly spaced over the split, of the first objective whose fusion can
        be followed; an example that lacks an input is left out, and all are where there is no such objective."""
        able, total = self._maps.able(), evaluation_count(self._data, split)
        if not able or not total:
            return []
        objective, count = able[0], min(count, self._batch_size)
        rows = range(0, total, max(1, total // count))[:count]
        stream = evaluation_batches(self._data, split, self._batch_size, columns=("id",), host=self._part, rows=rows)
        batch, _ = next(iter(stream))
        read = self._maps.inputs(objective)
        names = (f"{name}{end}" for name in read for end in ("", "_mask", "_valid"))
        kept = ("index", *(name for name in names if name in batch))
        matrix, told = jax.device_get(self._compute(variables, put(batch, self._mesh), objective, kept))
        order = np.argsort(told["index"])[: len(rows)]  # a mesh may have the hosts' rows in another order
        there = np.all([told[f"{name}_valid"][order] for name in read], axis=0)
        order, places = order[there], np.asarray(rows)[there]
        told = {name: array[order] for name, array in told.items()}
        specs = self._data.chains.specs
        drawn = [name for name in read if specs[name].kind.draws and told[name].dtype == np.uint8]
        each = self._maps.of_words(matrix[order], told, objective)
        return [
            Looked(int(place), objective, maps, {name: told[name][at] for name in drawn if told[name][at].ndim == 3})
            for at, (place, maps) in enumerate(zip(places, each, strict=True))
        ]
