"""Masked modelling of regions: predicts what a detector gave for those whose features are hidden (LXMERT: Tan and
Bansal 2019, arXiv:1908.07490, section 3.1.2; ViLBERT: Lu et al. 2019, arXiv:1908.02265, section 3.2)."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Shaped

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.beside import check_beside, own_part, read_beside
from mmjax.objectives.contract import Context, Fused, View, entry, valid
from mmjax.objectives.encoded import EncodedRegions
from mmjax.objectives.head import linear_head, transformed
from mmjax.objectives.masking_regions import CorruptRegions
from mmjax.objectives.numerics import at_least_fp32, weighted_mean

CONFIDENCE = "_confidence"
FEATURES = "features"  # the name of the regression, in metrics


class TargetSums(NamedTuple):
    """The sums of each picture for one target."""

    loss: Float[Array, " b"]
    weight: Float[Array, " b"]
    """By which the sum over all pictures is divided."""
    hits: Float[Array, " b"]
    """Of the chosen regions those whose class is found; 0 for features, which have no class."""
    count: Float[Array, " b"]
    """The chosen regions that have a class."""


class MaskedRegions(nn.Module):
    """Predicts features and classes of the regions whose features are hidden from the encoder (`CorruptRegions`).

    The head is a dense layer, GELU and a LayerNorm, which all targets share, and a linear map to each. The loss is the
    sum over targets of a mean over all chosen regions of the batch: of features the smooth L1 distance (Huber's, with a
    delta of 1), averaged over a region's; of a class the cross-entropy; of a distribution over classes, which is the
    detector's, the Kullback-Leibler divergence to it. A picture that lacks what is read beside it counts, by its
    regions alone. Metrics, besides the loss: `loss/<target>`, and `accuracy/<target>` of classes, over the chosen
    regions (of a distribution: whether its largest class is found).

    The batch has a class as `<modality>_<name>`: numbers int32 `[B, N]`, -1 where there is none, perhaps with
    `<modality>_<name>_confidence`, float32 `[B, N]`, by which a region's loss is multiplied; or a distribution float32
    `[B, N, C]`. `mmjax.data.ReadRegions` reads them.

    Attributes:
        features: whether the features are predicted.
        classes: the number of classes of each target by its name, `{"objects": 1_600, "attributes": 400}`.
        rate, zeroed, other: see `mmjax.objectives.CorruptRegions`.
        everywhere: whether classes are learned from all regions, hidden or not, and every sum divided by `rate` times
            the number of all regions rather than by that of the chosen (LXMERT's code).
        norm_eps: of the head's LayerNorm.
        modality: the regions.
        fusion: one of the experiment's fusions, whose tokens of the regions the head reads; None: the tower's.
        beside: what the fusion reads beside the regions, whole: `("text",)`.
    """

    features: bool = False
    classes: Mapping[str, int] = field(default_factory=dict)
    rate: float = 0.15
    zeroed: float = 0.9
    other: float = 0.0
    everywhere: bool = False
    norm_eps: float = 1e-6
    modality: str = "regions"
    fusion: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def corrupt(self) -> CorruptRegions:
        """The masking of the regions."""
        return CorruptRegions(rate=self.rate, zeroed=self.zeroed, other=self.other)

    def views(self) -> tuple[View | Fused, ...]:
        regions = View(self.modality, self.corrupt)
        return (regions,) if self.fusion is None else (Fused(self.fusion, read_beside(regions, self.beside)),)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where nothing is to be predicted, the data lacks a target, the tower's features can't be
        replaced, or nothing is there for the fusion to read."""
        check_beside(path, self)
        if not self.features and not self.classes:
            raise UserError(f"{path} predicts nothing: set features=True, or classes={{'objects': 1_600}}, say")
        if FEATURES in self.classes:
            raise UserError(f"{path}.classes has {FEATURES!r}, which is what features=True predicts: name it otherwise")
        labels = inputs[self.modality].labels
        if lacking := [name for name in self.classes if name not in labels]:
            raise UserError(
                f"{path} learns {lacking[0]!r} of regions, and the chain of {self.modality!r} gives "
                f"{', '.join(labels) or 'no labels'}: let ReadRegions(classes={{{lacking[0]!r}: ...}}) read it"
            )
        tower = View(self.modality).by
        if not hasattr(towers[tower], "with_patches"):
            raise UserError(
                f"{path} hides features of regions, and towers.{tower} is a {type(towers[tower]).__name__}, which "
                "takes no others in their place: take Regions(...)"
            )

    @nn.compact
    def per_example(
        self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context
    ) -> dict[str, TargetSums]:
        view: EncodedRegions = own_part(self, encoded)
        x = transformed(view.tokens[:, view.prefix :], self.norm_eps)
        sums: dict[str, TargetSums] = {}
        if self.features:
            target = jax.lax.stop_gradient(at_least_fp32(view.features))
            predicted = linear_head(x, target.shape[-1], FEATURES)
            losses = jnp.mean(optax.huber_loss(predicted, target), axis=-1)
            nothing = jnp.zeros_like(view.chosen)
            sums[FEATURES] = self._summed(losses, view.chosen, view, nothing, nothing)
        for name, count in self.classes.items():
            logits = linear_head(x, count, name)
            given = entry(batch, f"{self.modality}_{name}")
            if given.ndim == 2:
                confidence = batch.get(f"{self.modality}_{name}{CONFIDENCE}")
                losses, hits, there = _of_classes(logits, given, confidence)
            else:
                losses, hits, there = _of_distribution(logits, given)
            learned = view.real if self.everywhere else view.chosen
            sums[name] = self._summed(losses, learned & there, view, hits, there)
        return sums

    def _summed(
        self,
        losses: Float[Array, "b n"],
        learned: Bool[Array, "b n"],
        view: EncodedRegions,
        hits: Bool[Array, "b n"],
        there: Bool[Array, "b n"],
    ) -> TargetSums:
        """learned: the regions whose loss counts; there: those that have a class."""
        total = jnp.where(learned, losses, 0).sum(axis=1)
        weight = self.rate * view.real.sum(axis=1) if self.everywhere else learned.sum(axis=1)
        judged = view.chosen & there
        sums = (weight, (judged & hits).sum(axis=1), judged.sum(axis=1))
        return TargetSums(total, *(x.astype(total.dtype) for x in sums))

    def batch_loss(
        self, outputs: dict[str, TargetSums], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        rows = valid(batch, self.modality)
        loss, metrics = jnp.zeros(()), {}
        for name, sums in outputs.items():
            # A part of a region may be what `everywhere` divides by: less than one.
            total, weight = (jnp.sum(jnp.where(rows, x, 0)) for x in (sums.loss, sums.weight))
            metrics[f"loss/{name}"] = total / jnp.where(weight > 0, weight, 1)
            loss += metrics[f"loss/{name}"]
            if name != FEATURES:
                metrics[f"accuracy/{name}"] = weighted_mean(sums.hits, sums.count, rows)
        return loss, metrics


_Judged = tuple[Float[Array, "b n"], Bool[Array, "b n"], Bool[Array, "b n"]]


def _of_classes(
    logits: Float[Array, "b n c"], classes: Shaped[Array, "b n"], confidence: Float[Array, "b n"] | None
) -> _Judged:
    """Each region's cross-entropy times its confidence, whether its class is found, and whether it has one."""
    there = classes >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(classes, 0))
    losses = losses if confidence is None else losses * confidence
    return losses, jnp.argmax(logits, axis=-1) == classes, there


def _of_distribution(logits: Float[Array, "b n c"], shares: Float[Array, "b n c"]) -> _Judged:
    """Each region's KL(shares || softmax(logits)), whether the largest share's class is found, and whether there are
    shares at all."""
    shares = at_least_fp32(shares)
    entropy = -jnp.sum(jax.scipy.special.xlogy(shares, shares), axis=-1)
    losses = optax.softmax_cross_entropy(logits, shares) - entropy
    return losses, jnp.argmax(logits, axis=-1) == jnp.argmax(shares, axis=-1), jnp.any(shares > 0, axis=-1)
