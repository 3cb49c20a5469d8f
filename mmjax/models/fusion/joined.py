"""Layers over all inputs together: a Dense over their concatenation, kept as one product for each input, and the
layers that follow."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.errors import UserError, not_among
from mmjax.models.fusion.embeddings import Entered
from mmjax.models.layers.activations import ACTIVATIONS, ActivationName
from mmjax.models.layers.parameters import DtypeName, dense, parameter, projection_init


class JoinedDense(nn.Module):
    """A Dense over the concatenation of the inputs' embeddings, as the sum of a product for each input, `from_<input>`:
    the same function and, by its initialiser, the same random start. An input that is missing adds nothing.
    """

    features: int
    bias: bool = True
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(self, inputs: Mapping[str, Entered]) -> Float[Array, "b f"]:
        init = projection_init(sum(x.shape[-1] for x, _ in inputs.values()), self.features)
        y = jnp.zeros((), self.dtype)
        for name, (x, _) in inputs.items():
            product = dense(self.features, ("embed", "mlp"), init, dtype=self.dtype, bias=False, name=f"from_{name}")
            y += product(x)
        if self.bias:
            y += parameter(self, "bias", nn.initializers.zeros, ("mlp",), (self.features,)).astype(self.dtype)
        return y


class FollowingLayers(nn.Module):
    """The layers of an MLP behind its first one: of each width in turn an activation, then a Dense.

    Raises UserError where there is no such activation.
    """

    widths: tuple[int, ...]
    activation: ActivationName = "gelu"
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b e"]:
        if self.activation not in ACTIVATIONS:
            raise UserError(not_among("activation", self.activation, ACTIVATIONS))
        before, after = "mlp", "embed"  # they alternate: the next layer takes in the axis that this one gives
        for place, width in enumerate(self.widths):
            init = projection_init(x.shape[-1], width)
            layer = dense(width, (before, after), init, dtype=self.dtype, name=f"layer_{place}")
            x = layer(ACTIVATIONS[self.activation](x))
            before, after = after, before
        return x
