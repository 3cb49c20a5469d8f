"""Cross-attention fusion: the tokens of one input read those of the others (ALBEF: Li et al. 2021, arXiv:2107.07651;
BLIP: Li et al. 2022, arXiv:2201.12086)."""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.errors import UserError, not_among, unknown
from mmjax.models.fusion.attention_flow import Spans, Step, of_layers, spans_of
from mmjax.models.fusion.tokens import TokenFusion, first_real
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.pooling import mean
from mmjax.models.layers.transformer import Transformer

CROSS_POOLINGS = ("first", "mean")


class Cross(TokenFusion, kw_only=True):
    """The reader's tokens through a transformer whose blocks attend to the other inputs' tokens, between their own
    attention and the MLP. The others' tokens stay as they came.

    The transformer is its own (ALBEF), or the `Trunk` of the reader's tower (BLIP): then the same self-attention and
    MLPs encode the reader alone and with the others, and what is read is what the reader's tower gives that trunk.

    An example that lacks the others takes in what attention over no token gives; one that lacks the reader has an
    embedding of zeros (its projection's bias, where there is one).

    Attributes:
        reader: the input whose tokens read: `text`.
        blocks: of the transformer; None where there is a trunk.
        trunk: the reader's tower's own, the very same, a `Trunk(cls=False, cross=True)`.
        pooling: the embedding is that of the reader's `first` real token (its CLS), or the `mean` of all real ones.
        project: whether each input's tokens come in by a linear map of their own, which they need where they are not as
            wide as the blocks; a reader through its trunk comes in as it is.
        kinds: whether each input that is read has a learned vector that is added to its tokens; of use where there are
            several.
    """

    reader: str
    blocks: Blocks | None = None
    trunk: Any = None
    pooling: Literal["first", "mean"] = "first"
    project: bool = False
    kinds: bool = False

    @property
    def reads(self) -> str:
        """`tokens`, or `front`: of the reader it is given what goes into the trunk (`Fusion`)."""
        return "tokens" if self.trunk is None else "front"

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[dict[str, TokensAndMask], Float[Array, "b e"]]:
        """The reader's tokens after they have read, with those of the others as they came; and the embedding.

        Raises:
            UserError: the reader isn't among the inputs; there is no such pooling, or tokens of another width come in
                with project=False; there are blocks and a trunk, or neither, or a trunk with a CLS or without `cross`.
        """
        if self.pooling not in CROSS_POOLINGS:
            raise UserError(not_among("pooling", self.pooling, CROSS_POOLINGS))
        if self.reader not in tokens:
            raise UserError(unknown("a Cross fusion reads by", self.reader, tokens, "inputs"))
        blocks, masks = self._checked(), self._there(tokens, train, keys)
        read = [name for name in tokens if name != self.reader]
        context = [self._entered(name, tokens[name][0], blocks, self.project, self.kinds) for name in read]
        project = self.project and self.trunk is None
        x, real = self._entered(self.reader, tokens[self.reader][0], blocks, project, kinds=False), masks[self.reader]
        seen: dict[str, Any] = {
            "context": jnp.concatenate(context, axis=1),
            "context_mask": jnp.concatenate([masks[name] for name in read], axis=1),
        }
        if self.trunk is None:
            x = Transformer(blocks, cross=True, name="transformer")(x, real, train, keys, **seen)
        else:
            x, real = self.trunk(x, real, train, keys, **seen)
        pooled = first_real(x, real) if self.pooling == "first" else mean(x, real)
        found = {name: (x if name == self.reader else tokens[name][0], masks[name]) for name in tokens}
        return found, self._projected(pooled, blocks)

    def _checked(self) -> Blocks:
        """The blocks, its own or those of the trunk."""
        if self.trunk is None and self.blocks is not None:
            return self.blocks
        if self.trunk is None or self.blocks is not None:
            given = "both" if self.trunk is not None else "neither"
            raise UserError(f"a Cross has blocks of its own or the trunk of its reader's tower, and was given {given}")
        if not getattr(self.trunk, "cross", False) or self.trunk.prefix:
            raise UserError(
                f"a Cross reads through {self.trunk}, which has no attention to a context, or a CLS before the "
                "reader's tokens: take Trunk(cls=False, cross=True)"
            )
        return self.trunk.blocks

    def attention_steps(self, kept: Mapping[str, Any], lengths: Mapping[str, int]) -> tuple[Spans, list[Step]]:
        """Its attentions in order (`attention_flow`): of the reader to itself, then to the others, layer by layer.
        kept: of it in `attention_weights`. lengths: of each input."""
        own, blocks = slice(0, lengths[self.reader]), kept["transformer"]["blocks"]
        spans = spans_of({self.reader: own.stop} | {n: length for n, length in lengths.items() if n != self.reader})
        other = slice(own.stop, sum(lengths.values()))
        both = zip(of_layers(blocks["attention"], own, own), of_layers(blocks["cross"], own, other), strict=True)
        return spans, [step for layer in both for step in layer]
