"""Computes the objectives on a split that isn't trained on: the validation loss."""

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from mmjax.data.pipeline import Prepared, batches
from mmjax.errors import UserError, unknown
from mmjax.objectives.contract import VALID, usable
from mmjax.objectives.encoding import EMA
from mmjax.objectives.keys import step_key
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.objectives.readings import teaches
from mmjax.runtime import hosts
from mmjax.runtime.counts import EXAMPLES
from mmjax.runtime.mesh import ACTIVATION_RULES, BATCH_AXES, replicated
from mmjax.runtime.prefetch import device_prefetch

Numbers = dict[str, jax.Array]


class HeldOut:
    """Losses and metrics of all objectives on whole batches of a split, made as training makes its own: augmented,
    shuffled, masked and paired at random, all by a seed, without dropout and without an update.

    Its numbers are comparable with the training log; the difference is the generalisation gap (dropout aside). Of
    several hosts each reads its part of every batch, and all get the numbers: all must make the same calls.
    """

    def __init__(self, pretrainer: Pretrainer, data: Prepared, mesh: jax.sharding.Mesh, batch_size: int):
        """batch_size: over all hosts; the mesh must divide it. A contrastive loss depends on it."""
        self._data, self._mesh, self._batch_size = data, mesh, batch_size
        self._part = hosts.reader(mesh, batch_size)
        # Microbatches as in training, for memory; on another machine they may not divide the batch.
        rows = batch_size // math.prod(mesh.shape[axis] for axis in BATCH_AXES)
        pretrainer = pretrainer.clone(microbatches=math.gcd(rows, pretrainer.microbatches))

        def losses(variables: Any, batch: Any, step: Any, seed: Any, number: Any) -> tuple[Numbers, Numbers]:
            rngs = {"mask": step_key(seed, number, "mask")}
            if teaches(pretrainer.objectives):  # the moving average is judged, where there is one
                variables = {EMA: variables["params"], **variables}
            with nn.logical_axis_rules(ACTIVATION_RULES):
                loss, metrics = pretrainer.apply(variables, batch, step, train=False, rngs=rngs)
            counts = {name: usable(part, batch).sum() for name, part in pretrainer.objectives.items()}
            return {"loss": loss, **metrics}, counts

        self._losses = jax.jit(losses, out_shardings=replicated(mesh))

    def __call__(
        self,
        variables: Any,
        split: str,
        *,
        step: int,
        count: int | None = None,
        seed: int = 0,
        without: Collection[str] = (),
    ) -> dict[str, float]:
        """Means over `count` batches; None: as many as hold every example of the split about once. Also has `examples`,
        the number of examples in the batches.

        An objective's numbers are means over the batches that have an example for it; where none has, they are left
        out. The first batch, its masks too, is the first batch of a run of that seed. A source that lacks the split is
        left out. step: of the run, for weights that change. without: inputs that are taken for missing in every
        example; nothing else of the batches changes, so the same words are hidden as with them.

        Raises:
            SplitNotFoundError: all sources lack the split.
            UserError: no example of these batches can be used by any objective; there is no such input.
        """
        for name in without:
            if name not in (there := self._data.mixture.transforms):
                raise UserError(unknown("losses are asked without", name, there, "inputs"))
        data = _only(self._data, split)
        if count is None:
            count = max(1, -(-sum(map(len, data.open(split).values())) // self._batch_size))
        stream = batches(data, batch_size=self._batch_size, seed=seed, host=self._part, split=split)
        with device_prefetch(_first(stream, count, without), self._mesh) as ready:
            found = [
                self._losses(variables, batch, np.int32(step), np.uint32(seed), np.int32(number))
                for number, batch in enumerate(ready)
            ]
        numbers, counts = (
            {name: np.array([one[name] for one in each], np.float64) for name in each[0]}
            for each in zip(*jax.device_get(found), strict=True)
        )
        used = {name: rows > 0 for name, rows in counts.items()}
        used["loss"] = np.any(list(used.values()), axis=0)
        if not used["loss"].any():
            raise UserError(
                f"the loss on the {split} split would be over nothing: of {count * self._batch_size:,} examples none "
                f"has what an objective reads ({', '.join(counts)}); they are bad, or lack a modality"
            )
        means = {}
        for name, each in numbers.items():
            where = used[next((part for part in counts if name.startswith(f"{part}/")), "loss")]
            if where.any():
                means[name] = float(np.mean(each[where]))
        return means | {EXAMPLES: float(len(found) * self._batch_size)}


def _only(data: Prepared, split: str) -> Prepared:
    """The data without the sources that lack the split."""
    there, mixture = data.open(split), data.mixture
    weights, sources = ({n: x for n, x in by.items() if n in there} for by in (mixture.weights, mixture.sources))
    return Prepared(replace(mixture, weights=weights, sources=sources), data.chains, data.data_dir)


def _first(stream: Any, count: int, without: Collection[str]) -> Iterator[dict[str, np.ndarray]]:
    """The first `count` batches, as if no example had the inputs `without`; then closes the stream with its threads and
    processes.
    """
    lacking = [f"{name}{VALID}" for name in without]
    try:
        for batch in itertools.islice(stream, count):
            yield batch | {name: np.zeros_like(batch[name]) for name in lacking}
    finally:
        stream.close()
