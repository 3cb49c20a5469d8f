"""Masked modelling of a picture's codes: predicts the discrete code of each patch that the encoder didn't see (BEiT:
Bao et al. 2021, arXiv:2106.08254; FLAVA: Singh et al. 2021, arXiv:2112.04482)."""

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.beside import check_beside, check_only, own_part, read_beside, with_only
from mmjax.objectives.contract import Context, Fused, View, entry, valid
from mmjax.objectives.encoded import EncodedCorruptedPatches, read_by_head
from mmjax.objectives.head import HEAD_INIT, transformed
from mmjax.objectives.masked import chosen_positions
from mmjax.objectives.masking import CorruptPatches, Keep, KeepOutsideBlocks
from mmjax.objectives.numerics import at_least_fp32
from mmjax.objectives.token_errors import TokenErrors, averaged

BEIT = KeepOutsideBlocks(121 / 196)  # 75 of 14 x 14 patches are hidden


class MaskedCodes(nn.Module):
    """Masked image modelling: predicts the codes of the hidden patches, by the patches around them.

    The codes are an entry of the batch, int32 `[B, N]`, one for each patch of the tower's grid, row by row, in
    [0, vocab): what a frozen tokenizer of pictures gave for the same crop (`mmjax.data.Codes`), or the patches'
    quantised mean colours (`mmjax.data.ColourCodes`). The tower has `mask_token=True`: its mask token is read in the
    place of each hidden patch. The head is dense, GELU, layer norm, and a matrix to the codes; its logits are
    `[B, K, vocab]`, of the K hidden patches alone, in fp32. The loss is the cross-entropy, a mean over all hidden
    patches of the batch, and starts near ln(vocab). Examples without the picture or the codes don't count. Metrics,
    besides the loss: `accuracy`, over the hidden patches.

    Attributes:
        vocab: number of codes (8,192 of DALL-E's tokenizer, which BEiT and FLAVA take).
        codes: the batch's entry.
        keep: the part of the patches that is read as it is, or how these are chosen.
        norm_eps: of the head's layer norm.
        modality: the pictures.
        fusion: one of the experiment's fusions, whose tokens of the patches the head reads; None: the tower's.
        beside: what the fusion reads beside the picture: an input's name, for all of it, or a `View` of which parts are
            hidden too (FLAVA: `View("text", corrupt)`). The picture comes first, or where its own name stands here. A
            `MaskedText` that names the same views in the same order shares all encodings, the fusion's too. An example
            that lacks the others counts, by the picture alone.
        only: which examples count, by further inputs that they have (True) or lack (False): `{"text": True}` leaves
            pictures without a text out, `{"text": False}` those with one.
        transform: whether dense, GELU and layer norm stand before the matrix (BEiT-3 has the matrix alone).
    """

    vocab: int
    codes: str = "codes"
    keep: float | Keep = BEIT
    norm_eps: float = 1e-6
    modality: str = "image"
    fusion: str | None = None
    beside: tuple[str | View, ...] = ()
    only: Mapping[str, bool] = field(default_factory=dict)
    transform: bool = True

    @property
    def corrupt(self) -> CorruptPatches:
        """The masking of the picture; another objective whose view has an equal one shares the encoding."""
        return CorruptPatches(self.keep if isinstance(self.keep, Keep) else Keep(self.keep))

    def views(self) -> tuple[View | Fused, ...]:
        patches = View(self.modality, self.corrupt)
        return (patches,) if self.fusion is None else (Fused(self.fusion, read_beside(patches, self.beside)),)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where the data gives no codes, or not one for each patch, or more than `vocab`; where
        nothing is there for the fusion to read; where `only` names no input."""
        check_beside(path, self)
        check_only(path, self, inputs)
        if self.codes not in inputs:
            raise UserError(
                f"{path} learns the codes {self.codes!r}, which data.transforms lacks; it has chains for "
                f"{', '.join(inputs)}: add one that ends in Codes(...) or ColourCodes(...)"
            )
        given = inputs[self.codes]
        capacity = getattr(towers[self.modality], "capacity", None)
        count = None if capacity is None else math.prod(capacity())
        if given.dtype != "int32" or len(given.shape) != 1 or count not in (None, *given.shape):
            wanted = "int32[N]" if count is None else f"int32[{count}], for the patches of towers.{self.modality}"
            raise UserError(
                f"{path} learns the codes {self.codes!r}, and data.transforms gives {given}: it is {wanted}"
            )
        if given.pieces > self.vocab:
            raise UserError(
                f"{path} has vocab={self.vocab}, and data.transforms gives {self.codes!r} of {given.pieces} codes: set "
                f"vocab={given.pieces}"
            )

    @nn.compact
    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> TokenErrors:
        view: EncodedCorruptedPatches = own_part(self, encoded)
        codes, patches = entry(batch, self.codes), view.hidden.shape[1]
        if codes.ndim != 2 or codes.shape[1] != patches:
            raise UserError(
                f"the batch's {self.codes!r} is {codes.dtype}{list(codes.shape)}, and the pictures have {patches} "
                "patches: it is int32, one code for each patch"
            )
        positions, real = chosen_positions(view.hidden, self.corrupt.count(patches))
        targets = jnp.take_along_axis(codes, positions, axis=1)
        x = jnp.take_along_axis(read_by_head(view), view.prefix + positions[..., None], axis=1)
        logits: Float[Array, "b k v"] = nn.Dense(
            self.vocab,
            kernel_init=nn.with_logical_partitioning(HEAD_INIT, ("embed", "vocab")),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("vocab",)),
            name="predict",
        )(transformed(x, self.norm_eps) if self.transform else at_least_fp32(x))
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        hits = real & (jnp.argmax(logits, axis=-1) == targets)
        return TokenErrors(jnp.sum(jnp.where(real, cross_entropy, 0), axis=1), hits.sum(axis=1), real.sum(axis=1))

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the examples that have the picture and its codes, and the other inputs as `only` says."""
        rows = valid(batch, self.modality) & valid(batch, self.codes)
        return with_only(rows, self.only, batch)

    def batch_loss(self, outputs: TokenErrors, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        return averaged(outputs, self.counted(batch))
