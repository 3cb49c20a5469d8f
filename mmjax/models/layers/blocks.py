"""The blocks of a transformer as one value: their sizes, and how they compute. Whatever has blocks holds it."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, cast

import flax.linen as nn

from mmjax.errors import UserError, not_among
from mmjax.models.layers.activations import ActivationName
from mmjax.models.layers.attention_maps import OFFSETS, WEIGHTS
from mmjax.models.layers.attentions import AttentionName
from mmjax.models.layers.parameters import (
    REMAT_POLICIES,
    DtypeName,
    Initializer,
    InitName,
    NormName,
    RematName,
    block_inits,
    check_heads,
)

NORMS = ("pre", "post")
FORMER: dict[str, tuple[Any, ...]] = {
    "attention": ("plain",),
    "remat": (None,),
}  # defaults of before, in records


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The sizes and choices of a tower's, a trunk's or a decoder's blocks: `ViT(..., blocks=Blocks(width=768, ...))`.

    Two towers of an experiment may be given the very same one. It is then one part of the experiment: an override of
    `towers.image.blocks.depth` changes both.

    Attributes:
        width: size of a token.
        depth: number of blocks; 0: none, and no last LayerNorm either: a tower's tokens are its embeddings, for a
            fusion that does all the rest (ViLT).
        heads: number of attention heads, a divisor of the width.
        mlp_dim: width of the MLPs; None means 4 x width.
        activation: of the MLPs: `gelu` (erf), `gelu_tanh`, `quick_gelu` or `silu`.
        norm: where a block's LayerNorms stand: `pre`, before each branch, or `post`, after each sum.
        norm_eps: what every LayerNorm adds to the variance.
        layer_scale: what each channel of a branch is multiplied by at first, before it is added (1e-5 in DINOv2); the
            factors are learned. None: nothing is.
        out_bias: whether the last maps of attention and of the MLPs, those whose results are added, have a bias (MERLOT
            Reserve's have none).
        inits: of the matrices, `xavier`, `clip`, `bert`, `reserve`, `gpt1` or `gpt2`, see `block_inits`.
        dropout: rate on both branches of a block, with train=True only; in a tower with blocks of its own also before
            the first.
        remat: what is kept for the backward pass; the rest is computed again, the same numbers. `dots`: each block's
            input and the results of the projections and of fused attention, which in a loop is the fastest, as writing
            and reading cost more than an activation; `full`: no more than the block's input, which takes the least
            memory; None: all activations.
        unroll: number of blocks (with windows: of pairs) that stand one after the other in a turn of the compiled loop;
            `depth` of them leave no loop, so that nothing is copied into and out of arrays of all blocks, and take
            longer to compile. On a CPU `remat` then saves no memory. The same numbers, except for rounding.
        dtype: of the computation; parameters are float32.
        attention: `auto`, by device, dtype and length (`attentions.suitable`); `plain` (`attend`); or a fused kernel:
            `cudnn`, for 16-bit `dtype` on an NVIDIA GPU, or `pallas` on a TPU.
    """

    width: int
    depth: int
    heads: int
    mlp_dim: int | None = None
    activation: ActivationName = "gelu"
    norm: NormName = "pre"
    norm_eps: float = 1e-6
    layer_scale: float | None = None
    out_bias: bool = True
    inits: InitName = "xavier"
    dropout: float = 0.0
    remat: RematName | None = "dots"
    unroll: int = 1
    dtype: DtypeName = "float32"
    attention: AttentionName = "auto"

    @property
    def hidden(self) -> int:
        """The width of the MLPs: `mlp_dim`, or 4 x width."""
        return self.mlp_dim or 4 * self.width

    def initializers(self) -> dict[str, Initializer]:
        """The initialisers of a block's four matrices, see `block_inits`."""
        return block_inits(self.inits, self.width, self.hidden, self.depth)

    def check(self) -> None:
        """Raises UserError where a choice isn't among those that there are, or the heads don't divide the width."""
        if self.norm not in NORMS:
            raise UserError(not_among("norm", self.norm, NORMS))
        if self.remat is not None and self.remat not in REMAT_POLICIES:
            raise UserError(not_among("remat", self.remat, REMAT_POLICIES))
        if type(self.unroll) is not int or self.unroll < 1:
            raise UserError(
                f"unroll={self.unroll!r} must be a whole number, from 1 (a loop over the blocks) to depth={self.depth} "
                "(no loop)"
            )
        check_heads(self.width, self.heads)

    def scanned(self, block: type[nn.Module], length: int, in_axes: Any) -> Any:
        """`block`, `length` times one after the other: the compiled program holds it `unroll` times. What it keeps for
        the backward pass, `remat` says. in_axes: of its inputs beside the tokens, as `nn.scan` takes them."""
        self.check()
        if self.remat is not None:
            # Without a loop between the passes, XLA would find what is computed again and keep the first instead.
            block = nn.remat(block, prevent_cse=self.unroll > 1, policy=REMAT_POLICIES[self.remat])
        return nn.scan(
            block,
            variable_axes={"params": 0, WEIGHTS: 0, OFFSETS: 0},
            split_rngs={"params": True},
            in_axes=cast(Any, in_axes),  # what its annotation forgets
            length=length,
            unroll=self.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )

    def set_among(self, names: Iterable[str]) -> list[str]:
        """The fields of `names` that aren't left at a default, as `norm='post'`: what a transformer that can't
        honour them names."""
        usual = {field.name: (field.default, *FORMER.get(field.name, ())) for field in fields(self)}
        values = {name: getattr(self, name) for name in names}
        return [f"{name}={value!r}" for name, value in values.items() if value not in usual[name]]
