"""The tokens that a decoder reads beside its text: each input's by its own tower, or by a fusion of several."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool

from mmjax.errors import UserError
from mmjax.models.layers.masks import TokensAndMask
from mmjax.objectives.contract import AnyView, Fused, View, Writing, selected, valid


def names_read(decoder: Any) -> tuple[str, ...]:
    """The inputs whose tokens a decoder reads: what its `context`, `prefix` and `inserted` name."""
    return tuple(dict.fromkeys([*decoder.context, *decoder.prefix, *decoder.inserted]))


def has_read(objective: Writing, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
    """A mask of the examples that have something of what the decoder reads."""
    return jnp.any(jnp.stack([valid(batch, name) for name in names_read(objective.decoder)]), axis=0)


def tokens_read(
    objective: Writing, encoded: Mapping[AnyView, Any], batch: Mapping[str, Array]
) -> dict[str, TokensAndMask]:
    """The tokens that the decoder reads, by the input's name; none are real of an input that an example lacks."""
    views = objective.reading()
    found = {}
    for name in names_read(objective.decoder):
        (view,) = views if objective.fusion is not None else (View(name),)
        own = encoded[view].parts[objective.reads.index(name)] if isinstance(view, Fused) else encoded[view]
        there = valid(batch, name)
        found[name] = selected(there, own.tokens), own.token_mask & there[:, None]
    return found


def check_decoder_reads(path: str, objective: Writing) -> None:
    """Raises UserError where the decoder reads other inputs than the objective says, or its own text."""
    names, told = names_read(objective.decoder), ", ".join(sorted(names_read(objective.decoder))) or "nothing"
    if objective.text in objective.reads:
        raise UserError(
            f"{path}.reads={objective.reads} has {objective.text!r}, the words of which it predicts: it would read its "
            "answers; name other inputs"
        )
    if objective.fusion is None and {*names} != {*objective.reads}:
        raise UserError(
            f"{path}.reads={objective.reads} and {path}.decoder reads {told} (context, prefix, inserted): name the "
            "same in both"
        )
    if objective.fusion is not None and not (names and {*names} <= {*objective.reads}):
        raise UserError(
            f"{path}.reads={objective.reads} by the fusion {objective.fusion!r} and {path}.decoder reads {told} "
            "(context, prefix, inserted): let it read one of those, or more"
        )
