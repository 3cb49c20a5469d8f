"""One tile of the logit matrix: its logits, the statistics that each row and column keeps, and the gradient of the loss
by its logits."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class Rows(NamedTuple):
    """One side of the pairs: its vectors, and which of them have partners.

    Attributes:
        vectors: `[n,E]`, of unit length.
        valid: `[n]`, a mask of those that take part.
        group: `[n]` int32. A row and a column of the same group are a positive pair; a negative group has no partner (a
            candidate only).
    """

    vectors: Float[Array, "n e"]
    valid: Bool[Array, " n"]
    group: Int[Array, " n"]


class Met(NamedTuple):
    """Running statistics of each row over the columns processed so far (of each column over the rows), each `[n]`.

    Attributes:
        top_positive, top_negative: the highest logit so far (a very low number where there was none).
        positives, negatives: the sums of their logits.
        partners: how many positives.
        exponentials: softmax: the sum of `exp(logit - max(top_positive, top_negative))`.
        positive_losses, negative_losses: sigmoid: the sums of the pairs' losses.
    """

    top_positive: Array
    top_negative: Array
    positives: Array
    negatives: Array
    partners: Array
    exponentials: Array
    positive_losses: Array
    negative_losses: Array

    @property
    def top(self) -> Array:
        """The highest logit so far."""
        return jnp.maximum(self.top_positive, self.top_negative)

    @property
    def normaliser(self) -> Array:
        """The logsumexp of all logits so far; very low where there were none."""
        return self.top + jnp.log(jnp.maximum(self.exponentials, jnp.finfo(self.exponentials.dtype).tiny))


class Pull(NamedTuple):
    """Coefficients of the backward pass for each row (or column), each `[n]`.

    Attributes:
        weight: of the row in the mean of the loss.
        normaliser: the logsumexp of its logits.
        target: subtracted at its positives.
        evenly: label smoothing, subtracted at all its candidates.
    """

    weight: Array
    normaliser: Array
    target: Array
    evenly: Array


class Tile:
    """A tile of the logit matrix: some rows against some columns. Invalid rows are set to zero here: 0 times NaN would
    be NaN.
    """

    def __init__(self, rows: Rows, columns: Rows, scale: Array, bias: Array):
        self.counts = rows.valid[:, None] & columns.valid
        self.positive = self.counts & (rows.group[:, None] == columns.group) & (rows.group >= 0)[:, None]
        self.negative = self.counts & ~self.positive
        self.logits = scale * product("ie,je->ij", rows.vectors, columns.vectors) + bias

    def met(self, loss: str, axis: int) -> Met:
        """The statistics of each row (axis 1) or column (axis 0) of this tile."""
        z, lowest = self.logits, very_low(self.logits.dtype)

        def total(of: Array, where: Array) -> Array:
            return jnp.sum(jnp.where(where, of, 0), axis)

        top_positive = jnp.max(jnp.where(self.positive, z, lowest), axis)
        top_negative = jnp.max(jnp.where(self.negative, z, lowest), axis)
        exponentials = positive_losses = negative_losses = jnp.zeros_like(top_positive)
        if loss == "softmax":
            exponentials = total(
                jnp.exp(z - jnp.expand_dims(jnp.maximum(top_positive, top_negative), axis)), self.counts
            )
        elif axis == 1:  # a pair's loss is counted once, with its row
            positive_losses = total(jax.nn.softplus(-z), self.positive)
            negative_losses = total(jax.nn.softplus(z), self.negative)
        return Met(
            top_positive,
            top_negative,
            positives=total(z, self.positive),
            negatives=total(z, self.negative),
            partners=jnp.sum(self.positive, axis, dtype=z.dtype),
            exponentials=exponentials,
            positive_losses=positive_losses,
            negative_losses=negative_losses,
        )

    def gradient(self, loss: str, a: Pull, b: Pull) -> Array:
        """The gradient d loss / d logits."""
        z = self.logits
        if loss == "sigmoid":
            each = jnp.where(self.positive, -jax.nn.sigmoid(-z), jax.nn.sigmoid(z))
            return jnp.where(self.counts, a.weight[:, None] * each, 0)
        softmaxes = a.weight[:, None] * jnp.exp(z - a.normaliser[:, None]) + b.weight * jnp.exp(z - b.normaliser)
        evenly = a.evenly[:, None] + b.evenly
        return jnp.where(self.counts, softmaxes - evenly, 0) - jnp.where(self.positive, a.target[:, None] + b.target, 0)


def very_low(dtype: Any) -> Any:
    """A number below every logit, finite: its sums don't overflow."""
    return jnp.asarray(jnp.finfo(dtype).min / 2, dtype)


def nothing_met(n: int, dtype: Any) -> Met:
    """The statistics of `n` rows before the first tile."""
    lowest, zero = jnp.full(n, very_low(dtype)), jnp.zeros(n, dtype)
    return Met(lowest, lowest, zero, zero, zero, zero, zero, zero)


def merge(x: Met, y: Met) -> Met:
    """The statistics over the columns of both."""
    summed = jax.tree.map(jnp.add, x, y)
    top_positive = jnp.maximum(x.top_positive, y.top_positive)
    top_negative = jnp.maximum(x.top_negative, y.top_negative)
    top = jnp.maximum(top_positive, top_negative)
    exponentials = x.exponentials * jnp.exp(x.top - top) + y.exponentials * jnp.exp(y.top - top)
    return summed._replace(top_positive=top_positive, top_negative=top_negative, exponentials=exponentials)


def product(letters: str, x: Array, y: Array) -> Array:
    """An einsum in full fp32: an accelerator's default rounds to bf16, and the scale makes an error of 1e-3
    into 0.1.
    """
    return jnp.einsum(letters, x, y, precision=lax.Precision.HIGHEST)
