"""Computes the contrastive loss between two modalities: softmax (CLIP) or sigmoid (SigLIP).

The functions here are dense: they hold every pair of the batch, and are the reference of `ring`, which does not.
"""

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError, nearest
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import Context, View, selected, valid
from mmjax.objectives.contrastive import ring
from mmjax.objectives.contrastive.tile import Rows
from mmjax.objectives.demands import check_embedding_sizes
from mmjax.objectives.encoded import Encoded
from mmjax.objectives.masking import Masking
from mmjax.objectives.numerics import at_least_fp32, unit

DENSE_PAIRS = 2048**2  # up to this many pairs one device holds them all: faster, and 17 MB a matrix


class PublishedScale(NamedTuple):
    """The initial scale and bias, and the scale's bound, of a paper."""

    scale_init: float
    scale_max: float
    bias_init: float


PUBLISHED = {
    "softmax": PublishedScale(scale_init=1 / 0.07, scale_max=100.0, bias_init=0.0),  # arXiv:2103.00020, section 2.5
    "sigmoid": PublishedScale(scale_init=10.0, scale_max=math.inf, bias_init=-10.0),  # arXiv:2303.15343, section 3.2
}


class Contrastive(nn.Module):
    """Pulls the two embeddings of an example together and those of different examples apart.

    Every pair of the global batch is used, on any mesh. Metrics, besides the loss: `logit_scale`, `positive_logit` and
    `negative_logit` (means over the counted pairs), `accuracy` (how often a right partner has a higher logit than every
    wrong one, mean of both directions), `nonfinite/<modality>` (how many valid rows have an embedding that is not
    finite); for softmax also the two directions' losses, `loss_forward` (pair[0] are the queries, pair[1] the
    candidates) and `loss_backward`; for sigmoid `logit_bias`.

    Attributes:
        pair: the two inputs that are compared.
        towers: the tower of an input, by its name, where that isn't the tower of the same name: two texts may share
            one.
        loss: "softmax" (symmetric InfoNCE: CLIP, arXiv:2103.00020) or "sigmoid" (SigLIP, arXiv:2303.15343).
        masking: by modality, the masked view to read instead of the whole (FLIP, arXiv:2212.00794). A masked objective
            that reads an equal view shares the encoding.
        scale_init: the logits' first scale; None: the paper's, 1/0.07 for softmax and 10 for sigmoid.
        scale_max: the scale is clipped here; None: the paper's, 100 for softmax and no clip (inf) for sigmoid.
        bias_init: the first logit bias, sigmoid only; None: the paper's -10.
        label_smoothing: softmax only; the part of the target spread evenly over all candidates.
        direction: softmax only; "forward" or "backward": the loss is that direction's alone (CAV-MAE, arXiv:2210.07839,
            chooses among sounds for each picture). "both": the mean of both.
        partners: "row": row i of one modality belongs to row i of the other. "id": all rows of the same example do (its
            `id` in the batch): for batches in which an image comes several times, each time with another caption.
        method: "dense" holds the matrix of all pairs; "ring" never holds more than a tile of it, and on a mesh no more
            than the device's own rows and one chunk of columns. "auto": the ring on a mesh that cuts the batch, and
            where there are more pairs than 2,048 by 2,048. All give the same loss and gradient.
        tile: of the ring: rows and columns of a tile; None: 512, or half of a device's rows if that is less.
    """

    pair: tuple[str, str]
    loss: Literal["softmax", "sigmoid"] = "softmax"
    masking: Mapping[str, Masking] = field(default_factory=dict)
    scale_init: float | None = None
    scale_max: float | None = None
    bias_init: float | None = None
    label_smoothing: float = 0.0
    partners: Literal["row", "id"] = "row"
    method: Literal["auto", "dense", "ring"] = "auto"
    tile: int | None = None
    towers: Mapping[str, str] = field(default_factory=dict)
    direction: Literal["both", "forward", "backward"] = "both"

    def setup(self) -> None:
        self._check()
        published = PUBLISHED[self.loss]
        scale_init = published.scale_init if self.scale_init is None else self.scale_init
        self.log_scale = self.param("log_scale", nn.initializers.constant(math.log(scale_init)), (), jnp.float32)
        if self.loss == "sigmoid":
            bias_init = published.bias_init if self.bias_init is None else self.bias_init
            self.bias = self.param("bias", nn.initializers.constant(bias_init), (), jnp.float32)

    def views(self) -> tuple[View, ...]:
        return tuple(View(name, self.masking.get(name), self.towers.get(name)) for name in self.pair)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where the towers' embeddings are of two sizes."""
        check_embedding_sizes(path, self.views(), towers)

    def per_example(
        self, encoded: Mapping[View, Encoded], batch: Mapping[str, Array], context: Context
    ) -> tuple[Float[Array, "b e"], Float[Array, "b e"]]:
        """The pair's unit vectors `[B,E]`, in fp32 at least; zeros where an example isn't valid."""
        a, b = (unit(selected(valid(batch, view.input), encoded[view].embedding)) for view in self.views())
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
        group = self._group(batch)
        if self._by_ring(a, b):
            sides = Rows(a, a_valid, group), Rows(b, b_valid, group)
            extra: dict[str, Any] = {"label_smoothing": self.label_smoothing, "tile": self.tile}
            extra["direction"] = self.direction
            loss, metrics = ring.ring_loss(*sides, scale, self.bias if self.loss == "sigmoid" else None, **extra)
        elif self.loss == "softmax":
            loss, metrics = softmax_loss(a, b, scale, a_valid, b_valid, self.label_smoothing, group, group)
            loss = loss if self.direction == "both" else metrics[f"loss_{self.direction}"]
        else:
            loss, metrics = sigmoid_loss(a, b, scale, self.bias, a_valid, b_valid, group, group)
        if self.loss == "sigmoid":
            metrics["logit_bias"] = self.bias
        for modality, vectors, rows in zip(self.pair, outputs, (a_valid, b_valid), strict=True):
            metrics[f"nonfinite/{modality}"] = jnp.sum(rows & ~jnp.isfinite(vectors).all(axis=1))
        return loss, metrics | {"logit_scale": scale}

    def _by_ring(self, a: Float[Array, "b e"], b: Float[Array, "b e"]) -> bool:
        if self.method != "auto":
            return self.method == "ring"
        if ring.mesh_parts()[1] > 1:
            return True
        ring.check_whole(a, b)
        return len(a) * len(b) > DENSE_PAIRS

    def _group(self, batch: Mapping[str, Array]) -> Int[Array, " b"]:
        """The group of each row; rows of the same group are partners: the row's own place, or the first place of its
        example.
        """
        rows = len(valid(batch, self.pair[0]))
        if self.partners == "row":
            return jnp.arange(rows)
        if "id" not in batch:
            raise UserError(f"Contrastive(partners='id') needs 'id', which the batch lacks; it has {sorted(batch)}")
        _, group = jnp.unique(batch["id"], axis=0, return_inverse=True, size=rows)
        return group.reshape(-1)

    def _check(self) -> None:
        if len(self.pair) != 2 or self.pair[0] == self.pair[1]:
            raise UserError(f"Contrastive(pair={self.pair}): a pair is two different modalities")
        if self.loss not in PUBLISHED:
            raise UserError(
                f"Contrastive(loss={self.loss!r}): the losses are {', '.join(PUBLISHED)}{nearest(self.loss, PUBLISHED)}"
            )
        for name, by in (("masking", self.masking), ("towers", self.towers)):
            for input in by:
                if input not in self.pair:
                    raise UserError(
                        f"Contrastive({name}={{{input!r}: ...}}): the pair is {self.pair}{nearest(input, self.pair)}"
                    )
        unread = {"softmax": ("bias_init", None), "sigmoid": ("label_smoothing", 0.0)}[self.loss]
        if getattr(self, unread[0]) != unread[1]:
            raise UserError(
                f"Contrastive({unread[0]}={getattr(self, unread[0])}): the {self.loss} loss has none; leave it out"
            )
        if self.loss != "softmax" and self.direction != "both":
            raise UserError(f"Contrastive(direction={self.direction!r}): the {self.loss} loss has none; leave it out")
        choices = {
            "partners": ("row", "id"),
            "method": ("auto", "dense", "ring"),
            "direction": ("both", "forward", "backward"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"Contrastive({name}={getattr(self, name)!r}): it is {' or '.join(map(repr, allowed))}")
        if self.tile is not None and (self.tile < 1 or self.method == "dense"):
            raise UserError(f"Contrastive(tile={self.tile}, method={self.method!r}): a tile is at least 1, of the ring")
        for name in ("scale_init", "scale_max"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise UserError(f"Contrastive({name}={getattr(self, name)}): a scale is above 0")


def softmax_loss(
    a: Float[Array, "n e"],
    b: Float[Array, "m e"],
    scale: Float[Array, ""],
    a_valid: Bool[Array, " n"],
    b_valid: Bool[Array, " m"],
    label_smoothing: float = 0.0,
    a_group: Int[Array, " n"] | None = None,
    b_group: Int[Array, " m"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Symmetric InfoNCE, of all pairs at once: half of a's cross-entropy over b plus half of b's over a.

    `-s a_i.b_i + logsumexp_j(s a_i.b_j)`, averaged over the rows i that have a partner; the candidates j are all rows
    of the other side that are valid. With several partners the first term is the mean over them (arXiv:2004.11362,
    L_out). 0 (and gradients of 0) where no row has a partner.

    Args:
        a, b: unit vectors.
        scale: the logits' scale s (not its logarithm).
        a_valid, b_valid: masks of the rows that take part.
        label_smoothing: the part of the target spread evenly over all candidates.
        a_group, b_group: rows of the same group are partners; a negative group has none (further negatives). None: row
            i of one belongs to row i of the other, and the rest of the longer side are further negatives.
    """
    a, b = _zeroed(a, a_valid), _zeroed(b, b_valid)
    logits = scale * _cosines(a, b)
    positive, counts = _pairs(a_valid, b_valid, a_group, b_group)

    def cross_entropy(
        logits: Float[Array, "n m"], positive: Bool[Array, "n m"], candidate: Bool[Array, " m"]
    ) -> Float[Array, ""]:
        partners = positive.sum(axis=1)
        normaliser = jax.nn.logsumexp(_only(candidate, logits), axis=1)
        evenly = jnp.sum(jnp.where(candidate, logits, 0), axis=1) / jnp.maximum(candidate.sum(), 1)
        attract = jnp.sum(jnp.where(positive, logits, 0), axis=1) / jnp.maximum(partners, 1)
        target = (1 - label_smoothing) * attract + label_smoothing * evenly
        return _mean(normaliser - target, partners > 0)

    forward, backward = cross_entropy(logits, positive, b_valid), cross_entropy(logits.T, positive.T, a_valid)
    metrics = {"loss_forward": forward, "loss_backward": backward}
    return (forward + backward) / 2, metrics | _logit_metrics(logits, positive, counts)


def sigmoid_loss(
    a: Float[Array, "n e"],
    b: Float[Array, "m e"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    a_valid: Bool[Array, " n"],
    b_valid: Bool[Array, " m"],
    a_group: Int[Array, " n"] | None = None,
    b_group: Int[Array, " m"] | None = None,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """`-(1/n) sum_ij log sigmoid(y_ij z_ij)`, `z = s a_i.b_j + bias`, y = 1 for partners and -1 elsewhere.

    The sum runs over all pairs of valid rows; n is the number of positive pairs (with all valid, and one partner each:
    B, so a sum over columns and a mean over rows). Rows without partner are thus further negatives. 0 (and gradients of
    0) where there is no positive pair. Groups: as in `softmax_loss`.
    """
    a, b = _zeroed(a, a_valid), _zeroed(b, b_valid)
    logits = scale * _cosines(a, b) + bias
    positive, counts = _pairs(a_valid, b_valid, a_group, b_group)
    # Summed separately, row by row: a negative starts at 4.5e-5, which is lost in an fp32 sum with the positives' 10s.
    positives = jnp.where(positive, -jax.nn.log_sigmoid(logits), 0).sum(axis=1)
    negatives = jnp.where(counts & ~positive, -jax.nn.log_sigmoid(-logits), 0).sum(axis=1)
    n = positive.sum()
    loss = jnp.where(n > 0, (positives.sum() + negatives.sum()) / jnp.maximum(n, 1), 0)
    return loss, _logit_metrics(logits, positive, counts)


@jax.custom_vjp
def at_most(x: Float[Array, ""], limit: float) -> Float[Array, ""]:
    """Computes `min(x, limit)`, with a gradient that can lower `x` again.

    `jnp.minimum` has a gradient of 0 above the limit, so a parameter that once overshoots stays there for ever. CLIP
    clamps the parameter itself after each update, which a pure loss can't. Here the gradient passes at and below the
    limit, and above it only where descent lowers x, so that x can't drift further up.
    """
    return jnp.minimum(x, limit)


def _at_most_forward(x: Float[Array, ""], limit: float) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    return jnp.minimum(x, limit), x > limit


def _at_most_backward(above: Bool[Array, ""], gradient: Float[Array, ""]) -> tuple[Float[Array, ""], None]:
    return jnp.where(above, jnp.maximum(gradient, 0), gradient), None


at_most.defvjp(_at_most_forward, _at_most_backward)


def _cosines(a: Float[Array, "b e"], b: Float[Array, "b e"]) -> Float[Array, "b b"]:
    """The cosines a_i.b_j, in full fp32: an accelerator's default rounds to bf16, and the scale makes an error of 1e-3
    into 0.1.
    """
    return jnp.einsum("ie,je->ij", at_least_fp32(a), at_least_fp32(b), precision=jax.lax.Precision.HIGHEST)


def _only(candidate: Bool[Array, " b"], logits: Float[Array, "b b"]) -> Float[Array, "b b"]:
    """The logits, with a very low number in all but the candidates' columns (finite: with no candidate too)."""
    return jnp.where(candidate, logits, jnp.finfo(logits.dtype).min / 2)


def _mean(x: Float[Array, "*shape"], weight: Bool[Array, "*shape"]) -> Float[Array, ""]:
    """The mean of the values with weight; 0 where there are none. Selected, not multiplied: a NaN without weight has no
    effect.
    """
    return jnp.sum(jnp.where(weight, x, 0)) / jnp.maximum(weight.sum(), 1)


def _zeroed(x: Float[Array, "b e"], valid: Bool[Array, " b"]) -> Float[Array, "b e"]:
    """Sets rows that take no part to zero: in the gradient their values would be multiplied by 0, and 0 NaN is NaN."""
    return jnp.where(valid[:, None], x, 0)


def _pairs(
    a_valid: Bool[Array, " n"],
    b_valid: Bool[Array, " m"],
    a_group: Int[Array, " n"] | None,
    b_group: Int[Array, " m"] | None,
) -> tuple[Bool[Array, "n m"], Bool[Array, "n m"]]:
    """Masks of the positive pairs, and of all pairs that count."""
    a_group = jnp.arange(len(a_valid)) if a_group is None else a_group
    b_group = jnp.arange(len(b_valid)) if b_group is None else b_group
    counts = a_valid[:, None] & b_valid
    return counts & (a_group[:, None] == b_group) & (a_group >= 0)[:, None], counts


def _logit_metrics(
    logits: Float[Array, "n m"], positive: Bool[Array, "n m"], counts: Bool[Array, "n m"]
) -> dict[str, Array]:
    logits, negative = jax.lax.stop_gradient(logits), counts & ~positive
    lowest = jnp.finfo(logits.dtype).min

    def hits(axis: int) -> Float[Array, ""]:
        right, wrong = (jnp.max(logits, axis, where=pairs, initial=lowest) for pairs in (positive, negative))
        return _mean(right > wrong, positive.any(axis))

    return {
        "accuracy": (hits(1) + hits(0)) / 2,
        "positive_logit": _mean(logits, positive),
        "negative_logit": _mean(logits, negative),
    }
