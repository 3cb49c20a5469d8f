"""Keeps the attention weights of a pass where somebody asks for them, to be looked at, and lets them be varied."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError
from mmjax.models.layers.attention import attention_weights
from mmjax.models.layers.attentions import ATTENTIONS, AttentionName

WEIGHTS = "attention_weights"  # the collection that holds a pass's weights, where it is mutable
OFFSETS = "attention_offsets"  # what is added to them: zeros, for the gradient with respect to each weight


def attend_by(
    module: nn.Module,
    attention: AttentionName,
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    value: Float[Array, "b h m k"],
    mask: Bool[Array, "b m"] | None = None,
    causal: bool = False,
    allowed: Bool[Array, "#b #n m"] | None = None,
    spare: int = 0,
    bias: Float[Array, "h n m"] | None = None,
) -> Float[Array, "b h n k"]:
    """The result of the attention of that name (`attend`), within `module`.

    Where the collection `attention_weights` is mutable, it is computed plainly, and each call's weights
    `[B, heads, N, M]`, float32, stand in the module's `weights` there: a tuple, in the order of the calls. A scan over
    layers stacks them. `attention_offsets`, a collection of the same structure, is added to them before they are used.
    Otherwise nothing of this is in the program.

    Raises:
        UserError: a kernel is asked for that takes no `bias` (of the logits, of each head).
    """
    if bias is not None:
        if attention not in ("auto", "plain"):
            raise UserError(f"attention={attention!r} takes no relative positions: set it to 'auto' or 'plain'")
        attention = "plain"
    if module.is_initializing() or not module.is_mutable_collection(WEIGHTS):
        more = {} if bias is None else {"bias": bias}
        return ATTENTIONS[attention](query, key, value, mask, causal, allowed, spare, **more)
    weights = attention_weights(query, key, mask, causal, allowed, spare, bias)
    if module.has_variable(OFFSETS, "weights"):
        before: Any = module.get_variable(WEIGHTS, "weights", ())
        weights = weights + module.get_variable(OFFSETS, "weights")[len(before)]
    module.sow(WEIGHTS, "weights", weights)
    return jnp.einsum("bhnm,bhmk->bhnk", weights.astype(value.dtype), value)
