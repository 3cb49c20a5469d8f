"""Masks of attention, which say what each token may attend to, and whether they fit the tokens."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError

TokensAndMask = tuple[Float[Array, "b n d"], Bool[Array, "b n"]]  # and which of them are real


def prefix_causal(length: int, prefix: Int[Array, " b"] | int) -> Bool[Array, "#b n n"]:
    """The mask of a prefix language model (Raffel et al. 2019, arXiv:1910.10683, fig. 4): the first `prefix` of
    `length` tokens see each other, and each later one sees them, itself and what stands between.

    It goes with causal=False. Padding stays a matter of the key mask.

    Args:
        prefix: of each example, or one number for all; 0 gives a causal mask, `length` one that allows everything.

    Raises:
        UserError: one number that isn't between 0 and `length`.
    """
    if isinstance(prefix, int):
        if not 0 <= prefix <= length:
            raise UserError(f"prefix={prefix} must be between 0 and the {length} tokens that there are")
        prefix = jnp.array([prefix])
    query, key = jnp.arange(length)[:, None], jnp.arange(length)
    return (key <= query) | (key < prefix[:, None, None])


def check_allowed(shape: tuple[int, ...], allowed: Array) -> None:
    """Raises UserError where `allowed` is no mask for tokens of that shape, `[b, n, d]`."""
    batch, length, _ = shape
    fits = allowed.shape in ((batch, length, length), (1, length, length))
    if not fits or allowed.dtype != jnp.bool_:
        raise UserError(
            f"allowed is {_described(allowed)}, and for {batch} sequences of {length} tokens it is bool "
            f"[{batch}, {length}, {length}] or bool [1, {length}, {length}]"
        )


def check_context(shape: tuple[int, ...], cross: bool, context: Array | None, mask: Array | None) -> None:
    """Raises UserError where these don't fit tokens of that shape, `[b, n, d]`, or the field `cross`."""
    batch, _, width = shape
    if context is None:
        if cross:
            raise UserError("cross=True attends to context tokens, and there are none: give context=")
        if mask is not None:
            raise UserError("context_mask is given without the context tokens that it is for: give context= too")
        return
    if not cross:
        raise UserError("context tokens are given, and no block attends to them: set cross=True")
    if (context.shape[0], context.shape[2]) != (batch, width):
        raise UserError(
            f"context is {_described(context)}, and beside tokens {list(shape)} it is [{batch}, m, {width}]: project "
            "it to that width first"
        )
    if mask is not None and (mask.shape != context.shape[:2] or mask.dtype != jnp.bool_):
        raise UserError(
            f"context_mask is {_described(mask)}, and for that context it is bool {list(context.shape[:2])}"
        )


def _described(x: Array) -> str:
    return f"{x.dtype} {list(x.shape)}"
