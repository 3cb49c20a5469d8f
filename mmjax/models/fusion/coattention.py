"""Co-attention fusion: two streams of tokens that attend to each other (ViLBERT: Lu et al. 2019, arXiv:1908.02265;
LXMERT: Tan and Bansal 2019, arXiv:1908.07490)."""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, not_among
from mmjax.models.fusion.tokens import TokenFusion, first_real
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import drop, dropout_keys
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import check_heads, dense, layer_norm, projection_init
from mmjax.models.layers.transformer import Block, CrossAttention, Mlp

PRODUCT = "product"
CROSS_PLACE, MLP_PLACE = 2, 3  # of dropout, beside a block's own (`drop`)

Two = tuple[Float[Array, "b n d"], Float[Array, "b m e"]]


class CoAttention(TokenFusion, kw_only=True):
    """Two streams, each as wide as its input's tokens: in each layer either attends to the other's tokens, and then
    goes through a block of its own. Parameters number the streams, in the order of their names.

    An example that lacks one input takes in, in the other's stream, what attention over no token gives.

    Attributes:
        streams: the two inputs, by name, with the blocks of each; they are equally many.
        inner: the width of the attention between the streams; None: theirs, which is then the same.
        heads: of that attention.
        shared: whether both directions have the same weights, and the norm of that branch (LXMERT); the streams are
            then equally wide.
        mlp: whether an MLP of each stream follows that attention (ViLBERT), before the stream's own block.
        pooled: the embedding is the `product` of the first real token of each stream, each through a linear map and a
            ReLU (ViLBERT; an input that isn't there is no factor), or, by a stream's name, that of its first real token
            alone (LXMERT's text).
    """

    streams: Mapping[str, Blocks]
    heads: int
    inner: int | None = None
    shared: bool = False
    mlp: bool = True
    pooled: str = PRODUCT

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[dict[str, TokensAndMask], Float[Array, "b e"]]:
        """Each stream's tokens after they have met, and the embedding.

        Raises:
            UserError: the streams aren't two, are other inputs, of unequal depth, or don't fit `inner` and `shared`;
                there is no such `pooled`, or a product without embed_dim.
        """
        self._check(tokens)
        # Sorted: a copy of the module, as a loop over microbatches makes, has them in another order than was given.
        (a, b), masks = sorted(self.streams), self._there(tokens, train, keys)
        first, second = self.streams[a], self.streams[b]
        x = tuple(self._entered(name, tokens[name][0], self.streams[name], False, kinds=False) for name in (a, b))
        keys = dropout_keys(self, max(first.dropout, second.dropout), train, keys, len(x[0]))
        scanned = first.scanned(CoLayer, first.depth, (nn.broadcast, nn.broadcast, 0))
        layers = scanned((first, second), self.heads, self._inner, self.shared, self.mlp, name="layers")
        met, _ = layers(x, (masks[a], masks[b]), keys, jnp.arange(first.depth))
        found = {}
        for name, y in zip((a, b), met, strict=True):
            blocks = self.streams[name]
            last = layer_norm(f"norm_{name}", eps=blocks.norm_eps, dtype=blocks.dtype)
            found[name] = (last(y) if blocks.norm == "pre" else y, masks[name])
        return {name: found[name] for name in tokens}, self._embedding(found)

    @property
    def _inner(self) -> int:
        return self.inner or next(iter(self.streams.values())).width

    def _embedding(self, found: Mapping[str, TokensAndMask]) -> Float[Array, "b e"]:
        firsts = {name: first_real(*found[name]) for name in sorted(self.streams)}
        if self.pooled != PRODUCT:
            return self._projected(firsts[self.pooled], self.streams[self.pooled])
        product = jnp.ones(())
        for name, x in firsts.items():
            blocks, size = self.streams[name], self.embed_dim or 0
            init = projection_init(blocks.width, size)
            factor = nn.relu(dense(size, ("embed", "joint"), init, dtype=blocks.dtype, name=f"pool_{name}")(x))
            product = product * jnp.where(found[name][1].any(axis=1, keepdims=True), factor, 1).astype(jnp.float32)
        return product

    def _check(self, tokens: Mapping[str, TokensAndMask]) -> None:
        """Raises UserError where the fields don't go together, or with these inputs."""
        if self.pooled not in (PRODUCT, *self.streams):
            raise UserError(not_among("pooled", self.pooled, (PRODUCT, *sorted(self.streams))))
        if self.pooled == PRODUCT and self.embed_dim is None:
            raise UserError("pooled='product' multiplies two projections, which are as large as embed_dim: set it")
        if len(self.streams) != 2 or set(self.streams) != set(tokens):
            raise UserError(
                f"CoAttention(streams of {', '.join(self.streams) or 'nothing'}) was given tokens of "
                f"{', '.join(tokens)}: it fuses two inputs, and has a stream for each"
            )
        (a, first), (b, second) = self.streams.items()
        if first.depth != second.depth:
            raise UserError(
                f"streams[{a!r}] has depth={first.depth} and streams[{b!r}] {second.depth}: each layer is one of both, "
                "so set them alike; what one has more stands in its tower"
            )
        if first.width != second.width and (self.inner is None or self.shared):
            raise UserError(
                f"streams[{a!r}] is {first.width} wide and streams[{b!r}] {second.width}: set inner, the width of the "
                "attention between them, and shared=False"
            )
        check_heads(self._inner, self.heads)


class CoLayer(nn.Module):
    """One layer of `CoAttention`, on both streams; returns a pair, as a scan's body does."""

    blocks: tuple[Blocks, Blocks]
    heads: int
    inner: int
    shared: bool
    mlp: bool

    @nn.compact
    def __call__(
        self,
        x: Two,
        masks: tuple[Bool[Array, "b n"], Bool[Array, "b m"]],
        keys: Key[Array, " b"] | None = None,
        layer: Int[Array, ""] | int = 0,
    ) -> tuple[Two, None]:
        own = [None, None]
        if keys is not None:
            own = [jax.vmap(partial(jax.random.fold_in, data=stream))(keys) for stream in range(2)]
        x = self._cross(x, masks, [k if k is None else _folded(k, layer) for k in own])
        met = []
        for stream, (y, mask, blocks) in enumerate(zip(x, masks, self.blocks, strict=True)):
            block = Block(blocks, y.shape[1], name=f"block_{stream}")
            met.append(block(y.reshape(-1, y.shape[-1]), mask, own[stream], None, layer)[0].reshape(y.shape))
        return (met[0], met[1]), None

    def _cross(
        self, x: Two, masks: tuple[Bool[Array, "b n"], Bool[Array, "b m"]], keys: list[Key[Array, " b"] | None]
    ) -> Two:
        """Both streams after each has attended to the other, as the other was before."""
        norms = [partial(layer_norm, eps=each.norm_eps, dtype=each.dtype) for each in self.blocks]
        met_norms = [norms[0]("norm_cross")] * 2 if self.shared else [norms[i](f"norm_cross_{i}") for i in range(2)]
        pre = [each.norm == "pre" for each in self.blocks]
        read = [norm(y) if before else y for norm, before, y in zip(met_norms, pre, x, strict=True)]
        attentions = [self._attention(i) for i in range(1 if self.shared else 2)]
        met = []
        for i, (y, blocks) in enumerate(zip(x, self.blocks, strict=True)):
            other = read[1 - i].astype(read[i].dtype)
            branch = attentions[0 if self.shared else i](read[i], other, allowed=masks[1 - i][:, None])
            y = y + drop(branch, blocks.dropout, keys[i], CROSS_PLACE)
            y = y if pre[i] else met_norms[i](y)
            if self.mlp:
                chosen = blocks.activation, blocks.dtype, None, blocks.out_bias
                mlp = Mlp(blocks.hidden, blocks.initializers(), *chosen, name=f"mlp_{i}")
                norm = norms[i](f"norm_mlp_{i}")
                y = y + drop(mlp(norm(y) if pre[i] else y), blocks.dropout, keys[i], MLP_PLACE)
                y = y if pre[i] else norm(y)
            met.append(y)
        return met[0], met[1]

    def _attention(self, stream: int) -> CrossAttention:
        blocks = self.blocks[stream]
        inits = blocks.initializers()
        name = "cross" if self.shared else f"cross_{stream}"
        return CrossAttention(self.heads, inits, blocks.attention, self.inner, blocks.out_bias, name=name)


def _folded(keys: Key[Array, " b"], layer: Int[Array, ""] | int) -> Key[Array, " b"]:
    return jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)
