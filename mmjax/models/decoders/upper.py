"""The upper half of a text decoder, whose lower half is a text tower (CoCa: Yu et al. 2022, arXiv:2205.01917).

The tower's states of the words are what the upper half begins with, so one pass of the tower serves a contrastive loss,
by its CLS, and a caption's. Both halves together are one `TextDecoder`, whose lower layers read no context: that is
what writes, with one memory (`whole`, `whole_params`).
"""

from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError
from mmjax.models.decoders.read_views import NO_VIEWS, Views, check_read, read_context
from mmjax.models.decoders.text import TextDecoder, logits_by
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.decoder_blocks import DecoderBlocks
from mmjax.models.layers.decoder_layer import CrossName, Sight
from mmjax.models.layers.decoder_layers import DecoderLayers
from mmjax.models.layers.parameters import parameter

# Fields of `Blocks` in which the halves may differ: they change nothing of what a layer computes.
FREE = ("depth", "inits", "dropout", "remat", "unroll", "dtype", "attention")


class UpperDecoder(nn.Module, kw_only=True):
    """States `[B, L, D]` of words, each of those up to its own -> states `[B, L, D]` that have read the views' tokens
    too; `logits` of a state are those of the next word.

    Attributes:
        vocab: number of token ids, the tower's.
        length: the longest text, the tower's.
        blocks: of its layers, with the sizes of the tower's.
        cross, cross_every: how and which layers read the context (`DecoderLayers`).
        context: the views that layers read, and of each the projector that brings it to one width, or None.
        head_bias: whether the logits have a bias.
        zero_head: whether the last matrix, which is its own, starts at zero.
        token_std: of the initial last matrix.
    """

    vocab: int
    length: int
    blocks: DecoderBlocks
    context: Mapping[str, Any] = field(default_factory=dict)
    cross: CrossName = "within"
    cross_every: int = 1
    head_bias: bool = False
    zero_head: bool = False
    token_std: float = 0.02

    @property
    def prefix(self) -> Mapping[str, Any]:
        """The views whose tokens stand before the text: none, for the tower has read it."""
        return NO_VIEWS

    @property
    def inserted(self) -> Mapping[str, Any]:
        """The views whose tokens stand within the text: none."""
        return NO_VIEWS

    def setup(self) -> None:
        self.layers = DecoderLayers(self.blocks, self.cross, 0, self.cross_every)
        init = nn.initializers.zeros if self.zero_head else nn.initializers.normal(self.token_std)
        self.head = parameter(self, "head", init, ("vocab", "embed"), (self.vocab, self.blocks.width))
        if self.head_bias:
            self.bias = parameter(self, "bias", nn.initializers.zeros, ("vocab",), (self.vocab,))

    def __call__(
        self,
        states: Float[Array, "b l d"],
        mask: Bool[Array, "b l"] | None = None,
        views: Views = NO_VIEWS,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b l d"]:
        """The state of each word.

        Args:
            states: of the words, by the tower.
            mask: which words are real; None: all.
            views: by name, the tokens of those that `context` names, and which are real.
            train: whether dropout acts.
            keys: each example's key for it.

        Raises:
            UserError: views that are missing or that nothing reads; states of another width.
        """
        check_read(self, views)
        if states.shape[-1] != self.blocks.width:
            raise UserError(
                f"an UpperDecoder with blocks.width={self.blocks.width} was given states that are {states.shape[-1]} "
                "wide: set the tower's width"
            )
        context, context_mask = read_context(self, views)
        return self.layers(states, Sight(mask, context=context, context_mask=context_mask), train, keys)

    def logits(self, states: Float[Array, "b *l d"]) -> Float[Array, "b *l v"]:
        """The logits of the next word, float32 at least."""
        logits = logits_by(self.head, states)
        return logits + self.bias if self.head_bias else logits

    def check_below(self, path: str, tower: Any, below: str) -> None:
        """Raises UserError where a tower can't be the lower half.

        path, below: of the decoder and of the tower in the experiment, for messages.
        """
        needed = {"causal": True, "norm_pooled": True, "trunk": None, "pre_norm": False, "types": 0}
        needed |= {"position_offset": 0, "vocab": self.vocab, "length": self.length}
        for name, value in needed.items():
            if getattr(tower, name, None) != value:
                raise UserError(
                    f"{path} goes on from the words' states of {below}, which has {name}="
                    f"{getattr(tower, name, None)!r} and must have {value!r}: it is a causal TextTransformer whose "
                    "last LayerNorm is of the pooled token alone, with as many ids and words as the decoder"
                )
        own, usual = self.blocks, DecoderBlocks(width=1, depth=1, heads=1)
        sizes = {name: getattr(tower.sizes, name) for name in names_of(Blocks) if name not in FREE}
        sizes |= {name: getattr(usual, name) for name in names_of(DecoderBlocks) if name not in names_of(Blocks)}
        sizes |= {"mlp_dim": tower.sizes.hidden, "norm": "pre"}
        for name, value in sizes.items():
            mine = own.hidden if name == "mlp_dim" else getattr(own, name)
            if mine != value:
                raise UserError(
                    f"{path}.blocks.{name}={mine!r}, and that of {below} is {value!r}: both halves' layers are alike, "
                    "pre-norm, with LayerNorms and plain MLPs; set it so"
                )

    def whole(self, tower: Any) -> TextDecoder:
        """Both halves as one decoder, which reads ids: for writing."""
        depth = tower.sizes.depth
        return TextDecoder(
            vocab=self.vocab,
            length=self.length,
            blocks=replace(self.blocks, depth=depth + self.blocks.depth),
            positions=tower.positions,
            cross=self.cross,
            cross_from=depth,
            cross_every=self.cross_every,
            context=self.context,
            tied=False,
            head_bias=self.head_bias,
            parent=None,
        )

    def whole_params(self, below: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of `whole`: of those of the tower what words need, without its CLS, and the decoder's own."""
        layers = {**own["layers"], "lower": {"layer_0": below["transformer"]["blocks"]}}
        position = {"position": below["position"][: self.length]} if "position" in below else {}
        return {**own, "token": below["token"], **position, "layers": layers}


def names_of(kind: type) -> tuple[str, ...]:
    """The names of the fields of a class of blocks."""
    return tuple(one.name for one in fields(kind))


def goes_on(decoder: Any) -> bool:
    """True if a decoder reads, of a text, the states of its tower and not its ids."""
    return isinstance(decoder, UpperDecoder)
