"""The objectives on a split that doesn't train: the validation loss."""

import itertools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax import hosts
from mmjax.data.pipeline import Prepared, batches, evaluation_count
from mmjax.mesh import ACTIVATION_RULES, device_prefetch, replicated
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.step import step_key


class HeldOut:
    """Losses and metrics of all objectives on whole batches of a split, made as training makes its own: augmented,
    shuffled, masked and paired at random, all by a seed. Nothing is dropped out, nothing is learnt.

    So its numbers are of the kind that training logs, and the distance between both is what was learnt by heart. Of
    several hosts each reads its part of every batch, and all get the numbers: all must ask for the same.
    """

    def __init__(self, pretrainer: Pretrainer, data: Prepared, mesh: jax.sharding.Mesh, batch_size: int):
        """batch_size: over all hosts; the mesh must divide it. A contrastive loss depends on it."""
        self._data, self._mesh, self._batch_size = data, mesh, batch_size
        self._part = hosts.reader(mesh, batch_size)
        whole = pretrainer.clone(microbatches=1)  # without gradients there is no memory to save

        def losses(variables: Any, batch: Any, step: Any, seed: Any, number: Any) -> dict[str, jax.Array]:
            rngs = {"mask": step_key(seed, number, "mask")}
            with nn.logical_axis_rules(ACTIVATION_RULES):
                loss, metrics = whole.apply(variables, batch, step, train=False, rngs=rngs)
            return {"loss": loss, **metrics}

        self._losses = jax.jit(losses, out_shardings=replicated(mesh))

    def __call__(
        self, variables: Any, split: str, *, step: int, count: int | None = None, seed: int = 0
    ) -> dict[str, float]:
        """Means over `count` batches; None: as many as hold every example of the split about once.

        The first batch, its masks too, is the one that a run of that seed would begin with. step: of the run, for
        weights that change.

        Raises:
            SplitNotFoundError: a source of the mixture lacks the split.
        """
        if count is None:
            count = max(1, -(-evaluation_count(self._data, split) // self._batch_size))
        stream = batches(self._data, batch_size=self._batch_size, seed=seed, host=self._part, split=split)
        with device_prefetch(_first(stream, count), self._mesh) as ready:
            found = [
                self._losses(variables, batch, np.int32(step), np.uint32(seed), np.int32(number))
                for number, batch in enumerate(ready)
            ]
        values = jax.device_get(found)
        return {name: float(np.mean([one[name] for one in values])) for name in values[0]}


def _first(stream: Any, count: int) -> Iterator[dict[str, np.ndarray]]:
    """So many batches, after which the stream's threads or processes end."""
    try:
        yield from itertools.islice(stream, count)
    finally:
        stream.close()
