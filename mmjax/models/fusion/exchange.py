"""Fusion by the exchange of channels between inputs (CEN: Wang et al. 2020, arXiv:2011.05005)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jaxtyping import Array, Bool, Float, Key

from mmjax.errors import UserError, not_among
from mmjax.models.fusion.missing import check_drop_rate, present_inputs
from mmjax.models.layers.activations import ACTIVATIONS, ActivationName
from mmjax.models.layers.dropout import dropout_keys
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.layers.parameters import DtypeName, dense, parameter, projection_init
from mmjax.models.layers.pooling import mean

NORM = "norm_"  # before an input's name: its norms, in the parameters

Tokens = Mapping[str, Float[Array, "b n d"]]
Reals = Mapping[str, Bool[Array, "b n"]]


class OwnNorms(nn.Module):
    """The gains and offsets of an input's norms in all blocks, `[depth, H]` each."""

    depth: int

    @nn.compact
    def __call__(self, width: int) -> tuple[Float[Array, "l h"], Float[Array, "l h"]]:
        shape, names = (self.depth, width), ("layers", "mlp")
        scale = parameter(self, "scale", nn.initializers.ones, names, shape)
        return scale, parameter(self, "bias", nn.initializers.zeros, names, shape)


class Exchange(nn.Module, kw_only=True):
    """Residual MLPs that all inputs share, but for the norm of the hidden channels, and that give up channels to each
    other: where the gain of an input's norm is smaller than `threshold`, that channel of its tokens is replaced by the
    mean of the other inputs' channel at the same place of the grid, behind their norms.

    For inputs whose tokens stand for the same places, a picture and its depth map say: as many tokens, equally wide. A
    block is x + out(activation(exchanged(norm_m(in(x))))); the convolutions of the paper are of one token here, and the
    norm is a LayerNorm, whose statistics depend neither on the batch nor on its cut. Gains only become small where a
    loss has `penalty()`. The choice of channels has no gradient; what is taken has one, what it replaces has none.

    A channel stays as it is where no other input has a real token, and a token that isn't real gives nothing. So an
    example that lacks inputs is fused from the others alone.

    Attributes:
        depth: number of blocks.
        hidden: width H of the blocks' hidden channels; None: that of the tokens.
        threshold: the size of a gain below which its channel is exchanged (0.02 in the paper's code).
        activation: `gelu` (erf), `gelu_tanh` or `quick_gelu`.
        norm_eps: what every norm adds to the variance.
        drop_inputs: in training the rate at which an input of an example is taken for missing; one always stays
            (`mmjax.models.fusion.missing`).
        dtype: of the computation; parameters are float32, and so is the embedding.
    """

    reads: ClassVar[str] = "tokens"

    depth: int = 1
    hidden: int | None = None
    threshold: float = 0.02
    activation: ActivationName = "gelu"
    norm_eps: float = 1e-6
    drop_inputs: float = 0.0
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(
        self, tokens: Mapping[str, TokensAndMask], train: bool = False, keys: Key[Array, " b"] | None = None
    ) -> tuple[dict[str, TokensAndMask], Float[Array, "b d"]]:
        """The tokens `[B,N,D]` after the blocks, in `dtype`, those of a dropped input not real; and the embedding
        `[B,D]`, float32: the mean of each input's real tokens, weighted by a softmax, over the inputs that are there,
        of learned numbers (`weight_<input>`). An example without any input has zeros.

        Raises:
            UserError: there are fewer than two inputs, or their tokens' shapes differ; a field's value isn't allowed.
        """
        self._check(tokens)
        names = sorted(tokens)
        reals = self._reals({name: tokens[name][1] for name in names}, train, keys)
        x = {name: jnp.where(reals[name][..., None], tokens[name][0], 0).astype(self.dtype) for name in names}
        width = x[names[0]].shape[-1]
        hidden = self.hidden or width
        norms = {name: OwnNorms(self.depth, name=f"{NORM}{name}")(hidden) for name in names}
        for block in range(self.depth):
            here = {name: (scale[block], bias[block]) for name, (scale, bias) in norms.items()}
            x = self._block(block, x, reals, here, hidden)
        weights = jnp.stack([parameter(self, f"weight_{name}", nn.initializers.zeros, (), ()) for name in names])
        there = jnp.stack([reals[name].any(axis=1) for name in names], axis=1)
        some = there.any(axis=1, keepdims=True)
        weights = jax.nn.softmax(jnp.broadcast_to(weights, there.shape), axis=1, where=there | ~some)
        means = jnp.stack([mean(x[name], reals[name]).astype(jnp.float32) for name in names], axis=1)
        return {name: (x[name], reals[name]) for name in tokens}, jnp.einsum("bm,bmd->bd", weights, means)

    def penalty(self) -> Float[Array, ""]:
        """The sum of the sizes of gains that are to become small: of each input, in the order of their names, those of
        a part of the channels that is its own, so that no channel is given up by two. For a loss, times 2e-4 in the
        paper's code, in a module that has called this one.

        Raises UserError where there are no parameters yet.
        """
        held: Any = meta.unbox(self.variables.get("params", {}))
        scales = [held[name]["scale"] for name in sorted(held) if name.startswith(NORM)]
        if not scales:
            raise UserError("an Exchange has no gains before it was first called: call it, then ask for its penalty()")
        width = scales[0].shape[-1]
        part = np.arange(width) * len(scales) // width
        return sum((jnp.abs(scale[:, part == place]).sum() for place, scale in enumerate(scales)), jnp.zeros(()))

    def _check(self, tokens: Mapping[str, TokensAndMask]) -> None:
        if len(tokens) < 2:
            raise UserError(
                f"an Exchange fuses the tokens of at least two inputs, and was given {', '.join(tokens) or 'none'}: "
                "add an input to the fused view, or leave the fusion out"
            )
        shapes = {name: tuple(x.shape[1:]) for name, (x, _) in tokens.items()}
        if len(set(shapes.values())) > 1:
            raise UserError(
                f"an Exchange was given tokens [N, D] of {shapes}: it exchanges channels of the same places, so these "
                "must be equal; for others take a fusion by attention"
            )
        check_drop_rate(self.drop_inputs)
        if self.activation not in ACTIVATIONS:
            raise UserError(not_among("activation", self.activation, ACTIVATIONS))
        if self.depth < 1 or (self.hidden is not None and self.hidden < 1):
            raise UserError(f"depth={self.depth} and hidden={self.hidden} of an Exchange must be at least 1")

    def _reals(self, masks: Reals, train: bool, keys: Key[Array, " b"] | None) -> dict[str, Bool[Array, "b n"]]:
        """The masks of the tokens, without inputs that are dropped."""
        there = jnp.stack([mask.any(axis=1) for mask in masks.values()], axis=1)
        keys = dropout_keys(self, self.drop_inputs, train, keys, len(there))
        there = present_inputs(there, self.drop_inputs, keys)
        return {name: mask & there[:, place, None] for place, (name, mask) in enumerate(masks.items())}

    def _block(
        self, block: int, x: Tokens, reals: Reals, norms: Mapping[str, tuple[Array, Array]], hidden: int
    ) -> dict[str, Float[Array, "b n d"]]:
        width = next(iter(x.values())).shape[-1]
        into = dense(hidden, ("embed", "mlp"), projection_init(width, hidden), dtype=self.dtype, name=f"in_{block}")
        out = dense(width, ("mlp", "embed"), projection_init(hidden, width), dtype=self.dtype, name=f"out_{block}")
        norm = nn.LayerNorm(epsilon=self.norm_eps, use_scale=False, use_bias=False, dtype=jnp.dtype(self.dtype))
        normed = {}
        for name, tokens in x.items():
            scale, bias = (each.astype(self.dtype) for each in norms[name])
            normed[name] = norm(into(tokens)) * scale + bias
        small = {name: jnp.abs(scale) < self.threshold for name, (scale, _) in norms.items()}
        activate, taken = ACTIVATIONS[self.activation], exchanged(normed, reals, small)
        return {name: tokens + out(activate(taken[name])) for name, tokens in x.items()}


def exchanged(
    channels: Tokens, reals: Reals, small: Mapping[str, Bool[Array, " d"]]
) -> dict[str, Float[Array, "b n d"]]:
    """Each input's channels; where they are `small`, the mean over the real tokens of the others at that place."""
    found = {}
    for name, own in channels.items():
        others = [other for other in channels if other != name]
        real = jnp.stack([reals[other] for other in others])[..., None]
        total = jnp.where(real, jnp.stack([channels[other] for other in others]), 0).sum(axis=0)
        count = real.sum(axis=0).astype(own.dtype)
        found[name] = jnp.where(small[name] & (count > 0), total / jnp.maximum(count, 1), own)
    return found
