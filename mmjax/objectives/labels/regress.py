"""Regression: numbers that come with the batch, from one input, or from several that a fusion has read."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError, not_among
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import AnyView, Context, entry, selected, valid
from mmjax.objectives.head import hidden_layer, linear_head
from mmjax.objectives.labels.reads import check_reads, has_label, views_of
from mmjax.objectives.numerics import at_least_fp32

ERRORS = ("l2", "l1", "huber")


class Regressed(NamedTuple):
    """Each example's prediction and what it should be, in the label's own units, and its loss."""

    prediction: Float[Array, "b t"]
    label: Float[Array, "b t"]
    loss: Float[Array, " b"]


class Regress(nn.Module):
    """Predicts numbers from an embedding: a linear map, or an MLP.

    The label is an entry of the batch, float32 `[B, T]` (`mmjax.data.Numbers`). Examples without the label don't count,
    nor those without any input; one that lacks some is fused from the others. The loss is that of (label - offset) /
    scale, the mean over the T targets and the examples. Metrics, besides the loss, in the label's units and of the
    batch: `mae` and `rmse`, over all targets, and `r2`, the coefficient of determination, the mean over targets (0 for
    one that is the same in all examples).

    Attributes:
        label: the batch's entry.
        inputs: what is read: one input's embedding by its tower, or those that the fusion reads.
        targets: the number T of numbers.
        fusion: one of the experiment's fusions, whose embedding is read; None: that of the one input.
        loss: `l2`, the squared error; `l1`, the absolute one; `huber` (Huber 1964), half the square up to `delta`, and
            beyond it linear.
        delta: of huber, in scaled units.
        offset, scale: by which labels are standardised, one for all targets or one each: their mean and standard
            deviation in training, say.
        hidden: the width of a hidden layer with LayerNorm and GELU before the last map; None: there is none.
    """

    label: str
    inputs: tuple[str, ...]
    targets: int = 1
    fusion: str | None = None
    loss: Literal["l2", "l1", "huber"] = "l2"
    delta: float = 1.0
    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    hidden: int | None = None

    def views(self) -> tuple[AnyView, ...]:
        return views_of(self.inputs, self.fusion)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where a field is out of its range, or the data has no such label."""
        if self.loss not in ERRORS:
            raise UserError(not_among(f"{path}.loss", self.loss, ERRORS))
        if not self.delta > 0:
            raise UserError(f"{path}.delta={self.delta} must be above 0: there the loss becomes linear")
        for name in ("offset", "scale"):
            if len(getattr(self, name)) not in (1, self.targets):
                raise UserError(
                    f"{path}.{name} has {len(getattr(self, name))} numbers for targets={self.targets}: give one for "
                    "all, or one each"
                )
        if not all(each > 0 for each in self.scale):
            raise UserError(f"{path}.scale={self.scale} must be above 0: labels are divided by it")
        check_reads(path, self.inputs, self.fusion, self.label, inputs, "Numbers")
        given = inputs[self.label]
        if (given.shape, given.dtype) != ((self.targets,), "float32"):
            raise UserError(
                f"{path} learns the label {self.label!r} of targets={self.targets}, and data.transforms gives {given}: "
                f"it is float32[{self.targets}]"
            )

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Regressed:
        prediction = self.predict(encoded, batch, context)
        return self.judged(prediction, selected(valid(batch, self.label), entry(batch, self.label)))

    @nn.compact
    def predict(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Float[Array, "b t"]:
        """The numbers, in the label's units, from what is read alone."""
        x = at_least_fp32(encoded[self.views()[0]].embedding)
        x = x if self.hidden is None else hidden_layer(x, self.hidden)
        return linear_head(x, self.targets, "numbers") * jnp.asarray(self.scale) + jnp.asarray(self.offset)

    def judged(self, prediction: Float[Array, "b t"], label: Float[Array, "b t"]) -> Regressed:
        """Each example's loss from its prediction and its label, both in the label's units."""
        label = at_least_fp32(label)
        error = (prediction - label) / jnp.asarray(self.scale)
        if self.loss == "huber":
            losses = optax.huber_loss(error, delta=self.delta)
        else:
            losses = jnp.square(error) if self.loss == "l2" else jnp.abs(error)
        return Regressed(prediction, label, losses.mean(axis=1))

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the examples that have the label and at least one of the inputs."""
        return has_label(batch, self.label, self.inputs)

    def batch_loss(self, outputs: Regressed, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        rows = self.counted(batch)
        count = jnp.maximum(rows.sum(), 1)
        prediction, label = (jnp.where(rows[:, None], x, 0) for x in (outputs.prediction, outputs.label))
        squares = jnp.sum(jnp.square(prediction - label), axis=0)
        away = jnp.where(rows[:, None], label - label.sum(axis=0) / count, 0)
        spread = jnp.sum(jnp.square(away), axis=0)
        r2 = jnp.where(spread > 0, 1 - squares / jnp.where(spread > 0, spread, 1), 0)
        metrics = {
            "mae": jnp.abs(prediction - label).sum() / (count * self.targets),
            "rmse": jnp.sqrt(squares.sum() / (count * self.targets)),
            "r2": r2.mean(),
        }
        return jnp.sum(jnp.where(rows, outputs.loss, 0)) / count, metrics
