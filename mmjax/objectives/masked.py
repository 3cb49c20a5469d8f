"""Masked modelling of one modality: predicts the patches or words that the encoder didn't read.

Sums and counts go over the whole global batch before the one division: a mean of means would weigh an example by how
the batch was cut, and by how many patches its microbatch happened to hide.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.beside import check_beside, check_only, own_part, read_beside, with_only
from mmjax.objectives.contract import Context, Fused, View, of_teacher, valid
from mmjax.objectives.encoded import EncodedCorrupted, EncodedKept, read_by_head
from mmjax.objectives.encoding import EMA
from mmjax.objectives.head import HEAD_INIT, transformed
from mmjax.objectives.masking import Corrupt, Keep, PatchMasking
from mmjax.objectives.masking_tubes import KeepTubes
from mmjax.objectives.numerics import at_least_fp32, weighted_mean
from mmjax.objectives.soft_targets import check_alpha, ramped
from mmjax.objectives.token_errors import TokenErrors, averaged

VARIANCE_EPSILON = 1e-6  # MAE's: a patch of one colour has a target of 0, not of amplified noise


class Errors(NamedTuple):
    """The sums of each example: the total error, and the number of its terms."""

    total: Float[Array, " b"]
    count: Int[Array, " b"]


class MaskedPatches(nn.Module):
    """Masked autoencoder (MAE, arXiv:2111.06377): the encoder reads some patches, a light decoder predicts the others.

    The loss is the squared error, averaged over a patch's values and then over all hidden patches of the batch; with
    normalised targets it starts near 1 (below it by the share of patches of one colour).

    Attributes:
        modality: the one that is rebuilt.
        decoder: see `mmjax.models.Decoder`, without `out_dim`: from the kept tokens it gives the states of all N
            patches, and the prediction is a linear map of them.
        keep: the part of the patches that the encoder sees, each as likely as any other; or how else they are chosen
            (see `mmjax.objectives.masking`).
        normalise: targets have mean 0 and variance 1 in each patch (better representations, MAE's table 1d).
        channels: number of channels, in each of which a patch's targets are normalised by themselves (VideoMAE's code:
            3); they are the last axis of a patch's values. 1: in all of them together.
    """

    modality: str
    decoder: Any
    keep: float | PatchMasking = 0.25
    normalise: bool = True
    channels: int = 1

    def views(self) -> tuple[View, ...]:
        return (View(self.modality, self.keep if isinstance(self.keep, PatchMasking) else Keep(self.keep)),)

    @nn.compact
    def predictions(self, view: EncodedKept, **dropping: Any) -> Float[Array, "b n p"]:
        """Predicts what every patch of the view holds (normalised, if targets are), fp32 at least.

        dropping: what the decoder is told where it drops out (`decoder_dropout`).
        """
        decoded = self.decoder(
            view.tokens, view.token_mask, view.keep, view.grid, view.prefix, patch_mask=view.patch_mask, **dropping
        )
        return nn.Dense(
            view.patches.shape[-1],
            kernel_init=nn.with_logical_partitioning(nn.initializers.xavier_uniform(), ("embed", "patch")),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("patch",)),
            name="predict",
        )(at_least_fp32(decoded))

    def per_example(self, encoded: Mapping[View, EncodedKept], batch: Mapping[str, Array], context: Context) -> Errors:
        view = encoded[self.views()[0]]
        target = at_least_fp32(view.patches)
        if self.normalise:
            target = normalised_patches(target, self.channels)
        predictions = self.predictions(view, **decoder_dropout(self.decoder, context))
        error = jnp.mean(jnp.square(predictions - jax.lax.stop_gradient(target)), axis=-1)
        hidden = view.patch_mask & ~kept(view.keep, target.shape[1])
        return Errors(jnp.sum(jnp.where(hidden, error, 0), axis=1), hidden.sum(axis=1))

    def batch_loss(self, outputs: Errors, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        return weighted_mean(*outputs, valid(batch, self.modality)), {}


class MaskedImage(MaskedPatches):
    """MAE (arXiv:2111.06377): three quarters of a picture's patches are rebuilt from the rest. See `MaskedPatches`."""

    modality: str = "image"
    decoder: Any = None
    keep: float | PatchMasking = 0.25


class MaskedAudio(MaskedPatches):
    """AudioMAE (arXiv:2207.06405): four fifths of a spectrogram's patches are rebuilt. See `MaskedPatches`."""

    modality: str = "audio"
    decoder: Any = None
    keep: float | PatchMasking = 0.2


class MaskedVideo(MaskedPatches):
    """VideoMAE (Tong et al. 2022, arXiv:2203.12602): nine tenths of a video's tubes are rebuilt from the rest, each
    tubelet normalised in each channel, as in its code. See `MaskedPatches`.
    """

    modality: str = "video"
    decoder: Any = None
    keep: float | PatchMasking = KeepTubes(0.1)
    channels: int = 3


class MaskedText(nn.Module):
    """Masked language modelling (BERT, arXiv:1810.04805): predicts the hidden tokens.

    The head is BERT's: dense, GELU, layer norm, matrix to the vocabulary; or that matrix alone. The chosen positions
    are gathered first, so the logits are `[B, rate * L, vocab]`, in fp32. The loss starts near ln(vocab). Metrics,
    besides the loss: `accuracy`, over the chosen positions.

    Attributes:
        vocab, rate, mask_id, first_id, masked, random: see `mmjax.objectives.Corrupt`.
        norm_eps: of the head's layer norm.
        tied: the last matrix is the tower's table of token embeddings, as in BERT, and only its bias is the head's own.
        modality: the texts.
        fusion: one of the experiment's fusions, whose tokens of the text the head reads; None: the tower's.
        beside: what the fusion reads beside the text: an input's name, for all of it, or a `View` of which parts are
            hidden too (FLAVA). `("image",)` is for words with the picture (ALBEF). The text comes first, or where its
            own name stands here. An example that lacks the others counts, by the text alone.
        only: which examples count, by further inputs that they have (True) or lack (False): `{"image": True}` leaves
            texts without a picture out, `{"image": False}` those with one.
        transform: whether dense, GELU and layer norm stand before the matrix (BEiT-3 has the matrix alone).
        paired_rate: the rate of the examples that have all that stands beside the text; None: `rate`.
        alpha: a teacher's part in the targets (ALBEF, arXiv:2107.07651), which reads the same words by the moving
            average of towers, fusion and head: the experiment needs `ema`. The loss of a word is then `(1 - alpha)
            cross-entropy + alpha * -sum_v t_v log p_v`, t the teacher's softmax. It encodes everything once more.
        ramp_steps: the steps in which it rises from 0, `alpha * min(1, step / ramp_steps)`; 0: it is there from the
            start.
    """

    vocab: int
    rate: float = 0.15
    mask_id: int = 4
    first_id: int = 5
    masked: float = 0.8
    random: float = 0.1
    norm_eps: float = 1e-6
    tied: bool = False
    modality: str = "text"
    fusion: str | None = None
    beside: tuple[str | View, ...] = ()
    only: Mapping[str, bool] = field(default_factory=dict)
    transform: bool = True
    paired_rate: float | None = None
    alpha: float = 0.0
    ramp_steps: int = 0

    @property
    def others(self) -> tuple[str, ...]:
        """The inputs that stand beside the text."""
        names = (one if isinstance(one, str) else one.input for one in self.beside)
        return tuple(name for name in names if name != self.modality)

    @property
    def corrupt(self) -> Corrupt:
        """The masking of the text; a contrastive objective whose `masking` has an equal one shares the encoding."""
        return Corrupt(
            vocab=self.vocab,
            rate=self.rate,
            mask_id=self.mask_id,
            first_id=self.first_id,
            masked=self.masked,
            random=self.random,
            paired=() if self.paired_rate is None else self.others,
            paired_rate=self.paired_rate,
        )

    def views(self) -> tuple[View | Fused, ...]:
        words = View(self.modality, self.corrupt)
        view = words if self.fusion is None else Fused(self.fusion, read_beside(words, self.beside))
        return (view, of_teacher(view)) if self.alpha else (view,)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where it is tied to a table of another size, or nothing is there for the fusion to read."""
        check_beside(path, self)
        check_only(path, self, inputs)
        check_alpha(path, self.alpha, self.ramp_steps)
        vocab = getattr(towers[self.modality], "vocabulary", None)
        if self.tied and vocab is not None and self.vocab != vocab:
            raise UserError(
                f"{path} is tied to the table of towers.{self.modality}, which has vocab={vocab}, and has "
                f"vocab={self.vocab}: set it to {vocab} too"
            )

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> TokenErrors:
        view: EncodedCorrupted = own_part(self, encoded)
        positions, real = chosen_positions(view.chosen, self.corrupt.count(view.chosen.shape[1]))
        targets = jnp.take_along_axis(view.ids, positions, axis=1)
        logits = self.predicted(view, positions)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        if self.alpha:
            told = self._by_teacher(own_part(self, encoded, teacher=True), positions)
            alpha = ramped(self.alpha, self.ramp_steps, context.step)
            soft = optax.softmax_cross_entropy(logits, jax.nn.softmax(jax.lax.stop_gradient(told)))
            cross_entropy = (1 - alpha) * cross_entropy + alpha * soft
        hits = real & (jnp.argmax(logits, axis=-1) == targets)
        return TokenErrors(jnp.sum(jnp.where(real, cross_entropy, 0), axis=1), hits.sum(axis=1), real.sum(axis=1))

    @nn.compact
    def predicted(self, view: EncodedCorrupted, positions: Int[Array, "b k"]) -> Float[Array, "b k {self.vocab}"]:
        """The logits of every token of the vocabulary, at these positions."""
        x = jnp.take_along_axis(read_by_head(view), view.prefix + positions[..., None], axis=1)
        return self._words(transformed(x, self.norm_eps) if self.transform else at_least_fp32(x), view.table)

    def _by_teacher(self, view: EncodedCorrupted, positions: Int[Array, "b k"]) -> Float[Array, "b k {self.vocab}"]:
        """The logits by the head of the moving average."""
        if self.is_initializing():  # its head isn't there yet, and is the student's
            return jnp.zeros((*positions.shape, self.vocab))
        average = {"params": self.variables.get(EMA, {})}
        return cast(Array, self.clone(parent=None, name=None).apply(average, view, positions, method="predicted"))

    def _words(self, x: Float[Array, "b k d"], table: Float[Array, "v d"] | None) -> Float[Array, "b k {self.vocab}"]:
        """The logits of every token of the vocabulary."""
        bias_init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("vocab",))
        if not self.tied:
            kernel_init = nn.with_logical_partitioning(HEAD_INIT, ("embed", "vocab"))
            return nn.Dense(self.vocab, kernel_init=kernel_init, bias_init=bias_init, name="words")(x)
        if table is None or table.shape != (self.vocab, x.shape[-1]):
            found = "has none" if table is None else f"has one of {table.shape[0]} tokens, {table.shape[1]} wide"
            raise UserError(
                f"MaskedText(vocab={self.vocab}, tied=True) needs a table of so many tokens, {x.shape[-1]} wide, and "
                f"the text tower {found}: set vocab to the tower's, or tied=False"
            )
        bias = cast(Array, self.param("bias", bias_init, (self.vocab,)))
        return jnp.einsum("bkd,vd->bkv", x, at_least_fp32(table)) + bias

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the examples that have the text, and the other inputs as `only` says."""
        return with_only(valid(batch, self.modality), self.only, batch)

    def batch_loss(self, outputs: TokenErrors, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        return averaged(outputs, self.counted(batch))


def decoder_dropout(decoder: Any, context: Context) -> dict[str, Any]:
    """Returns what a decoder is told beside its tokens where it drops out: that it trains, and each example's key.
    Nothing where it has no dropout, so that no keys are made."""
    rate = getattr(getattr(decoder, "blocks", None), "dropout", 0)
    return {"train": True, "keys": context.keys} if context.train and rate else {}


def normalised_patches(patches: Float[Array, "b n p"], channels: int = 1) -> Float[Array, "b n p"]:
    """Normalises each patch to mean 0 and variance 1: `(x - mean) / sqrt(var + 1e-6)`, var unbiased as in
    MAE's code.

    channels: the last axis of a patch's values, each of which is normalised by itself.
    """
    if channels > 1:
        cells = patches.reshape(*patches.shape[:-1], -1, channels)
        return jnp.moveaxis(normalised_patches(jnp.moveaxis(cells, -1, -2)), -2, -1).reshape(patches.shape)
    centred = patches - patches.mean(axis=-1, keepdims=True)
    variance = jnp.sum(jnp.square(centred), axis=-1, keepdims=True) / (patches.shape[-1] - 1)
    return centred * jax.lax.rsqrt(variance + VARIANCE_EPSILON)


def kept(keep: Int[Array, "b k"], patches: int) -> Bool[Array, "b n"]:
    """A mask of those of the N patches that are in `keep` (-1 is none of them)."""
    return (keep[:, :, None] == jnp.arange(patches)).any(axis=1)


def chosen_positions(chosen: Bool[Array, "b l"], slots: int) -> tuple[Int[Array, "b k"], Bool[Array, "b k"]]:
    """The chosen positions of each row, ascending, in `slots` slots, and a mask of the filled slots."""
    positions = jnp.argsort(~chosen, axis=1, stable=True)[:, :slots]
    return positions, jnp.take_along_axis(chosen, positions, axis=1)
