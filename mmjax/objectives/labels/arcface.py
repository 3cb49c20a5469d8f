"""Classification with an angular margin, for embeddings that are compared afterwards (ArcFace)."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import Context
from mmjax.objectives.head import hidden_layer
from mmjax.objectives.labels.classify import Classify, Judged
from mmjax.objectives.numerics import at_least_fp32, unit


class ArcFace(Classify):
    """Predicts a class by the cosines of the embedding with a vector of each class, and makes it harder for the right
    one in training (Deng et al. 2018, arXiv:1801.07698): its logit is `scale * (cos(angle + margin) - cosine_margin)`.

    The embedding is normalised, so embeddings of one class end up near each other: for retrieval, kNN, and classes that
    training never saw. Where angle + margin would pass pi the logit goes on in a straight line, as in the authors'
    code. `predict` has no margin, nor have the metrics. The rest is `Classify`'s, with one class an example.

    Attributes:
        scale: of the logits.
        margin: in radians. cosine_margin: CosFace's (Wang et al. 2018, arXiv:1801.09414), with `margin=0`.
    """

    scale: float = 64.0
    margin: float = 0.5
    cosine_margin: float = 0.0

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where a field is out of its range, or the data has no such label."""
        super().check_parts(path, towers, inputs)
        if self.loss != "softmax" or self.decisions or inputs[self.label].shape != ():
            raise UserError(
                f"{path} is an ArcFace with loss={self.loss!r}, decisions={self.decisions} and the label "
                f"{self.label!r} of {inputs[self.label]}: it takes loss='softmax', decisions=False and a label int32[]"
            )
        if not self.scale > 0 or not 0 <= self.margin < math.pi / 2 or self.cosine_margin < 0:
            raise UserError(
                f"{path} has scale={self.scale}, margin={self.margin} and cosine_margin={self.cosine_margin}: a scale "
                "is above 0, a margin from 0 to below pi / 2 (in radians), a cosine_margin at least 0"
            )

    @nn.compact
    def predict(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Float[Array, "b c"]:
        """The scaled cosines with each class's vector."""
        x = at_least_fp32(encoded[self.views()[0]].embedding)
        x = x if self.hidden is None else hidden_layer(x, self.hidden)
        init = nn.with_logical_partitioning(nn.initializers.normal(0.01), (None, "embed"))
        table: Any = self.param("prototypes", init, (self.classes, x.shape[-1]), jnp.float32)
        cosines = jnp.einsum("be,ce->bc", unit(x), unit(table), precision=jax.lax.Precision.HIGHEST)
        return self.scale * cosines

    def judged(self, logits: Float[Array, "b c"], label: Shaped[Array, "b *c"]) -> Judged:
        """The sums of each example from its logits, without the margin, and its label."""
        cosine = logits / self.scale
        sine = jnp.sqrt(jnp.maximum(1 - jnp.square(cosine), 1e-12))  # its gradient stays finite
        moved = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - math.sin(self.margin) * self.margin
        moved = jnp.where(cosine > -math.cos(self.margin), moved, beyond) - self.cosine_margin
        right = jax.nn.one_hot(label, self.classes, dtype=bool)
        harder = super().judged(jnp.where(right, self.scale * moved, logits), label)
        return super().judged(logits, label)._replace(loss=harder.loss)
