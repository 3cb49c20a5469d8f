"""Sums, over a split, of what an objective says of each next word."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from mmjax.data.evaluation import evaluation_batches
from mmjax.data.pipeline import Prepared
from mmjax.objectives.contract import Writing, entry
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.runtime import hosts
from mmjax.runtime.mesh import ACTIVATION_RULES, put, replicated

BYTES = "_bytes"  # of a text's entry: how many of its bytes a row's words stand for


class Spelled(NamedTuple):
    """The sums over a split's words."""

    nats: float
    """The losses of all words."""
    words: int
    """Their number."""
    hits: int
    """How many were the likeliest."""
    text_bytes: int | None
    """The bytes that these words stand for; None where the data doesn't tell."""


class SplitWords:
    """Computes those sums in padded batches over the mesh; nothing is augmented. Sums are float64.

    Of several hosts each reads its part, and all get the whole: all must make the same calls.
    """

    def __init__(self, pretrainer: Pretrainer, data: Prepared, mesh: jax.sharding.Mesh, batch_size: int):
        """batch_size: over all hosts; the mesh must divide it."""
        self._pretrainer, self._data, self._mesh, self._batch_size = pretrainer, data, mesh, batch_size
        self._part = hosts.reader(mesh, batch_size)

        def compute(variables: dict[str, Any], batch: Any, objective: str, kept: tuple[str, ...]) -> tuple[Any, Any]:
            with nn.logical_axis_rules(ACTIVATION_RULES):
                errors = pretrainer.apply(variables, batch, objective, method="word_errors")
            return errors, {name: batch[name] for name in kept}

        self._compute = jax.jit(compute, static_argnames=("objective", "kept"), out_shardings=replicated(mesh))

    def __call__(self, variables: dict[str, Any], split: str, objective: str) -> Spelled:
        """The sums of an objective. Bytes are counted of the texts that count.

        Raises:
            UserError: there is no such objective, or it predicts no words; the data lacks what it reads.
            SplitNotFoundError: no source has the split.
        """
        found = self._pretrainer.objectives.get(objective)
        told = f"{found.text}{BYTES}" if isinstance(found, Writing) else ""
        nats, words, hits, size = 0.0, 0, 0, 0
        known = False
        for batch, _ in evaluation_batches(self._data, split, self._batch_size, columns=("id",), host=self._part):
            known = told in batch
            kept = (told,) if known else ()
            errors, entries = jax.device_get(self._compute(variables, put(batch, self._mesh), objective, kept))
            nats += float(np.sum(errors.total, dtype=np.float64))
            words, hits = words + int(errors.count.sum()), hits + int(errors.hits.sum())
            size += int(np.sum(np.where(errors.count > 0, entry(entries, told), 0))) if known else 0
        return Spelled(nats, words, hits, size if known else None)
