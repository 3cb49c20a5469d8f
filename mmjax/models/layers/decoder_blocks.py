"""The blocks of a text decoder as one value: those of any transformer, and what language models have beside them."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.errors import UserError, not_among
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.parameters import DtypeName, check_heads, parameter

NormKind = Literal["layer", "rms", "rms_offset"]


class OffsetRMSNorm(nn.Module):
    """RMSNorm `[... d]` -> `[... d]` that multiplies by 1 + scale, in fp32, of a scale that starts at 0: weight decay
    draws it towards no change (Gemma: Mesnard et al. 2024, arXiv:2403.08295)."""

    epsilon: float
    dtype: DtypeName = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        scale = parameter(self, "scale", nn.initializers.zeros, ("embed",), (x.shape[-1],))
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.epsilon)
        return (wide * (1 + scale)).astype(self.dtype)


@dataclass(frozen=True, kw_only=True)
class DecoderBlocks(Blocks):
    """The sizes and choices of a text decoder's blocks: `TextDecoder(..., blocks=DecoderBlocks(width=768, ...))`.

    Attributes, beside those of `Blocks`:
        gated: whether a second matrix into the MLP's width gives what the activation of the first one is multiplied by
            (Shazeer 2020, arXiv:2002.05202: with `silu` SwiGLU, with `gelu_tanh` GEGLU).
        kv_heads: number of heads of keys and values, a divisor of `heads`, each read by as many heads of queries
            (Ainslie et al. 2023, arXiv:2305.13245; 1: Shazeer 2019, arXiv:1911.02150). None: as many as `heads`.
        norms: `layer`, LayerNorms, or `rms`: RMSNorms, which subtract no mean and add no bias (Zhang and Sennrich 2019,
            arXiv:1910.07467), or `rms_offset`: those that multiply by 1 + scale (Gemma).
        head_dim: the number of channels of a head; None: width / heads.
        bias: whether the linear maps and the LayerNorms have biases (CapPa's and Llama's have none).
        window: the number of tokens, itself among them, that a token attends to in the local layers (GPT-3: Brown et
            al. 2020, arXiv:2005.14165, alternates dense and local ones and doesn't tell the width). None: every layer
            attends to all.
        window_every: every so many layers, counted from 1, are local; 1: all.
    """

    gated: bool = False
    kv_heads: int | None = None
    norms: NormKind = "layer"
    head_dim: int | None = None
    bias: bool = True
    window: int | None = None
    window_every: int = 2

    @property
    def key_heads(self) -> int:
        """The number of heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_size(self) -> int:
        """The number of channels of a head."""
        return check_heads(self.width, self.heads) if self.head_dim is None else self.head_dim

    def norm_layer(self, name: str | None = None, **within: Any) -> nn.Module:
        """A norm over the width, of statistics in fp32. within: what Linen modules take, `parent=None`."""
        dtype = jnp.dtype(self.dtype)
        scale = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
        if self.norms == "rms":
            return nn.RMSNorm(epsilon=self.norm_eps, dtype=dtype, scale_init=scale, name=name, **within)
        if self.norms == "rms_offset":
            return OffsetRMSNorm(self.norm_eps, self.dtype, name=name, **within)
        bias = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
        return nn.LayerNorm(
            epsilon=self.norm_eps,
            dtype=dtype,
            scale_init=scale,
            use_bias=self.bias,
            bias_init=bias,
            name=name,
            **within,
        )

    def windows(self) -> tuple[int | None, ...]:
        """The window of each layer; None: it attends to all."""
        every = self.window_every
        return tuple(self.window if (layer + 1) % every == 0 else None for layer in range(self.depth))

    def check(self) -> None:
        """Raises UserError as `Blocks.check` does, and where one of the further choices can't be."""
        super().check()
        if self.norms not in get_args(NormKind):
            raise UserError(not_among("norms", self.norms, get_args(NormKind)))
        if self.key_heads < 1 or self.heads % self.key_heads:
            fits = [n for n in range(1, self.heads + 1) if self.heads % n == 0]
            raise UserError(f"kv_heads={self.kv_heads} does not divide heads={self.heads}; these do: {fits}")
        if self.head_dim is not None and self.head_dim < 1:
            raise UserError(f"head_dim={self.head_dim} must be at least 1, or None: width / heads")
        if self.window is not None and (self.window < 1 or self.window_every < 1):
            raise UserError(
                f"window={self.window} with window_every={self.window_every}: both are at least 1, or window is None"
            )
