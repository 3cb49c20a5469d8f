"""Masked modelling of pictures and texts in one sequence (M3AE: Geng et al. 2022, arXiv:2205.14204)."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from mmjax.models.decoders.patches_and_words import Kept
from mmjax.objectives.contract import Context, Together, View
from mmjax.objectives.encoded import EncodedKept, EncodedTogether
from mmjax.objectives.head import HEAD_INIT
from mmjax.objectives.masked import Errors, decoder_dropout, kept, normalised_patches
from mmjax.objectives.masking import Keep
from mmjax.objectives.numerics import at_least_fp32, weighted_mean
from mmjax.objectives.token_errors import TokenErrors


class Both(NamedTuple):
    """The sums of each example, by modality."""

    image: Errors
    text: TokenErrors


class MaskedTogether(nn.Module):
    """Masked modelling over two modalities: the encoder reads some patches of a picture and some words of its text; a
    light decoder predicts all the others.

    The towers of both hold one `Trunk`. The loss is MAE's (squared error of the hidden patches' values) and
    `text_weight` times the cross-entropy of the hidden words, each a mean over all hidden patches or words in the
    batch. An example that lacks its picture or its text counts with the other. The kept parts are drawn for each
    example alone (the released code draws it once for a device's batch). Metrics, besides the loss: `image_loss`,
    `text_loss` (it starts near ln(vocab)), `text_accuracy`.

    Attributes:
        vocab: number of token ids.
        decoder: a `mmjax.models.JointDecoder`.
        keep_image, keep_text: the parts of patches and of words that the encoder sees.
        text_weight: of the words' loss (0.5: the large model's recipe, 0.1: the released code's default).
        normalise: targets of a patch have mean 0 and variance 1.
        pair: the two modalities, patches first; metrics are called by them.
    """

    vocab: int
    decoder: Any
    keep_image: float = 0.25
    keep_text: float = 0.25
    text_weight: float = 0.5
    normalise: bool = True
    pair: tuple[str, str] = ("image", "text")

    def views(self) -> tuple[Together, ...]:
        patches, words = self.pair
        return (Together((View(patches, Keep(self.keep_image)), View(words, Keep(self.keep_text)))),)

    @nn.compact
    def per_example(self, encoded: Mapping[Any, EncodedTogether], batch: Mapping[str, Array], context: Context) -> Both:
        view = encoded[self.views()[0]]
        image, text = cast(tuple[EncodedKept, EncodedKept], view.parts)
        sides = [Kept(part.keep, part.grid, part.patch_mask) for part in (image, text)]
        dropping = decoder_dropout(self.decoder, context)
        patches, words = self.decoder(view.tokens, view.token_mask, sides, view.prefix, **dropping)
        hidden = [side.patch_mask & ~kept(side.keep, side.patch_mask.shape[1]) for side in sides]

        target = at_least_fp32(image.patches)
        target = jax.lax.stop_gradient(normalised_patches(target) if self.normalise else target)
        prediction = nn.Dense(
            target.shape[-1],
            kernel_init=nn.with_logical_partitioning(nn.initializers.xavier_uniform(), ("embed", "patch")),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("patch",)),
            name="pixels",
        )(at_least_fp32(patches))
        error = jnp.mean(jnp.square(prediction - target), axis=-1)
        errors = Errors(jnp.sum(jnp.where(hidden[0], error, 0), axis=1), hidden[0].sum(axis=1))

        logits = nn.Dense(
            self.vocab,
            kernel_init=nn.with_logical_partitioning(HEAD_INIT, ("embed", "vocab")),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("vocab",)),
            name="words",
        )(at_least_fp32(words))
        ids: Any = text.patches
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
        hits = hidden[1] & (jnp.argmax(logits, axis=-1) == ids)
        total = jnp.sum(jnp.where(hidden[1], cross_entropy, 0), axis=1)
        return Both(errors, TokenErrors(total, hits.sum(axis=1), hidden[1].sum(axis=1)))

    def batch_loss(self, outputs: Both, batch: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        del batch  # a missing input has nothing hidden
        everyone = jnp.ones(len(outputs.image.total), bool)
        image = weighted_mean(*outputs.image, everyone)
        text = weighted_mean(outputs.text.total, outputs.text.count, everyone)
        accuracy = weighted_mean(at_least_fp32(outputs.text.hits), outputs.text.count, everyone)
        patches, words = self.pair
        metrics = {f"{patches}_loss": image, f"{words}_loss": text, f"{words}_accuracy": accuracy}
        return image + self.text_weight * text, metrics
