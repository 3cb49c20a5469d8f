"""One layer of a text decoder, over a whole text or over what comes next: attention, a context's, and the MLP."""

from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError, not_among
from mmjax.models.layers.activations import ACTIVATIONS
from mmjax.models.layers.attention_maps import attend_by
from mmjax.models.layers.decoder_blocks import DecoderBlocks
from mmjax.models.layers.dropout import drop
from mmjax.models.layers.memory import KeysValues, LayerMemory, attend_memory, stored
from mmjax.models.layers.parameters import HIDDEN, Initializer, constrain, parameter
from mmjax.models.layers.rotary import rotate
from mmjax.models.layers.transformer import LayerScale

CrossName = Literal["none", "within", "after", "gated"]


class Sight(NamedTuple):
    """The tokens that those of a pass may see; the same for all layers, but for a layer's window.

    mask: which tokens are seen at all; None: all.
    allowed: which tokens each one may see, of those that `mask` lets it, or which slots of a memory; None: itself and
        those before it.
    apart: by how many places each token stands behind each one that it may see; None where no layer has a window.
    angles: by which queries and keys are turned; None: none are.
    slots: where the tokens are written in a memory; None: there is none.
    context, context_mask: the tokens that are read beside; the mask alone where the memory has them already.
    """

    mask: Bool[Array, "b n"] | None = None
    allowed: Bool[Array, "#b n m"] | None = None
    apart: Int[Array, "#b n m"] | None = None
    angles: Float[Array, "*b n p"] | None = None
    slots: Int[Array, "b n"] | None = None
    context: Float[Array, "b c e"] | None = None
    context_mask: Bool[Array, "b c"] | None = None


class Heads(nn.Module):
    """`[b n d]` -> `parts` arrays `[b count n k]`, one product for all; the kernel is [D, count, parts, k], for a mesh
    cuts whole heads apart."""

    blocks: DecoderBlocks
    count: int
    parts: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> tuple[Float[Array, "b h n k"], ...]:
        blocks, axes = self.blocks, ("heads", None, "head_dim")
        shape = (self.count, self.parts, blocks.head_size)
        kernel = parameter(self, "kernel", blocks.initializers()["qkv"], ("embed", *axes), (x.shape[-1], *shape))
        y = jnp.einsum("bnd,dhpk->bnhpk", x, kernel.astype(x.dtype))
        if blocks.bias:
            y = y + parameter(self, "bias", nn.initializers.zeros, axes, shape).astype(x.dtype)
        each = (jnp.moveaxis(y[..., part, :], 1, 2) for part in range(self.parts))
        return tuple(constrain(one, "batch", "heads", "length", None) for one in each)


class Joined(nn.Module):
    """`[b h n k]` -> `[b n d]`; the kernel is [heads, k, D]."""

    blocks: DecoderBlocks

    @nn.compact
    def __call__(self, x: Float[Array, "b h n k"]) -> Float[Array, "b n d"]:
        blocks, axes = self.blocks, ("heads", "head_dim", "embed")
        shape = (x.shape[1], x.shape[3], blocks.width)
        kernel = parameter(self, "kernel", blocks.initializers()["out"], axes, shape)
        y = jnp.einsum("bhnk,hkd->bnd", x, kernel.astype(x.dtype))
        if blocks.bias and blocks.out_bias:
            y = y + parameter(self, "bias", nn.initializers.zeros, ("embed",), (blocks.width,)).astype(x.dtype)
        return y


def repeated(x: Float[Array, "b g n k"], heads: int) -> Float[Array, "b h n k"]:
    """Each head of keys or values as often as queries' heads read it."""
    return x if x.shape[1] == heads else jnp.repeat(x, heads // x.shape[1], axis=1)


class DecoderAttention(nn.Module):
    """Self-attention `[b n d]` -> `[b n d]`, of a whole text, or of new tokens over a memory's slots, which they enter
    first. Returns the memory too."""

    blocks: DecoderBlocks

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], sight: Sight, memory: KeysValues | None = None
    ) -> tuple[Float[Array, "b n d"], KeysValues | None]:
        blocks = self.blocks
        if blocks.kv_heads is None:
            query, key, value = Heads(blocks, blocks.heads, 3, name="qkv")(x)
        else:
            (query,) = Heads(blocks, blocks.heads, 1, name="query")(x)
            key, value = Heads(blocks, blocks.key_heads, 2, name="key_value")(x)
        if sight.angles is not None:
            query, key = (rotate(each, sight.angles) for each in (query, key))
        if memory is None:
            seen = sight.mask, sight.allowed is None, sight.allowed
            key, value = (repeated(each, blocks.heads) for each in (key, value))
            met = attend_by(self, blocks.attention, query, key, value, *seen)
        else:
            memory = stored(memory, KeysValues(key, value), sight.slots)  # pyright: ignore[reportArgumentType]
            met = attend_memory(query, memory, sight.allowed)  # pyright: ignore[reportArgumentType]
        return Joined(blocks, name="out")(met), memory


class ContextAttention(nn.Module):
    """Attention `[b n d]` -> `[b n d]` over a context's tokens, or over their keys and values where a memory has them.
    An example whose context is all masked takes in what attention over no token gives. Returns the keys and values."""

    blocks: DecoderBlocks

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], sight: Sight, memory: KeysValues | None = None
    ) -> tuple[Float[Array, "b n d"], KeysValues]:
        blocks = self.blocks
        (query,) = Heads(blocks, blocks.heads, 1, name="query")(x)
        if memory is None:
            memory = KeysValues(*Heads(blocks, blocks.key_heads, 2, name="key_value")(jnp.asarray(sight.context)))
            key, value = (repeated(each, blocks.heads) for each in memory)
            seen = None if sight.context_mask is None else sight.context_mask[:, None]
            met = attend_by(self, blocks.attention, query, key, value, allowed=seen)
        else:
            there = jnp.ones((1, 1, memory.key.shape[2]), bool)
            seen = there if sight.context_mask is None else sight.context_mask[:, None]
            met = attend_memory(query, memory, seen)
        return Joined(blocks, name="out")(met), memory


class DecoderMlp(nn.Module):
    """Dense, activation, perhaps times a second Dense, Dense: `[b n d]` -> `[b n d]`."""

    blocks: DecoderBlocks

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        blocks, inits = self.blocks, self.blocks.initializers()
        if blocks.activation not in ACTIVATIONS:
            raise UserError(not_among("activation", blocks.activation, ACTIVATIONS))

        def dense(size: int, axes: tuple[str, str], init: Initializer, bias: bool, name: str) -> nn.Dense:
            return nn.Dense(
                size,
                use_bias=bias,
                dtype=jnp.dtype(blocks.dtype),
                kernel_init=nn.with_logical_partitioning(init, axes),
                bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
                name=name,
            )

        into = partial(dense, blocks.hidden, ("embed", "mlp"), inits["mlp_in"], blocks.bias)
        hidden = ACTIVATIONS[blocks.activation](into("in")(x))
        hidden = hidden * into("gate")(x) if blocks.gated else hidden
        hidden = constrain(hidden, "batch", "length", "mlp")
        return dense(blocks.width, ("mlp", "embed"), inits["mlp_out"], blocks.bias and blocks.out_bias, "out")(hidden)


class DecoderLayer(nn.Module):
    """Attention, that over a context where `cross` is `within`, and the MLP, each added to the tokens: pre-norm
    `x += f(norm(x))`, or post-norm `x = norm(x + f(x))`.

    cross: `within`: the context is read between attention and MLP (Vaswani et al. 2017, arXiv:1706.03762); `after`: by
    a layer of its own after them, with an MLP (CoCa: Yu et al. 2022, arXiv:2205.01917, as open_clip has it); `gated`:
    by such a layer before them, whose two branches are multiplied by tanh of learned numbers that start at 0 (Flamingo:
    Alayrac et al. 2022, arXiv:2204.14198); `none`: there is no context.
    """

    blocks: DecoderBlocks
    cross: CrossName = "none"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        sight: Sight,
        keys: Key[Array, " b"] | None = None,
        memory: LayerMemory | None = None,
    ) -> tuple[Float[Array, "b n d"], LayerMemory | None]:
        """The tokens after the layer, and its memory.

        keys: each example's for dropout in this layer; None: nothing is dropped. memory: of the tokens before these;
        None: these are the whole text, and none is kept.
        """
        blocks, read = self.blocks, None if memory is None else memory.context
        if self.cross == "gated":
            x, read = ContextLayer(blocks, gated=True, name="cross")(x, sight, keys, read)
        attention = DecoderAttention(blocks, name="attention")
        x, own = self._branch(x, keys, 0, "attention", lambda y: attention(y, sight, memory and memory.own))
        if self.cross == "within":
            cross = ContextAttention(blocks, name="cross")
            x, read = self._branch(x, keys, 2, "cross", lambda y: cross(y, sight, read))
        mlp = DecoderMlp(blocks, name="mlp")
        x, _ = self._branch(x, keys, 1, "mlp", lambda y: (mlp(y), None))
        if self.cross == "after":
            x, read = ContextLayer(blocks, name="cross")(x, sight, keys, read)
        return x, None if own is None else LayerMemory(own, read)

    def _branch(
        self, x: Float[Array, "b n d"], keys: Key[Array, " b"] | None, place: int, name: str, function: Any
    ) -> tuple[Float[Array, "b n d"], Any]:
        """`x` and a branch, and what else the branch gives."""
        blocks, before = self.blocks, self.blocks.norm == "pre"
        norm, scale = blocks.norm_layer(f"norm_{name}"), LayerScale(blocks.layer_scale, name=f"scale_{name}")
        y, more = function(norm(x) if before else x)
        x = constrain(x + drop(scale(y), blocks.dropout, keys, place), *HIDDEN)
        return (x if before else norm(x)), more


class ContextLayer(nn.Module):
    """A layer that reads a context, and an MLP: both pre-norm, the context normed too, and both gated, perhaps."""

    blocks: DecoderBlocks
    gated: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], sight: Sight, keys: Key[Array, " b"] | None, memory: KeysValues | None
    ) -> tuple[Float[Array, "b n d"], KeysValues]:
        blocks = self.blocks
        norm_context = blocks.norm_layer("norm_context")
        if memory is None:
            sight = sight._replace(context=norm_context(sight.context))
        read, memory = ContextAttention(blocks, name="attention")(blocks.norm_layer("norm_attention")(x), sight, memory)
        x = x + drop(self._gate("attention", read), blocks.dropout, keys, 3)
        made = DecoderMlp(blocks, name="mlp")(blocks.norm_layer("norm_mlp")(x))
        return constrain(x + drop(self._gate("mlp", made), blocks.dropout, keys, 4), *HIDDEN), memory

    def _gate(self, name: str, y: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        if not self.gated:
            return y
        return y * jnp.tanh(parameter(self, f"gate_{name}", nn.initializers.zeros, (), ())).astype(y.dtype)
