"""Metric learning: embeddings of one class, or of one example, are nearer to each other than to all others."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError, not_among
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import Context, View, entry, selected, valid
from mmjax.objectives.demands import check_embedding_sizes
from mmjax.objectives.encoded import Encoded
from mmjax.objectives.numerics import at_least_fp32, unit

LOSSES = ("triplet", "npair", "infonce")
MINING = ("all", "hard", "semi_hard")


class Side(NamedTuple):
    """Anchors against candidates: what they are like, and which are right and wrong for each anchor."""

    similarity: Float[Array, "n m"]
    positive: Bool[Array, "n m"]
    negative: Bool[Array, "n m"]


class MetricLearning(nn.Module):
    """Learns distances from which rows of the global batch belong together, without a decoder or classes of its own.

    Of one input with a `label`, the rows of the same class belong together; of two inputs those of the same class, or
    without a label of the same row, and each side is compared with the other, the mean of both directions (rows of the
    same example, by its `id`, are then no negatives). An anchor that has no partner, or no negative, has no term.

    `triplet` (FaceNet: Schroff et al. 2015, arXiv:1503.03832): `[d(a, p) - d(a, n) + margin]_+` with the squared
    distance d of unit vectors, 2 - 2 cos, averaged over the terms that aren't 0. `npair` (Sohn 2016): `log(1 + sum_n
    exp(a.n - a.p))` of vectors that aren't normalised, and `decay` times their mean squared length, averaged over the
    positive pairs. `infonce`: the same of `scale * cos`, with `scale * margin` taken from the positive's (CosFace: Wang
    et al. 2018, arXiv:1801.09414); with two inputs, a margin of 0 and no label it is CLIP's loss at a fixed scale.

    All pairs of the batch are held, `[B, B]`; `mining="all"` sorts them. Metrics, besides the loss: `accuracy` (of the
    anchors with a partner, those whose nearest row is one), `distance_positive` and `distance_negative` (the means of
    d), and of triplets `active`, the share that isn't 0.

    Attributes:
        inputs: one input, or two.
        label: the batch's entry of class numbers, int32 `[B]` (`mmjax.data.Label`).
        loss: `triplet`, `npair` or `infonce`.
        mining: of triplets, the negatives of a positive pair: `all`; `hard`, the nearest (VSE++: Faghri et al. 2017,
            arXiv:1707.05612); `semi_hard`, the nearest of those that are further away than the positive.
        margin: of triplets, in squared distance; of infonce, in cosine.
        scale: of infonce, 1 / temperature.
        decay: of npair.
        towers: the tower of an input, by its name, where that isn't the tower of the same name.
    """

    inputs: tuple[str, ...]
    label: str | None = None
    loss: Literal["triplet", "npair", "infonce"] = "triplet"
    mining: Literal["all", "hard", "semi_hard"] = "semi_hard"
    margin: float = 0.2
    scale: float = 1 / 0.07
    decay: float = 0.0
    towers: Mapping[str, str] = field(default_factory=dict)

    def views(self) -> tuple[View, ...]:
        return tuple(View(name, None, self.towers.get(name)) for name in self.inputs)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where a field is out of its range, embeddings are of two sizes, or there is no label."""
        for name, allowed in (("loss", LOSSES), ("mining", MINING)):
            if getattr(self, name) not in allowed:
                raise UserError(not_among(f"{path}.{name}", getattr(self, name), allowed))
        if len(self.inputs) not in (1, 2) or len(set(self.inputs)) < len(self.inputs):
            raise UserError(f"{path}.inputs={self.inputs}: name one input, or two different ones")
        if len(self.inputs) == 1 and self.label is None:
            raise UserError(
                f"{path}.inputs={self.inputs} is one input and label=None, so nothing says which examples belong "
                "together: name the label, or two inputs"
            )
        for name, least in (("margin", 0.0), ("decay", 0.0)):
            if getattr(self, name) < least:
                raise UserError(f"{path}.{name}={getattr(self, name)} must be at least 0")
        if not self.scale > 0:
            raise UserError(f"{path}.scale={self.scale} must be above 0")
        check_embedding_sizes(path, self.views(), towers)
        given = None if self.label is None else inputs.get(self.label)
        if self.label is not None and (given is None or (given.shape, given.dtype) != ((), "int32")):
            raise UserError(
                f"{path} reads the label {self.label!r}, and data.transforms gives {given or 'none'}: it is int32[], "
                "from a chain that ends in Label(...)"
            )

    def per_example(
        self, encoded: Mapping[View, Encoded], batch: Mapping[str, Array], context: Context
    ) -> tuple[Float[Array, "b e"], ...]:
        """The embedding of each input, in fp32 at least; of unit length but for npair; zeros where it isn't valid."""
        vectors = (selected(valid(batch, view.input), encoded[view].embedding) for view in self.views())
        return tuple(at_least_fp32(x) if self.loss == "npair" else unit(x) for x in vectors)

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the examples that have all inputs, and the label."""
        needed = (*self.inputs, *(() if self.label is None else (self.label,)))
        return jnp.all(jnp.stack([valid(batch, name) for name in needed]), axis=0)

    def batch_loss(
        self, outputs: tuple[Float[Array, "b e"], ...], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        labelled = True if self.label is None else valid(batch, self.label)
        rows = [valid(batch, name) & labelled for name in self.inputs]
        vectors = [selected(there, x) for there, x in zip(rows, outputs, strict=True)]
        same, wrong = self._same(batch, len(rows[0]))
        both = rows[0][:, None] & rows[-1]
        similarity = jnp.einsum("ie,je->ij", vectors[0], vectors[-1], precision=jax.lax.Precision.HIGHEST)
        forward = Side(similarity, same & both, wrong & both)
        sides = [forward] if len(vectors) == 1 else [forward, Side(*(x.T for x in forward))]
        found = [self._loss(side) for side in sides]
        metrics = {name: jnp.stack([each[name] for _, each in found]).mean() for name in found[0][1]}
        loss = jnp.stack([each for each, _ in found]).mean()
        if self.loss == "npair" and self.decay:
            squares = sum(jnp.square(x).sum() for x in vectors)
            loss += self.decay * squares / jnp.maximum(sum(there.sum() for there in rows), 1)
        return loss, metrics | self._distances(vectors, forward)

    def _same(self, batch: Mapping[str, Array], count: int) -> tuple[Bool[Array, "b b"], Bool[Array, "b b"]]:
        """Masks of the rows that belong together, and of those that don't."""
        itself = jnp.eye(count, dtype=bool)
        if self.label is not None:
            number: Int[Array, " b"] = entry(batch, self.label)
            same = number[:, None] == number
            return (same & ~itself if len(self.inputs) == 1 else same), ~same
        alike = itself
        if "id" in batch:
            alike = jnp.all(batch["id"][:, None] == batch["id"], axis=-1)
        return itself, ~alike

    def _loss(self, side: Side) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss of one direction, and its metrics."""
        similarity, positive, negative = side
        met = positive.any(axis=1) & negative.any(axis=1)
        near, far = (jnp.max(similarity, 1, where=there, initial=-jnp.inf) for there in (positive, negative))
        metrics = {"accuracy": _share(near > far, met)}
        if self.loss == "triplet":
            total, active, count = triplets(2 - 2 * similarity, positive, negative, self.margin, self.mining)
            return total / jnp.maximum(active, 1), metrics | {"active": active / jnp.maximum(count, 1)}
        scale, margin = (1.0, 0.0) if self.loss == "npair" else (self.scale, self.margin)
        logits = jnp.where(negative, scale * similarity, jnp.finfo(similarity.dtype).min / 2)
        against = jax.nn.logsumexp(logits, axis=1, keepdims=True)
        terms = jax.nn.softplus(against - scale * (similarity - margin))
        return _share(terms, positive & negative.any(axis=1, keepdims=True)), metrics

    def _distances(self, vectors: list[Float[Array, "b e"]], side: Side) -> dict[str, Array]:
        similarity = jax.lax.stop_gradient(side.similarity)
        if self.loss == "npair":
            a, b = (unit(jax.lax.stop_gradient(x)) for x in (vectors[0], vectors[-1]))
            similarity = jnp.einsum("ie,je->ij", a, b)
        distance = 2 - 2 * similarity
        return {
            "distance_positive": _share(distance, side.positive),
            "distance_negative": _share(distance, side.negative),
        }


def triplets(
    distance: Float[Array, "n m"],
    positive: Bool[Array, "n m"],
    negative: Bool[Array, "n m"],
    margin: float,
    mining: Literal["all", "hard", "semi_hard"],
) -> tuple[Float[Array, ""], Int[Array, ""], Int[Array, ""]]:
    """The sum over triplets of `[d(a, p) - d(a, n) + margin]_+`, how many of them aren't 0, and how many there are.

    mining: which negatives a positive pair meets, see `MetricLearning`.
    """
    away = jnp.sort(jnp.where(negative, distance, jnp.inf), axis=1)  # each anchor's negatives, the nearest first
    reach = distance + margin
    before = jax.vmap(jnp.searchsorted)  # how many of a row are below each number
    if mining == "all":
        below = before(away, reach)
        sums = jnp.cumsum(jnp.where(jnp.isfinite(away), away, 0), axis=1)
        sums = jnp.pad(sums, ((0, 0), (1, 0)))
        terms = below * reach - jnp.take_along_axis(sums, below, axis=1)
        count = jnp.sum(positive.sum(axis=1) * negative.sum(axis=1))
        return jnp.sum(jnp.where(positive, terms, 0)), jnp.sum(jnp.where(positive, below, 0)), count
    if mining == "hard":
        met = jnp.broadcast_to(away[:, :1], distance.shape)
    else:
        first = jax.vmap(lambda row, at: jnp.searchsorted(row, at, side="right"))(away, distance)
        met = jnp.take_along_axis(away, jnp.minimum(first, away.shape[1] - 1), axis=1)
        met = jnp.where(first < away.shape[1], met, jnp.inf)
    there = positive & jnp.isfinite(met)
    terms = jnp.where(there, reach - jnp.where(there, met, 0), 0)
    return jnp.sum(jnp.maximum(terms, 0)), jnp.sum(terms > 0), there.sum()


def _share(x: Array, weight: Bool[Array, "..."]) -> Float[Array, ""]:
    """The mean of the values with weight; 0 where there are none."""
    return jnp.sum(jnp.where(weight, x, 0)) / jnp.maximum(weight.sum(), 1)
