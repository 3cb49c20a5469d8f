"""The base of fusions that read embeddings: how inputs come in, and which of them are there."""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError
from mmjax.models.fusion.missing import check_drop_rate, present_inputs
from mmjax.models.layers.dropout import dropout_keys
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import DtypeName

Entered = tuple[Float[Array, "b w"], Bool[Array, " b"]]  # an input's embedding, and which examples have it


class EmbeddingFusion(nn.Module, kw_only=True):
    """Whatever fuses embeddings. Each input comes as one token, `[B,1,E]`, whose mask is False in examples without it;
    the tokens go out as they came.

    An input that an example lacks has no effect on it: neither its value (NaN too) nor, but where a fusion says so, a
    parameter of it. Its gradient is zero. Inputs are taken in the order of their names, and parameters bear these
    names, so the order of the mapping changes nothing.

    Attributes:
        drop_inputs: in training the rate at which an input of an example is taken for missing; one always stays
            (`mmjax.models.fusion.missing`).
        dtype: of the computation; parameters are float32, and so is the embedding.
    """

    reads: ClassVar[str] = "embeddings"

    drop_inputs: float = 0.0
    dtype: DtypeName = "float32"

    def _entered(
        self, tokens: Mapping[str, TokensAndMask], train: bool, keys: Key[Array, " b"] | None
    ) -> dict[str, Entered]:
        """Each input's embedding in `dtype`, zeros where it is missing or dropped, and the examples that have it.

        Raises UserError where there are fewer than two inputs, one isn't a single token, or a rate is none.
        """
        kind, names = type(self).__name__, sorted(tokens)
        if len(names) < 2:
            raise UserError(
                f"a {kind} fuses the embeddings of at least two inputs, and was given {', '.join(names) or 'none'}: "
                "add an input to the fused view, or leave the fusion out and read the tower's embedding"
            )
        for name in names:
            if (count := tokens[name][0].shape[1]) != 1:
                raise UserError(
                    f"a {kind} fuses embeddings, one token [B,1,E] of each input, and was given {count} tokens of "
                    f"{name!r}: pool them first, or take a fusion that reads tokens"
                )
        check_drop_rate(self.drop_inputs)
        there = jnp.concatenate([tokens[name][1] for name in names], axis=1)
        keys = dropout_keys(self, self.drop_inputs, train, keys, len(there))
        there = present_inputs(there, self.drop_inputs, keys)
        return {
            name: (jnp.where(there[:, place, None], tokens[name][0][:, 0], 0).astype(self.dtype), there[:, place])
            for place, name in enumerate(names)
        }

    def _check_sizes(self, **sizes: int) -> None:
        """Raises UserError where a size, by its field's name, isn't at least 1."""
        for name, size in sizes.items():
            if size < 1:
                raise UserError(f"{name}={size} of a {type(self).__name__} must be a whole number, at least 1")
