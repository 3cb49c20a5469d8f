"""The base of fusions that read tokens: how inputs come in, which of them are there, and what the embedding is."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError
from mmjax.models.fusion.missing import check_drop_rate, present_inputs
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import dropout_keys
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import BERT_STD, dense, parameter, projection_init

KIND_STD = 0.02  # of the vectors that tell the inputs apart


class TokenFusion(nn.Module, kw_only=True):
    """Whatever fuses tokens.

    Attributes:
        embed_dim: size E of the embedding; None leaves the pooled token as it is.
        projection_tanh: whether the embedding is the tanh of that projection (BERT's pooler).
        drop_inputs: in training the rate at which an input of an example is taken for missing; one always stays
            (`mmjax.models.fusion.missing`).
    """

    embed_dim: int | None = None
    projection_tanh: bool = False
    drop_inputs: float = 0.0

    def _there(
        self, tokens: Mapping[str, TokensAndMask], train: bool, keys: Key[Array, " b"] | None
    ) -> dict[str, Bool[Array, "b n"]]:
        """The mask of each input's tokens; those of an input that is dropped aren't real."""
        check_drop_rate(self.drop_inputs)
        masks = {name: mask for name, (_, mask) in tokens.items()}
        keys = dropout_keys(self, self.drop_inputs, train, keys, len(next(iter(masks.values()))))
        if keys is None:
            return masks
        names = sorted(masks)
        there = jnp.stack([masks[name].any(axis=1) for name in names], axis=1)
        there = present_inputs(there, self.drop_inputs, keys)
        return {name: mask & there[:, names.index(name), None] for name, mask in masks.items()}

    def _entered(
        self, name: str, tokens: Float[Array, "b n w"], blocks: Blocks, project: bool, kinds: bool
    ) -> Float[Array, "b n d"]:
        """An input's tokens as wide as the blocks, with the vector of the input."""
        if project:
            init = projection_init(tokens.shape[-1], blocks.width)
            tokens = dense(blocks.width, (None, "embed"), init, dtype=blocks.dtype, name=f"project_{name}")(tokens)
        elif tokens.shape[-1] != blocks.width:
            raise UserError(
                f"a {type(self).__name__} with blocks.width={blocks.width} was given tokens of {name!r} that are "
                f"{tokens.shape[-1]} wide: set project=True, or one width for both"
            )
        tokens = tokens.astype(blocks.dtype)
        if not kinds:
            return tokens
        kind = parameter(self, f"kind_{name}", nn.initializers.normal(KIND_STD), ("embed",), (blocks.width,))
        return tokens + kind.astype(blocks.dtype)

    def _projected(self, pooled: Float[Array, "b d"], blocks: Blocks) -> Float[Array, "b e"]:
        """The embedding, float32, from the pooled token."""
        if self.projection_tanh and self.embed_dim is None:
            raise UserError("projection_tanh=True needs a projection: set embed_dim, to the width say")
        if self.embed_dim is not None:
            init = nn.initializers.normal(blocks.width**-0.5)
            if blocks.inits == "bert":
                init = nn.initializers.truncated_normal(BERT_STD)
            pooled = dense(self.embed_dim, ("embed", "joint"), init, dtype=blocks.dtype, name="projection")(pooled)
            pooled = jnp.tanh(pooled) if self.projection_tanh else pooled
        return pooled.astype(jnp.float32)


def first_real(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> Float[Array, "b d"]:
    """The first token that is real; zeros where none is."""
    place = jnp.argmax(mask, axis=1)
    found = jnp.take_along_axis(tokens, place[:, None, None], axis=1)[:, 0]
    return jnp.where(mask.any(axis=1, keepdims=True), found, 0)
