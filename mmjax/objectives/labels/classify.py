"""Classification by labels that come with the batch: of one input, or of several that a fusion has read."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Shaped

from mmjax.errors import UserError, not_among
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import AnyView, Context, entry, selected, valid
from mmjax.objectives.head import hidden_layer, linear_head
from mmjax.objectives.labels.reads import check_reads, has_label, views_of
from mmjax.objectives.numerics import at_least_fp32, weighted_mean

LOSSES = ("softmax", "sigmoid")


class Judged(NamedTuple):
    """The sums of each example."""

    logits: Float[Array, "b c"]
    loss: Float[Array, " b"]
    weight: Float[Array, " b"]
    """By which the example counts in the mean: its class's weight."""
    hit: Float[Array, " b"]
    """With `softmax` 1 where the best class is (one of) the label's largest; with `sigmoid` the share of classes on the
    right side of one half."""


class Classify(nn.Module):
    """Predicts a label from an embedding: a linear map, or an MLP, and cross-entropy.

    The label is an entry of the batch (`mmjax.data.Label`): class numbers int32 `[B]`, or targets float32 `[B, C]`:
    one hot or several, or shares (VQA's soft answers; with `softmax` they are divided by their sum). Examples without
    the label don't count, nor those without any input; one that lacks some is fused from the others. Metrics, besides
    the loss: `accuracy` (with `sigmoid` the share of decisions that are right, over all classes).

    Attributes:
        label: the batch's entry.
        classes: their number C.
        inputs: what is read: one input's embedding by its tower, or those that the fusion reads.
        fusion: one of the experiment's fusions, whose embedding is read; None: that of the one input.
        loss: `softmax`, one class is right; `sigmoid`, each class for itself, summed over the classes (VQA, tags).
        hidden: the width of a hidden layer with LayerNorm and GELU before the last map (ViLT's head for VQA: twice the
            embedding's); None: there is none.
        label_smoothing: softmax only: the part of the target that is spread evenly over all classes.
        class_weights: of each class; with `softmax` an example counts by its class's weight (by the target's mean
            weight, where that is a share), with `sigmoid` each class's term by its own.
        decisions: True where the fusion's embedding is the logits already (`Late`): there is no map then.
    """

    label: str
    classes: int
    inputs: tuple[str, ...]
    fusion: str | None = None
    loss: Literal["softmax", "sigmoid"] = "softmax"
    hidden: int | None = None
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    decisions: bool = False

    def views(self) -> tuple[AnyView, ...]:
        return views_of(self.inputs, self.fusion)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where a field is out of its range, or the data has no such label."""
        if self.loss not in LOSSES:
            raise UserError(not_among(f"{path}.loss", self.loss, LOSSES))
        if self.class_weights is not None and len(self.class_weights) != self.classes:
            raise UserError(f"{path}.class_weights has {len(self.class_weights)} weights for classes={self.classes}")
        if not 0 <= self.label_smoothing < 1 or (self.label_smoothing and self.loss == "sigmoid"):
            raise UserError(
                f"{path}.label_smoothing={self.label_smoothing} must be from 0 to below 1, and 0 with loss='sigmoid'"
            )
        check_reads(path, self.inputs, self.fusion, self.label, inputs, "Label")
        given = inputs[self.label]
        if given.shape not in ((), (self.classes,)) or (given.shape == ()) != (given.dtype == "int32"):
            raise UserError(
                f"{path} learns the label {self.label!r} of classes={self.classes}, and data.transforms gives {given}: "
                f"it is int32[] or float32[{self.classes}]"
            )

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Judged:
        logits = self.predict(encoded, batch, context)
        there = valid(batch, self.label)
        return self.judged(logits, selected(there, entry(batch, self.label)))

    @nn.compact
    def predict(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Float[Array, "b c"]:
        """The logits of the classes, from what is read alone."""
        x = at_least_fp32(encoded[self.views()[0]].embedding)
        if not self.decisions:
            x = x if self.hidden is None else hidden_layer(x, self.hidden)
            x = linear_head(x, self.classes, "classes")
        if x.shape[-1] != self.classes:
            raise UserError(
                f"decisions=True reads an embedding of {x.shape[-1]} numbers as classes={self.classes}: set both alike"
            )
        return x

    def judged(self, logits: Float[Array, "b c"], label: Shaped[Array, "b *c"]) -> Judged:
        """The sums of each example from its logits and its label."""
        weights = jnp.ones(self.classes) if self.class_weights is None else jnp.asarray(self.class_weights)
        hot = jax.nn.one_hot(label, self.classes) if label.ndim == 1 else at_least_fp32(label)
        if self.loss == "sigmoid":
            each = optax.sigmoid_binary_cross_entropy(logits, hot)
            right = (logits > 0) == (hot >= 0.5)
            return Judged(logits, each @ weights, jnp.ones(len(logits)), jnp.mean(right, axis=1, dtype=jnp.float32))
        share = hot / jnp.maximum(hot.sum(axis=1, keepdims=True), 1e-12)
        weight = share @ weights
        smoothed = (1 - self.label_smoothing) * share + self.label_smoothing / self.classes
        best = jnp.take_along_axis(hot, jnp.argmax(logits, axis=1)[:, None], axis=1)[:, 0]
        hit = (best > 0) & (best == hot.max(axis=1))
        loss = optax.softmax_cross_entropy(logits, smoothed) * weight
        return Judged(logits, loss, weight, hit.astype(jnp.float32))

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the examples that have the label and at least one of the inputs."""
        return has_label(batch, self.label, self.inputs)

    def batch_loss(self, outputs: Judged, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        rows = self.counted(batch)
        total, weight = (jnp.sum(jnp.where(rows, x, 0)) for x in (outputs.loss, outputs.weight))
        loss = total / jnp.where(weight > 0, weight, 1)
        return loss, {"accuracy": weighted_mean(outputs.hit, jnp.ones_like(outputs.hit), rows)}
