"""Contrastive losses between two modalities: softmax (CLIP) and sigmoid (SigLIP), dense: every pair of the batch."""

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError, nearest
from mmjax.objectives.views import Corrupt, Encoded, Keep, View, at_least_fp32, valid

EPSILON = 1e-12  # added to the squared norm: the gradient at a zero vector stays finite


class Published(NamedTuple):
    """What a paper starts from."""

    scale_init: float
    scale_max: float
    bias_init: float


PUBLISHED = {
    "softmax": Published(scale_init=1 / 0.07, scale_max=100.0, bias_init=0.0),  # arXiv:2103.00020, section 2.5
    "sigmoid": Published(scale_init=10.0, scale_max=math.inf, bias_init=-10.0),  # arXiv:2303.15343, section 3.2
}


class Contrastive(nn.Module):
    """Pulls the two embeddings of an example together and those of different examples apart.

    Metrics, besides the loss: `logit_scale`, `positive_logit` and `negative_logit` (means over the counted pairs),
    `accuracy` (how often the right partner has the highest logit, mean of both directions); for softmax also the two
    directions' losses, `loss_forward` (pair[0] asks, pair[1] answers) and `loss_backward`; for sigmoid `logit_bias`.

    Attributes:
        pair: the two modalities.
        loss: "softmax" (symmetric InfoNCE: CLIP, arXiv:2103.00020) or "sigmoid" (SigLIP, arXiv:2303.15343).
        masking: by modality, the masked view to read instead of the whole (FLIP, arXiv:2212.00794). A masked objective
            that reads an equal view shares the encoding.
        scale_init: the logits' first scale; None: the paper's, 1/0.07 for softmax and 10 for sigmoid.
        scale_max: the scale is clipped here; None: the paper's, 100 for softmax and no clip (inf) for sigmoid.
        bias_init: the first logit bias, sigmoid only; None: the paper's -10.
        label_smoothing: softmax only; the part of the target spread evenly over all candidates.
    """

    pair: tuple[str, str]
    loss: Literal["softmax", "sigmoid"] = "softmax"
    masking: Mapping[str, Keep | Corrupt] = field(default_factory=dict)
    scale_init: float | None = None
    scale_max: float | None = None
    bias_init: float | None = None
    label_smoothing: float = 0.0

    def setup(self) -> None:
        self._check()
        published = PUBLISHED[self.loss]
        scale_init = published.scale_init if self.scale_init is None else self.scale_init
        self.log_scale = self.param("log_scale", nn.initializers.constant(math.log(scale_init)), (), jnp.float32)
        if self.loss == "sigmoid":
            bias_init = published.bias_init if self.bias_init is None else self.bias_init
            self.bias = self.param("bias", nn.initializers.constant(bias_init), (), jnp.float32)

    def views(self) -> tuple[View, ...]:
        return tuple(View(modality, self.masking.get(modality)) for modality in self.pair)

    def per_example(
        self, encoded: Mapping[View, Encoded], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, "b e"], Float[Array, "b e"]]:
        """The pair's unit vectors `[B,E]`, in fp32 at least."""
        a, b = (unit(encoded[view].embedding) for view in self.views())
        if a.shape != b.shape:
            raise UserError(
                f"the towers of {self.pair[0]!r} and {self.pair[1]!r} embed into {a.shape[-1]} and {b.shape[-1]} "
                "dimensions; a contrastive objective needs the same embed_dim in both"
            )
        return a, b

    def batch_loss(
        self, outputs: tuple[Float[Array, "b e"], Float[Array, "b e"]], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        a, b = outputs
        a_valid, b_valid = (valid(batch, modality) for modality in self.pair)
        scale_max = PUBLISHED[self.loss].scale_max if self.scale_max is None else self.scale_max
        scale = jnp.exp(at_most(self.log_scale, math.log(scale_max)))
        if self.loss == "softmax":
            loss, metrics = softmax_loss(a, b, scale, a_valid, b_valid, label_smoothing=self.label_smoothing)
        else:
            loss, metrics = sigmoid_loss(a, b, scale, self.bias, a_valid, b_valid)
            metrics["logit_bias"] = self.bias
        return loss, metrics | {"logit_scale": scale}

    def _check(self) -> None:
        if len(self.pair) != 2 or self.pair[0] == self.pair[1]:
            raise UserError(f"Contrastive(pair={self.pair}): a pair is two different modalities")
        if self.loss not in PUBLISHED:
            raise UserError(
                f"Contrastive(loss={self.loss!r}): the losses are {', '.join(PUBLISHED)}{nearest(self.loss, PUBLISHED)}"
            )
        for modality in self.masking:
            if modality not in self.pair:
                raise UserError(
                    f"Contrastive(masking={{{modality!r}: ...}}): the pair is {self.pair}{nearest(modality, self.pair)}"
                )
        unread = {"softmax": ("bias_init", None), "sigmoid": ("label_smoothing", 0.0)}[self.loss]
        if getattr(self, unread[0]) != unread[1]:
            raise UserError(
                f"Contrastive({unread[0]}={getattr(self, unread[0])}): the {self.loss} loss has none; leave it out"
            )
        for name in ("scale_init", "scale_max"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise UserError(f"Contrastive({name}={getattr(self, name)}): a scale is above 0")


def softmax_loss(
    a: Float[Array, "b e"],
    b: Float[Array, "b e"],
    scale: Float[Array, ""],
    a_valid: Bool[Array, " b"],
    b_valid: Bool[Array, " b"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Symmetric InfoNCE: half of a's cross-entropy over b plus half of b's over a.

    `-s a_i.b_i + logsumexp_j(s a_i.b_j)`, averaged over the rows i that have both modalities; the candidates j are all
    rows that have the answering modality. 0 (and gradients of 0) where no row has both.

    Args:
        a, b: unit vectors; row i of one belongs to row i of the other.
        scale: the logits' scale s (not its logarithm).
        a_valid, b_valid: which rows have the modality.
        label_smoothing: the part of the target spread evenly over all candidates.
    """
    logits = scale * _cosines(a, b)
    both = a_valid & b_valid

    def cross_entropy(logits: Float[Array, "b b"], candidate: Bool[Array, " b"]) -> Float[Array, ""]:
        normaliser = jax.nn.logsumexp(_only(candidate, logits), axis=1)
        evenly = jnp.sum(jnp.where(candidate, logits, 0), axis=1) / jnp.maximum(candidate.sum(), 1)
        target = (1 - label_smoothing) * jnp.diagonal(logits) + label_smoothing * evenly
        return _mean(normaliser - target, both)

    forward, backward = cross_entropy(logits, b_valid), cross_entropy(logits.T, a_valid)
    metrics = {"loss_forward": forward, "loss_backward": backward}
    return (forward + backward) / 2, metrics | _logit_metrics(logits, a_valid, b_valid)


def sigmoid_loss(
    a: Float[Array, "b e"],
    b: Float[Array, "b e"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    a_valid: Bool[Array, " b"],
    b_valid: Bool[Array, " b"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """`-(1/n) sum_ij log sigmoid(y_ij z_ij)`, `z = s a_i.b_j + bias`, y = 1 on the diagonal and -1 elsewhere.

    The sum runs over all pairs whose row i has a's modality and whose column j has b's; n is the number of rows that
    have both, that is, of positives (with all valid: B, so a sum over columns and a mean over rows). Rows with one
    modality alone are thus further negatives. 0 (and gradients of 0) where no row has both.
    """
    logits = scale * _cosines(a, b) + bias
    both = a_valid & b_valid
    diagonal = jnp.eye(len(a), dtype=bool)
    positives = jnp.where(both, -jax.nn.log_sigmoid(jnp.diagonal(logits)), 0)
    # Summed apart, and row by row: a negative starts at 4.5e-5; in fp32 a sum that holds the positives' 10s loses it.
    negatives = jnp.where(a_valid[:, None] & b_valid & ~diagonal, -jax.nn.log_sigmoid(-logits), 0).sum(axis=1)
    loss = jnp.where(both.any(), (positives.sum() + negatives.sum()) / jnp.maximum(both.sum(), 1), 0)
    return loss, _logit_metrics(logits, a_valid, b_valid)


def unit(x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """Unit vectors along the last axis, in fp32 at least; a zero vector stays zero, with a finite gradient."""
    x = at_least_fp32(x)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + EPSILON)


@jax.custom_vjp
def at_most(x: Float[Array, ""], limit: float) -> Float[Array, ""]:
    """`min(x, limit)`, with a gradient that can bring `x` back.

    `jnp.minimum` has a gradient of 0 above the limit, so a parameter that once overshoots stays there for ever. CLIP
    clamps the parameter itself after each update, which a pure loss can't. Here the gradient passes at and below the
    limit, and above it only where descent lowers x: further up there is no drift to be undone later.
    """
    return jnp.minimum(x, limit)


def _at_most_forward(x: Float[Array, ""], limit: float) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    return jnp.minimum(x, limit), x > limit


def _at_most_backward(above: Bool[Array, ""], gradient: Float[Array, ""]) -> tuple[Float[Array, ""], None]:
    return jnp.where(above, jnp.maximum(gradient, 0), gradient), None


at_most.defvjp(_at_most_forward, _at_most_backward)


def _cosines(a: Float[Array, "b e"], b: Float[Array, "b e"]) -> Float[Array, "b b"]:
    """a_i.b_j. In full fp32: an accelerator's default rounds to bf16, and the scale makes an error of 1e-3 into 0.1."""
    return jnp.einsum("ie,je->ij", at_least_fp32(a), at_least_fp32(b), precision=jax.lax.Precision.HIGHEST)


def _only(candidate: Bool[Array, " b"], logits: Float[Array, "b b"]) -> Float[Array, "b b"]:
    """The logits, with all but the candidates' columns lowered out of sight (finite: with no candidate too)."""
    return jnp.where(candidate, logits, jnp.finfo(logits.dtype).min / 2)


def _mean(x: Float[Array, "*shape"], weight: Bool[Array, "*shape"]) -> Float[Array, ""]:
    """The mean of what has weight; 0 where nothing has. Selected, not multiplied: a NaN without weight stays out."""
    return jnp.sum(jnp.where(weight, x, 0)) / jnp.maximum(weight.sum(), 1)


def _logit_metrics(
    logits: Float[Array, "b b"], a_valid: Bool[Array, " b"], b_valid: Bool[Array, " b"]
) -> dict[str, Array]:
    logits, both = jax.lax.stop_gradient(logits), a_valid & b_valid
    rows = jnp.arange(len(logits))
    forward = jnp.argmax(_only(b_valid, logits), axis=1) == rows
    backward = jnp.argmax(_only(a_valid, logits.T), axis=1) == rows
    negative = a_valid[:, None] & b_valid & (rows[:, None] != rows)
    return {
        "accuracy": (_mean(forward, both) + _mean(backward, both)) / 2,
        "positive_logit": _mean(jnp.diagonal(logits), both),
        "negative_logit": _mean(logits, negative),
    }
