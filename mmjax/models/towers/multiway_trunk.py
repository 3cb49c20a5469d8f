"""A trunk whose layers have parameters of each modality: towers and fusion of one model (VLMo: Bao et al. 2021,
arXiv:2111.02358; BEiT-3: Wang et al. 2022, arXiv:2208.10442; CAV-MAE: Gong et al. 2022, arXiv:2210.07839)."""

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError, not_among, unknown
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import dropout_keys
from mmjax.models.layers.multiway import ALL, MultiwayBlock, Ways, by_way
from mmjax.models.layers.parameters import HIDDEN, constrain, layer_norm
from mmjax.models.layers.relative_positions import check_extents, distance_count, distances

APART = ("mlp", "all", "norms")


class MultiwayTrunk(nn.Module, kw_only=True):
    """Tokens of one modality, or of several one after the other `[B, N, D]` -> theirs, encoded `[B, N, D]`.

    All tokens attend to each other; each goes by the parameters of its way. Towers hold the same trunk, each with its
    way: `ViT(trunk=trunk, way="image", cls=True)`, `TextTransformer(trunk=trunk, way="text")`. Each is then a tower of
    its own modality, encoded by that way's parameters alone, and a `ThroughTrunk` fusion encodes several together by
    the same parameters. It adds no token.

    Attributes:
        blocks: pre-LN; `depth` counts all layers. The parts that a tower has of its own are made by them too.
        ways: the names of the ways.
        apart: what a layer has once for each way: its `mlp` with the norm before it, and one attention for all (VLMo);
            or `all`, attention's projections and every norm too, also the last one (BEiT-3, as released); or `norms`
            alone, also the last one (CAV-MAE).
        joint: number of the last layers in which tokens of several ways together go by one more way, for all (VLMo
            base: 2); those of one way alone go by theirs. Where `norms` are apart that way has a last norm too.
        sub_norm: whether a LayerNorm stands before the last linear map of attention and of the MLP (Magneto: Wang et
            al. 2022, arXiv:2210.06423).
        key_bias: whether keys have a bias (VLMo's have none).
        kinds: whether each tower has a learned vector that is added to its tokens (VLMo).
        relative: of each way, between which places there are relative positions, that each head of each layer adds to
            its logits (VLMo base and large): `(rows, columns)` of a grid, before which a CLS may stand, or `(length,)`
            of a sequence; and there is one from each way to each other. Attention is then plain, and every token of a
            grid must be there. The towers may have absolute ones, too, or `positions="none"`. Empty: there are none.
    """

    prefix: ClassVar[int] = 0

    blocks: Blocks
    ways: tuple[str, ...]
    apart: Literal["mlp", "all", "norms"] = "mlp"
    joint: int = 0
    sub_norm: bool = False
    key_bias: bool = True
    kinds: bool = True
    relative: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "b n d"],
        real: Bool[Array, "b n"],
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        ways: Ways = (),
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The encoded tokens, and which are real.

        ways: of the tokens, each with their number, in their order.

        Raises:
            UserError: there is no such way, they don't fill the sequence, or a field is out of its range.
        """
        blocks = self._checked(ways, tokens.shape[1])
        keys = dropout_keys(self, blocks.dropout, train, keys, len(tokens))
        x = constrain(tokens.astype(blocks.dtype), *HIDDEN)
        first_joint = blocks.depth - self.joint
        met = len(ways) > 1
        between = jnp.asarray(distances(self.relative, ways)) if self.relative else None
        places = distance_count(self.relative) if self.relative else 0
        for name, begin, end in (("layers", 0, first_joint), ("joint", first_joint, blocks.depth)):
            if begin == end:
                continue
            by = () if name == "joint" and met else ways
            here = (*self.ways, ALL) if name == "joint" else self.ways
            idle = tuple(way for way in here if way not in dict(by or ((ALL, 0),)))
            scanned = blocks.scanned(MultiwayBlock, end - begin, (nn.broadcast, nn.broadcast, 0, nn.broadcast))
            chosen = self.apart == "all", self.sub_norm, self.key_bias, places, self.apart == "norms"
            block = scanned(blocks, by, idle, *chosen, name=name)
            x, _ = block(x, real, keys, jnp.arange(begin, end), between)
        return self._last_norm(x, ways), real

    def _last_norm(self, x: Float[Array, "b n d"], ways: Ways) -> Float[Array, "b n d"]:
        """One LayerNorm for all, or one of each way."""
        eps, dtype = self.blocks.norm_eps, self.blocks.dtype
        if self.apart == "mlp":
            return layer_norm("norm", eps=eps, dtype=dtype)(x)
        for_all = (ALL,) if self.apart == "norms" and self.joint else ()
        if for_all and len(ways) > 1:
            ways = ((ALL, x.shape[1]),)
        if self.is_initializing():
            ways += tuple((name, 0) for name in (*self.ways, *for_all) if name not in dict(ways))
        return by_way(ways, x, lambda way: layer_norm(f"norm{way}", eps=eps, dtype=dtype))

    def _checked(self, ways: Ways, length: int) -> Blocks:
        blocks = self.blocks
        if self.apart not in APART:
            raise UserError(not_among("apart", self.apart, APART))
        if not 0 <= self.joint <= blocks.depth:
            raise UserError(f"joint={self.joint} must be between 0 and blocks.depth={blocks.depth}: it counts layers")
        if blocks.norm != "pre":
            raise UserError(f"a MultiwayTrunk is pre-LN, and has blocks.norm={blocks.norm!r}: set norm='pre'")
        if len(set(self.ways)) < len(self.ways) or ALL in self.ways:
            raise UserError(f"ways={self.ways} must be different names, and none of them {ALL!r}, which is for all")
        if self.relative:
            check_extents(self.relative, self.ways)
        for name, _ in ways:
            if name not in self.ways:
                raise UserError(unknown("a MultiwayTrunk has no way", name, self.ways, "ways"))
        if len(dict(ways)) < len(ways) or sum(count for _, count in ways) != length:
            raise UserError(f"a MultiwayTrunk was given {length} tokens and the ways {ways}: each once, and all tokens")
        return blocks
