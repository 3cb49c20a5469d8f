"""The views that a decoder reads: which it needs, their tokens one behind the other, and those that stand in a text."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError, unknown
from mmjax.models.layers.masks import TokensAndMask

Views = Mapping[str, TokensAndMask]
NO_VIEWS: Views = MappingProxyType({})


def joined_views(
    projectors: Mapping[str, Any], views: Views, width: int, dtype: jnp.dtype, batch: int | None = None
) -> TokensAndMask:
    """The tokens of the views that have a projector, `width` wide, one view's behind the other's, and which are real.

    projectors: of each view's name; None: its tokens are as wide already. batch: the number of rows, where there may be
    no view.

    Raises UserError where tokens have another width.
    """
    found = [] if batch is None else [(jnp.zeros((batch, 0, width), dtype), jnp.zeros((batch, 0), bool))]
    for name, projector in projectors.items():
        tokens, real = views[name] if projector is None else projector(*views[name], width)
        if tokens.shape[-1] != width:
            raise UserError(
                f"the tokens of {name!r} are {tokens.shape[-1]} wide and the decoder's {width}: give the view a "
                "projector"
            )
        found.append((tokens.astype(dtype), real))
    tokens, real = (jnp.concatenate(each, axis=1) for each in zip(*found, strict=True))
    return tokens, real


def read_context(decoder: Any, views: Views) -> tuple[Float[Array, "b c e"] | None, Bool[Array, "b c"] | None]:
    """The tokens that a decoder's layers read, and which are real."""
    if not decoder.context:
        return None, None
    found = [
        views[name] if projector is None else projector(*views[name], decoder.blocks.width)
        for name, projector in decoder.context.items()
    ]
    if len(widths := {tokens.shape[-1] for tokens, _ in found}) > 1:
        raise UserError(f"a context of {sorted(decoder.context)} is {sorted(widths)} wide: give each a projector")
    tokens, real = (jnp.concatenate(each, axis=1) for each in zip(*found, strict=True))
    return tokens.astype(decoder.blocks.dtype), real


def taken_tokens(
    tokens: Float[Array, "b m d"], real: Bool[Array, "b m"], inserts: Int[Array, "b n"]
) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
    """The token of each number, zeros where there is none that is real (or for a number below 0), and which are."""
    at = jnp.clip(inserts, 0, tokens.shape[1] - 1)
    there = jnp.take_along_axis(real, at, axis=1) & (inserts == at)
    return jnp.where(there[..., None], jnp.take_along_axis(tokens, at[..., None], axis=1), 0), there


def check_read(decoder: Any, views: Mapping[str, Any], inserts: Any = None, later: bool = False) -> None:
    """Raises UserError where a view is missing that a decoder's `context` or `prefix` names, or with `inserts` its
    `inserted`, or where none of them names a view. later: with words that come next, which `inserted` alone is for."""
    kind, always = type(decoder).__name__, set() if later else {*decoder.context, *decoder.prefix}
    read = always | {*decoder.inserted}
    for name in views:
        if name not in read:
            raise UserError(unknown(f"a {kind} was given the view", name, sorted(read), "views that it reads"))
    if inserts is not None and not decoder.inserted:
        raise UserError(
            f"a {kind} with inserted={{}} was told where views' tokens stand within its text (inserts): name the views "
            "in inserted, or leave out the slots of the texts"
        )
    if missing := sorted((always if inserts is None else read) - {*views}):
        raise UserError(
            f"a {kind} reads {', '.join(sorted(read))} and was given no tokens of {missing[0]!r}: give them, masked "
            "where they aren't there"
        )
