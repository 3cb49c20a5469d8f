"""Contrast with a teacher's keys, of the batch and of a queue, and soft targets by the teacher (ALBEF: Li et al. 2021,
arXiv:2107.07651, section 3.2 and 3.4; the queue is MoCo's: He et al. 2019, arXiv:1911.05722)."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt

from mmjax.errors import UserError, nearest, not_among
from mmjax.models.layers.parameters import constrain
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import Context, View, entry, selected, valid
from mmjax.objectives.contrastive import ring
from mmjax.objectives.contrastive.key_queue import QUEUE, KeyQueue, check_divides, enqueued, random_queue
from mmjax.objectives.contrastive.objective import at_most
from mmjax.objectives.contrastive.tile import product, very_low
from mmjax.objectives.demands import check_embedding_sizes
from mmjax.objectives.encoded import Encoded
from mmjax.objectives.numerics import unit, weighted_mean
from mmjax.objectives.soft_targets import check_alpha, ramped

PARTNERS = ("row", "id")


class QueriesAndKeys(NamedTuple):
    """The unit vectors of the pair's two inputs, and the teacher's part of the targets."""

    queries: tuple[Float[Array, "b e"], Float[Array, "b e"]]
    keys: tuple[Float[Array, "b e"], Float[Array, "b e"]]
    alpha: Float[Array, " b"]


class Candidates(NamedTuple):
    """Keys that queries are compared with."""

    keys: Float[Array, "m e"]
    valid: Bool[Array, " m"]
    positive: Bool[Array, "b m"]


class MomentumContrastive(nn.Module):
    """Pulls the embedding of an example's one input to the teacher's embedding (the key) of its other input, and away
    from the keys of the other examples, those of earlier batches among them, by targets that the teacher softens.

    `t = alpha * softmax(k_i.k_j / temperature) + (1 - alpha) * onehot`; the loss is the mean of `-sum_j t_j log
    softmax(q_i.k_j / temperature)` over the queries i that have a partner, halved over the two directions. q is the
    student's, k the teacher's: the moving average of the parameters, which the experiment's `ema` asks for (0.995 in
    the paper). The average follows each update, so a step's teacher has seen the student that it teaches, and in the
    first step both are the same. Nothing of the targets and of the keys has a gradient. The candidates j are the keys
    of the whole global batch, on any mesh, and those in the queue; the published code takes the keys of a device's own
    batch, and has those of other devices from the next step on, through the queue.

    The queue is part of the train state (`model_state`), so a resumed run goes on with it. Each step puts the batch's
    keys in the place of the oldest, after the loss, but for a step that is skipped; evaluation reads it as it is. It
    starts with random unit vectors, drawn by the key of the parameters (the experiment's seed). An exported model has
    none: its validation loss is over the batch's keys alone. A key of an input that an example lacks is no candidate.
    Each device holds the whole queue (134 MB for two inputs of the default size at 256 dimensions), and the logits
    `[B, B + queue]` of its own queries.

    Metrics, besides the loss: `loss_forward` (pair[0] are the queries) and `loss_backward`; `logit_scale`, 1 /
    temperature; `accuracy`, how often a right key is nearer than every wrong one, and `candidates`, the number of keys
    that a query is compared with, both means of the two directions; `alpha` of the step; `nonfinite/<modality>`, how
    many valid rows have an embedding that is not finite.

    Attributes:
        pair: the two inputs that are compared.
        queue: how many keys of each input are remembered, a multiple of the batch size; 0: none.
        alpha: the teacher's part of the targets; 0: none, the partners alone.
        ramp_steps: the steps in which it rises from 0, `alpha * min(1, step / ramp_steps)`: those of the first epoch
            in ALBEF, of two epochs in BLIP; 0: it is there from the start.
        temperature_init: the first temperature; it is learnt.
        temperature_min, temperature_max: the temperature is clipped here.
        partners: "row": row i of one input belongs to row i of the other. "id": all rows of the same example do (its
            `id` in the batch), also those in the queue (ALBEF's fine-tuning for retrieval): for batches in which an
            image comes several times, or a queue that is larger than the data.
        towers: the tower of an input, by its name, where that isn't the tower of the same name.
    """

    pair: tuple[str, str]
    queue: int = 65_536
    alpha: float = 0.4
    ramp_steps: int = 0
    temperature_init: float = 0.07
    temperature_min: float = 0.001
    temperature_max: float = 0.5
    partners: Literal["row", "id"] = "row"
    towers: Mapping[str, str] = field(default_factory=dict)

    def setup(self) -> None:
        self._check(type(self).__name__)
        initializer = nn.initializers.constant(self.temperature_init)
        self.temperature = self.param("temperature", initializer, (), jnp.float32)

    def views(self) -> tuple[View, ...]:
        """The student's two views, and then the teacher's."""
        return tuple(
            View(name, None, self.towers.get(name), teacher) for teacher in (False, True) for name in self.pair
        )

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where a field is out of its range, or the towers' embeddings are of two sizes."""
        self._check(path)
        check_embedding_sizes(path, self.views(), towers)

    def per_example(
        self, encoded: Mapping[View, Encoded], batch: Mapping[str, Array], context: Context
    ) -> QueriesAndKeys:
        """Unit vectors, in fp32 at least; zeros where an example isn't valid."""
        found = [unit(selected(valid(batch, view.input), encoded[view].embedding)) for view in self.views()]
        sizes = [x.shape[-1] for x in found]
        if len(set(sizes)) > 1:
            raise UserError(
                f"the towers of {self.pair[0]!r} and {self.pair[1]!r} embed into {sizes[0]} and {sizes[1]} dimensions; "
                "a contrastive objective needs the same embed_dim in both"
            )
        alpha = ramped(self.alpha, self.ramp_steps, context.step)
        keys = jax.lax.stop_gradient((found[2], found[3]))
        return QueriesAndKeys((found[0], found[1]), keys, jnp.full(len(found[0]), alpha, found[0].dtype))

    def batch_loss(
        self, outputs: QueriesAndKeys, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        queries, keys, alpha = outputs
        if ring.mesh_parts()[1] == 1:
            ring.check_whole(*queries)
        there = [valid(batch, name) for name in self.pair]
        queue = self._queue(keys[0])
        same, same_as_queued = self._partners(batch, queue)
        above = -at_most(-self.temperature, -self.temperature_min)
        scale = 1 / at_most(above, self.temperature_max)
        found = []
        for one, other in ((0, 1), (1, 0)):
            candidates = [Candidates(keys[other], there[other], same)]
            if queue is not None:
                name = self.pair[other]
                candidates.append(Candidates(queue[f"{name}_keys"], queue[f"{name}_valid"], same_as_queued))
            found.append(distilled_loss(queries[one], keys[one], there[one], candidates, scale, alpha))
        if queue is not None:
            self._enqueue(queue, keys, there, batch)
        forward, backward = found
        metrics = {
            "loss_forward": forward.loss,
            "loss_backward": backward.loss,
            "logit_scale": scale,
            "accuracy": (forward.accuracy + backward.accuracy) / 2,
            "candidates": (forward.candidates + backward.candidates) / 2,
            "alpha": alpha[0],
        }
        for name, vectors, rows in zip(self.pair, queries, there, strict=True):
            metrics[f"nonfinite/{name}"] = jnp.sum(rows & ~jnp.isfinite(vectors).all(axis=1))
        return (forward.loss + backward.loss) / 2, metrics

    def _queue(self, keys: Float[Array, "b e"]) -> KeyQueue | None:
        """The queue as it is before this step; None: there is none, as in an exported model."""
        if not self.queue:
            return None
        if self.is_initializing():
            check_divides(type(self).__name__, self.queue, len(keys))
            fresh = random_queue(self.make_rng("params"), self.pair, self.queue, keys, self.partners == "id")
            for name, array in fresh.items():
                self.put_variable(QUEUE, name, array)
        return self.variables.get(QUEUE) or None

    def _enqueue(self, queue: KeyQueue, keys: Any, there: Any, batch: Mapping[str, Array]) -> None:
        """Puts the batch's keys into the queue, in training: elsewhere the collection can't be changed."""
        if self.is_initializing() or not self.is_mutable_collection(QUEUE):
            return
        check_divides(type(self).__name__, self.queue, len(keys[0]))
        new, real = (dict(zip(self.pair, each, strict=True)) for each in (keys, there))
        id = entry(batch, "id") if self.partners == "id" else None
        for name, array in enqueued(queue, new, real, id).items():
            self.put_variable(QUEUE, name, array)

    def _partners(self, batch: Mapping[str, Array], queue: KeyQueue | None) -> tuple[Bool[Array, "b b"], Any]:
        """Masks of the pairs of rows that belong together, and of a row with a place of the queue."""
        rows = len(valid(batch, self.pair[0]))
        if self.partners == "row":
            return jnp.eye(rows, dtype=bool), jnp.zeros((rows, self.queue), bool)
        if "id" not in batch:
            raise UserError(
                f"{type(self).__name__}(partners='id') needs 'id', which the batch lacks; it has {sorted(batch)}"
            )
        id = batch["id"]
        return equal_rows(id, id), None if queue is None else equal_rows(id, queue["id"]) & queue["known"]

    def _check(self, path: str) -> None:
        if len(self.pair) != 2 or self.pair[0] == self.pair[1]:
            raise UserError(f"{path} has pair={self.pair}: a pair is two different inputs")
        for input in self.towers:
            if input not in self.pair:
                raise UserError(
                    f"{path} has towers={{{input!r}: ...}}, and its pair is {self.pair}{nearest(input, self.pair)}"
                )
        if self.partners not in PARTNERS:
            raise UserError(not_among(f"{path}.partners", self.partners, PARTNERS))
        if self.queue < 0:
            raise UserError(f"{path}.queue={self.queue} must be at least 0 (0: none)")
        check_alpha(path, self.alpha, self.ramp_steps)
        if not 0 < self.temperature_min <= self.temperature_init <= self.temperature_max:
            raise UserError(
                f"{path}.temperature_init={self.temperature_init} must lie within temperature_min="
                f"{self.temperature_min} and temperature_max={self.temperature_max}, and those above 0: cosines are "
                "divided by it"
            )


class Compared(NamedTuple):
    """A direction's loss, accuracy, and mean number of candidates."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    candidates: Float[Array, ""]


def distilled_loss(
    queries: Float[Array, "b e"],
    teacher: Float[Array, "b e"],
    asks: Bool[Array, " b"],
    candidates: list[Candidates],
    scale: Float[Array, ""],
    alpha: Float[Array, " b"],
) -> Compared:
    """The cross-entropy of queries over all candidates, with targets that are partly the teacher's.

    `-sum_j t_j log softmax_j(scale q.k_j)`, `t = alpha softmax(scale u.k) + (1 - alpha) onehot`, averaged over the
    valid queries that have a partner; with several partners the one-hot's mass is evenly on them. 0 where none has.

    Args:
        queries: unit vectors q. teacher: those u of the same inputs. asks: a mask of the valid ones.
        candidates: keys k. Their parts are compared one by one, and the logits `[B, all]` put side by side: keys of the
            batch are cut over the devices, those of a queue aren't.
        scale: of the logits. alpha: the teacher's part in each row's targets.
    """

    def side_by_side(vectors: Float[Array, "b e"], scale: Float[Array, ""]) -> Float[Array, "b m"]:
        logits = [
            jnp.where(some.valid, scale * product("ie,je->ij", vectors, selected(some.valid, some.keys)), lowest)
            for some in candidates
        ]
        return constrain(jnp.concatenate(logits, axis=1), "batch", None)

    lowest = very_low(queries.dtype)
    counts = jnp.concatenate([some.valid for some in candidates])
    positive = jnp.concatenate([some.positive for some in candidates], axis=1) & counts & asks[:, None]
    partners = positive.sum(axis=1)
    logits = side_by_side(queries, scale)
    softened = jax.nn.softmax(side_by_side(jax.lax.stop_gradient(teacher), jax.lax.stop_gradient(scale)), axis=1)
    targets = alpha[:, None] * softened + (1 - alpha)[:, None] * positive / jnp.maximum(partners, 1)[:, None]
    log_softmax = jax.nn.log_softmax(logits, axis=1)
    losses = -jnp.sum(jnp.where(counts, targets * log_softmax, 0), axis=1)
    still = jax.lax.stop_gradient(logits)
    right = jnp.max(still, axis=1, where=positive, initial=lowest)
    wrong = jnp.max(still, axis=1, where=counts & ~positive, initial=lowest)
    one = jnp.ones_like(losses)
    loss, accuracy = (weighted_mean(each, one, partners > 0) for each in (losses, jnp.where(right > wrong, one, 0)))
    return Compared(loss, accuracy, counts.sum().astype(losses.dtype))


def equal_rows(a: UInt[Array, "n 2"], b: UInt[Array, "m 2"]) -> Bool[Array, "n m"]:
    """A mask of the pairs of equal rows, word by word: no `[n,m,2]` is made."""
    return (a[:, None, 0] == b[:, 0]) & (a[:, None, 1] == b[:, 1])
