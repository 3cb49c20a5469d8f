"""The text tower: a transformer over token ids, causal (CLIP) or not (SigLIP), or with segments (BERT)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError
from mmjax.models.layers import rotary
from mmjax.models.layers.dropout import BEFORE_BLOCKS, drop, dropout_keys
from mmjax.models.layers.parameters import HIDDEN, check_heads, constrain, layer_norm, parameter
from mmjax.models.layers.pooling import PoolingName
from mmjax.models.layers.positions import PositionName, sincos
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.contract import Tower, check_positions, take_kept


class TextTransformer(Tower, kw_only=True):
    """Token ids int32 `[B, L]` -> embeddings, positions, perhaps types -> transformer. No prefix but a trunk's.

    Attributes:
        vocab: number of token ids.
        length: the longest text, in tokens; shorter ones use its first positions.
        positions: `learned`; `sincos`, which are fixed; or `rotary`: each block turns queries and keys by theirs;
            or `none`, for a trunk that knows places by itself.
        causal: whether a token sees only itself and those before it.
        attend_padding: whether padding counts as text (SigLIP: padded with its end token, pooled at the last position).
        pre_norm: whether a LayerNorm stands before the first block (BERT).
        types: number of types of tokens, each with a vector that is added to theirs; 0: there are none. BERT's two tell
            the two texts of a pair apart, and come with the batch (`text_types`); without it all are of the first.
        token_std, position_std: of the initial tables (the defaults are CLIP's), whose draws beyond two of it are drawn
            again with `inits="bert"`.
        position_offset: number of rows of learned positions before the first token's, which none reads (fairseq's: 2).
        cls_last: whether a learned CLS stands behind the text, at the place behind the last of `length`: it sees the
            words and itself, and no word sees it (CoCa). It is the last token, and the one that is pooled.
        cls_shifted: whether the mask of what the CLS sees is shifted by one, as open_clip's CoCa was trained: what
            stands behind the last word, padding of id 0 or the CLS, is seen, and otherwise the CLS isn't.
        fused_first: the id that stands in the place of a text's first one where a fusion reads the text through the
            trunk (BLIP's [Encode], in the place of [CLS]): below `vocab`, and none of the tokenizer's. None: it is read
            as it is.
    """

    vocab: int
    length: int
    positions: PositionName = "learned"
    causal: bool = False
    attend_padding: bool = False
    pooling: PoolingName = "last"
    pre_norm: bool = False
    types: int = 0
    token_std: float = 0.02
    position_std: float = 0.01
    position_offset: int = 0
    cls_last: bool = False
    cls_shifted: bool = False
    fused_first: int | None = None

    @property
    def prefix(self) -> int:
        """The number of tokens before the words: the trunk's CLS, or none."""
        return 0 if self.trunk is None else self.trunk.prefix

    @property
    def vocabulary(self) -> int:
        """`vocab`."""
        return self.vocab

    def check_input(self, path: str, given: Incoming) -> None:
        if len(given.shape) != 1 or given.dtype != "int32":
            raise UserError(
                f"{path} reads token ids int32[L], and data.transforms gives {given}: end the chain in "
                "Tokenize(tokenizer, length), or take another tower"
            )
        (length,) = given.shape
        if length > self.length:
            raise UserError(
                f"data.transforms gives texts of {length} tokens, longer than the {self.length} of {path}.length: "
                f"set {path}.length={length}, or the chain's length to {self.length}"
            )
        if given.pieces > self.vocab:
            raise UserError(
                f"the tokenizer has up to {given.pieces} pieces (vocab_size), and {path}.vocab={self.vocab} has no "
                f"room for them: set {path}.vocab={given.pieces}, or vocab_size={self.vocab}"
            )

    def setup(self) -> None:
        check_positions(self.positions, self.trunk)
        if self.fused_first is not None and (self.trunk is None or not 0 <= self.fused_first < self.vocab):
            raise UserError(
                f"fused_first={self.fused_first} must be an id below vocab={self.vocab}, of a tower with a trunk, "
                "through which a fusion reads: set it so, or leave it out"
            )
        self._make_trunk(self.causal)
        self._check_cls()
        sizes = self.sizes
        normal = nn.initializers.truncated_normal if sizes.inits == "bert" else nn.initializers.normal
        token_init = nn.with_logical_partitioning(normal(self.token_std), ("vocab", "embed"))
        self.token = nn.Embed(self.vocab, sizes.width, dtype=jnp.dtype(sizes.dtype), embedding_init=token_init)
        if self.positions == "learned":
            init = normal(self.position_std)
            rows = self.position_offset + self.length + self.cls_last
            self.position = parameter(self, "position", init, ("position", "embed"), (rows, sizes.width))
        if self.cls_last:
            self.cls_token = parameter(self, "cls", normal(self.position_std), ("embed",), (sizes.width,))
        if self.types:
            init = normal(self.token_std)
            self.type = parameter(self, "type", init, (None, "embed"), (self.types, sizes.width))
        if self.pre_norm:
            self.norm_pre = layer_norm(eps=sizes.norm_eps, dtype=sizes.dtype)

    def _check_cls(self) -> None:
        """Raises UserError where a CLS behind the text, or the shifted mask, goes with nothing else that is set."""
        fits = self.causal and self.pooling == "last" and self.positions == "learned"
        if self.cls_last and not (fits and self.trunk is None and not self.types):
            raise UserError(
                f"cls_last=True goes with causal=True, pooling='last', positions='learned', types=0 and no trunk, not "
                f"with causal={self.causal}, pooling={self.pooling!r}, positions={self.positions!r}, "
                f"types={self.types}{' and a trunk' * (self.trunk is not None)}"
            )
        if self.cls_shifted and not (self.cls_last and not self.attend_padding):
            raise UserError(
                f"cls_shifted=True goes with cls_last=True and attend_padding=False, not with cls_last={self.cls_last} "
                f"and attend_padding={self.attend_padding}"
            )

    def table(self) -> Float[Array, "v d"]:
        """The vector of each token id, float32: what a masked-language head may be tied to."""
        return self.token.embedding

    def grid(self, x: Int[Array, "b l"]) -> tuple[int, ...]:
        """The number of positions, `(L,)`."""
        return (x.shape[1],)

    def patches(
        self, x: Int[Array, "b l"], mask: Bool[Array, "b l"] | None = None
    ) -> tuple[Int[Array, "b l"], Bool[Array, "b l"]]:
        """The ids, and which of them are text rather than padding."""
        return x, jnp.ones(x.shape, bool) if mask is None else mask

    def front(
        self,
        x: Int[Array, "b l"],
        mask: Bool[Array, "b l"] | None = None,
        keep: Int[Array, "b k"] | None = None,
        types: Int[Array, "b l"] | None = None,
        fused: bool = False,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The tokens that go into the trunk, as every tower's. fused: whether for a fusion: then a text begins with
        `fused_first`."""
        if fused and self.fused_first is not None:
            x = x.at[:, 0].set(self.fused_first)
        if x.shape[1] > self.length:
            raise UserError(
                f"texts of {x.shape[1]} tokens are longer than the {self.length} positions of length={self.length}"
            )
        ids, real = self.patches(x, None if self.attend_padding else mask)
        if self.cls_shifted:  # padding is seen: as much of it in any batch
            if keep is not None:
                raise UserError("words of a tower with cls_shifted=True can't be left out (keep): set it to False")
            more = ((0, 0), (0, self.length - x.shape[1]))
            x, real = jnp.pad(jnp.where(real, x, 0), more), jnp.pad(real, more)
            ids = x
        if self.types:
            types = jnp.zeros(x.shape, jnp.int32) if types is None else types
        if keep is not None:
            ids, real = take_kept(ids, keep), (keep >= 0) & take_kept(real, keep)
            types = None if types is None else take_kept(types, keep)
        tokens = self.token(ids)
        if self.positions not in ("rotary", "none"):
            learned, width = self.positions == "learned", self.sizes.width
            table = self.position[self.position_offset :] if learned else jnp.asarray(sincos((self.length,), width))
            positions = table[: x.shape[1]] if keep is None else table[jnp.maximum(keep, 0)]
            tokens = tokens + positions.astype(self.sizes.dtype)
        if self.types:
            tokens = tokens + self.type.astype(self.sizes.dtype)[types]
        if self.cls_last:
            cls = (self.cls_token + self.position[-1]).astype(tokens.dtype)
            tokens = jnp.concatenate([tokens, jnp.broadcast_to(cls, (len(tokens), 1, len(cls)))], axis=1)
            real = jnp.pad(real, ((0, 0), (0, 1)), constant_values=True)
        if self.trunk is None:
            return tokens, real
        return self._for_trunk(self.norm_pre(tokens) if self.pre_norm else tokens, real), real

    def tokens(
        self,
        x: Int[Array, "b l"],
        mask: Bool[Array, "b l"] | None = None,
        keep: Int[Array, "b k"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        types: Int[Array, "b l"] | None = None,
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        """The tokens, as every tower's.

        types: of each token, in [0, `types`); None: all are 0.
        """
        tokens, real = self.front(x, mask, keep, types)
        if self.trunk is not None:
            return self.through_trunk(tokens, real, train, keys)
        if self.pre_norm:
            tokens = self.norm_pre(tokens)
        rate = self.sizes.dropout
        keys = dropout_keys(self, rate, train, keys, len(tokens))
        tokens = drop(constrain(tokens, *HIDDEN), rate, keys, BEFORE_BLOCKS)
        all_real = keep is None and (mask is None or self.attend_padding)  # then attention needs no mask
        seen = None if all_real else real
        if self.cls_shifted:
            seen = jnp.pad(real[:, :-1], ((0, 0), (1, 0)), constant_values=True)
        # With a causal mask and a kept subset, "before" is the order of the slots.
        angles = None
        if self.positions == "rotary":
            places = jnp.arange(x.shape[1]) if keep is None else jnp.maximum(keep, 0)
            angles = rotary.angles(places[..., None], check_heads(self.sizes.width, self.sizes.heads))
        return self.transformer(tokens, seen, train, keys, angles), real
