"""Heads behind an embedding or tokens, by which an objective predicts: a linear map, and BERT's layers before it."""

import flax.linen as nn
from jaxtyping import Array, Float

from mmjax.objectives.numerics import at_least_fp32

HEAD_INIT = nn.initializers.truncated_normal(0.02)  # BERT's: the first loss is ln(vocab), barely more


def linear_head(x: Float[Array, "b *l e"], size: int, name: str, axis: str = "embed") -> Array:
    """Maps `x` to `size` numbers, in fp32 at least: called inside of a compact method, whose parameters are `name`'s.

    axis: the logical axis of the last axis of `x`: `embed`, or `joint` for an embedding.
    """
    return nn.Dense(
        size,
        kernel_init=nn.with_logical_partitioning(HEAD_INIT, (axis, None)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), (None,)),
        name=name,
    )(at_least_fp32(x))


def transformed(x: Float[Array, "b *l d"], norm_eps: float) -> Array:
    """BERT's dense, GELU and layer norm before the last map, in fp32 at least: called inside of a compact method, whose
    parameters `dense` and `norm` are."""
    # Its outputs aren't cut over devices (as in Megatron-LM): the norm needs them whole, and where they and the
    # vocabulary were cut over the same axis of a 2x2x2 mesh, XLA (jax 0.10 to 0.12) gave wrong gradients.
    x = linear_head(x, x.shape[-1], "dense")
    return nn.LayerNorm(
        epsilon=norm_eps,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones_init(), ("embed",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("embed",)),
        name="norm",
    )(nn.gelu(x, approximate=False))


def hidden_layer(x: Float[Array, "b e"], width: int) -> Float[Array, "b {width}"]:
    """A hidden layer before `linear_head`, with LayerNorm and GELU; its parameters are `hidden` and `norm`."""
    x = nn.LayerNorm(
        epsilon=1e-5,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones_init(), ("embed",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("embed",)),
        name="norm",
    )(linear_head(x, width, "hidden", "joint"))
    return nn.gelu(x, approximate=False)
