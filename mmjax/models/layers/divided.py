"""Transformer blocks in which the patches of a video attend along time, then along space (TimeSformer: Bertasius et al.
2021, arXiv:2102.05095), scanned."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.dropout import drop, dropout_keys
from mmjax.models.layers.parameters import HIDDEN, constrain, dense, layer_norm
from mmjax.models.layers.pooling import mean
from mmjax.models.layers.transformer import Attention, LayerScale, Mlp

TIME = 3  # the place of dropout on the branch along time (see `drop`); those of a plain block are below


class DividedBlock(nn.Module):
    """One block, pre-LN, on `[B, prefix + T * S, D]`: each patch attends to those of its place in other steps, then
    each step's patches and the prefix to each other, then the MLP. Returns a pair, as a scan's body does.

    The branch along time ends in a linear map of its own, zero at first: the block is then a plain one, step by step.
    The tokens of the prefix have no branch along time; along space each step makes one, and the mean over the real
    steps is added.
    """

    blocks: Blocks
    steps: int
    prefix: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "b t"] | None = None,
        keys: Key[Array, " b"] | None = None,
        space: Float[Array, "m p"] | None = None,
        time: Float[Array, "t p"] | None = None,
        layer: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "b n d"], None]:
        blocks, prefix, steps = self.blocks, self.prefix, self.steps
        batch, _, width = x.shape
        inits = blocks.initializers()
        norm = partial(layer_norm, eps=blocks.norm_eps, dtype=blocks.dtype)
        attention = partial(Attention, blocks.heads, inits, attention=blocks.attention, out_bias=blocks.out_bias)
        if keys is not None:
            keys = jax.vmap(lambda key: jax.random.fold_in(key, layer))(keys)

        first, patches = x[:, :prefix], x[:, prefix:].reshape(batch, steps, -1, width)
        cells = patches.shape[2]
        along = jnp.moveaxis(norm("norm_time")(patches), 1, 2).reshape(batch * cells, steps, width)
        seen = None if mask is None else jnp.repeat(mask, cells, axis=0)
        along = attention(name="time")(along, seen, time)
        along = dense(width, ("embed", None), nn.initializers.zeros, dtype=blocks.dtype, name="time_out")(along)
        along = LayerScale(blocks.layer_scale, name="scale_time")(along)
        along = jnp.moveaxis(along.reshape(batch, cells, steps, width), 2, 1)
        patches = patches + drop(along, blocks.dropout, keys, TIME)

        each = jnp.broadcast_to(first[:, None], (batch, steps, prefix, width))
        each = norm("norm_attention")(jnp.concatenate([each, patches], axis=2))
        each = attention(name="attention")(each.reshape(batch * steps, prefix + cells, width), None, space)
        each = LayerScale(blocks.layer_scale, name="scale_attention")(each).reshape(batch, steps, -1, width)
        real = jnp.ones((batch, steps), bool) if mask is None else mask
        firsts = mean(each[:, :, :prefix].reshape(batch, steps, prefix * width), real).reshape(first.shape)
        x = jnp.concatenate([first, patches.reshape(batch, -1, width)], axis=1)
        branch = jnp.concatenate([firsts, each[:, :, prefix:].reshape(batch, -1, width)], axis=1)
        x = constrain(x + drop(branch, blocks.dropout, keys, 0), *HIDDEN)

        mlp = Mlp(blocks.hidden, inits, blocks.activation, blocks.dtype, out_bias=blocks.out_bias, name="mlp")
        branch = LayerScale(blocks.layer_scale, name="scale_mlp")(mlp(norm("norm_mlp")(x)))
        return constrain(x + drop(branch, blocks.dropout, keys, 1), *HIDDEN), None


class DividedTransformer(nn.Module):
    """Such blocks one after the other, scanned, and a last LayerNorm.

    What of its parameters stands along space, the MLPs and the norms before them have the names of a `Transformer`'s,
    so that those of a picture's tower can be loaded.

    Attributes:
        blocks: their number, sizes and choices; pre-LN.
        final_norm: whether there is that LayerNorm.
    """

    blocks: Blocks
    final_norm: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        steps: int,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
        keys: Key[Array, " b"] | None = None,
        space: Float[Array, "m p"] | None = None,
        time: Float[Array, "t p"] | None = None,
        prefix: int = 0,
    ) -> Float[Array, "b n d"]:
        """The encoded tokens.

        Args:
            x: tokens: `prefix` of the whole video, then the patches of `steps` steps, step by step.
            mask: which steps are real; None: all.
            train: whether dropout acts.
            keys: each example's key for it.
            space: the angles by which queries and keys are turned along space, of the prefix and a step's patches.
            time: the same, along time, of the steps.

        Raises:
            UserError: the blocks are post-LN.
        """
        blocks = self.blocks
        blocks.check()
        if blocks.norm != "pre":
            raise UserError(f"blocks that attend along time and space are pre-LN, and have norm={blocks.norm!r}")
        x = constrain(x.astype(blocks.dtype), *HIDDEN)
        if not blocks.depth:
            return x
        scanned = blocks.scanned(DividedBlock, blocks.depth, (*[nn.broadcast] * 4, 0))
        keys = dropout_keys(self, blocks.dropout, train, keys, len(x))
        x, _ = scanned(blocks, steps, prefix, name="blocks")(x, mask, keys, space, time, jnp.arange(blocks.depth))
        return layer_norm("norm", eps=blocks.norm_eps, dtype=blocks.dtype)(x) if self.final_norm else x
