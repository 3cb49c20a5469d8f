"""Next-word prediction by a text decoder: captioning, language modelling, answers and dialogue."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError, not_among, unknown
from mmjax.models.decoders.upper import goes_on
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.contract import AnyView, Context, View, entry, selected, valid
from mmjax.objectives.decoder_reads import check_decoder_reads, has_read, tokens_read
from mmjax.objectives.labels.reads import views_of
from mmjax.objectives.numerics import at_least_fp32, weighted_mean
from mmjax.objectives.text_slots import check_slots
from mmjax.objectives.token_errors import TokenErrors, averaged
from mmjax.objectives.unlikelihood import repeated_word_losses

MeanName = Literal["tokens", "texts", "sums"]


class Caption(nn.Module):
    """Predicts each word of a text from those before it, and from the tokens of the inputs that the decoder reads.

    The loss is the cross-entropy of the words that are to be predicted: all but the first, or those where the batch's
    `<text>_loss` is True (answers, the assistant's turns). It starts near ln(vocab). Of packed texts
    (`<text>_segments`, `<text>_positions`) a text's first word isn't predicted either. `<text>_prefix` tells how many
    first words see each other (PaliGemma's prompt), of which none is predicted; and where `<text>_slots` isn't -1 a
    picture's token stands (`TokenizeConversation`), which isn't predicted either. Metrics, besides the loss:
    `accuracy`, of the likeliest word; and where there is one, the mean `attention_penalty`, without its weight, and the
    mean `unlikelihood` over words.

    Attributes:
        decoder: a `mmjax.models.TextDecoder`, or a `RecurrentDecoder`; or an `UpperDecoder`, which goes on from the
            states of the text's tower, as that encodes the text for other objectives too (CoCa).
        text: the batch's entry.
        reads: the inputs whose towers' tokens the decoder reads: what its `context`, `prefix` and `inserted` name. None
            where there are none, a language model.
        fusion: one of the experiment's fusions, by which all of `reads` are read; the decoder then reads the tokens
            that this makes of those inputs, some or all, which it names (of a question that has seen the picture:
            BLIP's answers). None: each input by its own tower.
        alone: whether a text counts that has none of what the decoder `reads`. With False it doesn't.
        mean: over all words of the batch (`tokens`), or over texts of each one's mean (`texts`: PaliGemma's) or sum
            (`sums`: Show, Attend and Tell's).
        label_smoothing: the part of the target that is spread evenly over all words.
        parallel: the rate of texts, in training, of which every word is predicted at once, from its place and from what
            is read alone (CapPa: Tschannen et al. 2023, arXiv:2306.07915: 0.75).
        mask_id: the id that stands in the place of those texts' words; needed with `parallel`.
        attention_penalty: the weight of `doubly_stochastic`, its mean over texts (Show, Attend and Tell: 1, beside
            `sums`); for a decoder with an attention that tells its weights, a `RecurrentDecoder` with a context.
    """

    decoder: Any
    text: str = "text"
    reads: tuple[str, ...] = ()
    fusion: str | None = None
    alone: bool = False
    mean: MeanName = "tokens"
    label_smoothing: float = 0.0
    parallel: float = 0.0
    mask_id: int | None = None
    attention_penalty: float = 0.0
    unlikelihood: float = 0.0

    def views(self) -> tuple[AnyView, ...]:
        return (*((View(self.text),) if goes_on(self.decoder) else ()), *self.reading())

    def reading(self) -> tuple[AnyView, ...]:
        """The views of what the decoder reads beside its text."""
        return views_of(self.reads, self.fusion)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where a field is out of its range, or the texts don't fit the decoder."""
        if self.mean not in get_args(MeanName):
            raise UserError(not_among(f"{path}.mean", self.mean, get_args(MeanName)))
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"{path}.label_smoothing={self.label_smoothing} must be from 0 to below 1")
        if not 0 <= self.parallel <= 1 or (self.parallel and self.mask_id is None):
            raise UserError(
                f"{path}.parallel={self.parallel} with mask_id={self.mask_id}: it is a rate from 0 to 1, and above 0 "
                "needs the id that stands in the place of the words"
            )
        if self.attention_penalty < 0 or (
            self.attention_penalty and not (hasattr(self.decoder, "attending") and self.decoder.context)
        ):
            raise UserError(
                f"{path}.attention_penalty={self.attention_penalty} is 0, or above 0 with a decoder that tells where "
                f"it looks: a RecurrentDecoder with a context, and {path}.decoder is a {type(self.decoder).__name__} "
                f"with context={sorted(self.decoder.context)}"
            )
        if self.unlikelihood < 0:
            raise UserError(f"{path}.unlikelihood={self.unlikelihood} must be at least 0")
        if self.text not in inputs:
            raise UserError(unknown(f"{path} predicts the words of", self.text, inputs, "chains of data.transforms"))
        given, decoder = inputs[self.text], self.decoder
        if len(given.shape) != 1 or given.dtype != "int32":
            raise UserError(f"{path} predicts token ids int32[L], and data.transforms gives {given} for {self.text!r}")
        if given.shape[0] - 1 > decoder.length:
            raise UserError(
                f"data.transforms gives texts of {given.shape[0]} tokens, of which {path} reads all but the last, more "
                f"than the {decoder.length} of {path}.decoder.length: set it to {given.shape[0] - 1} or more"
            )
        if given.pieces > decoder.vocab:
            raise UserError(
                f"the tokenizer has up to {given.pieces} pieces (vocab_size), and {path}.decoder.vocab={decoder.vocab} "
                f"has no room for them: set {path}.decoder.vocab={given.pieces}, or vocab_size={decoder.vocab}"
            )
        if self.mask_id is not None and not 0 <= self.mask_id < decoder.vocab:
            raise UserError(f"{path}.mask_id={self.mask_id} is no id below {path}.decoder.vocab={decoder.vocab}")
        if goes_on(decoder):
            self._check_tower(path, towers, given)
        check_decoder_reads(path, self)
        check_slots(path, decoder, self.text, towers, inputs)

    def _check_tower(self, path: str, towers: Mapping[str, Any], given: Incoming) -> None:
        """Raises UserError where the decoder can't go on from the text's tower, or not so."""
        if self.text not in towers:
            raise UserError(unknown(f"{path}.decoder goes on from the tower of", self.text, towers, "towers"))
        if self.parallel or {"prefix", "segments"} & {*given.labels}:
            raise UserError(
                f"{path}.decoder goes on from what the tower of {self.text!r} makes of all words, each of those before "
                f"it: set parallel=0, and give texts that are neither packed nor have a prefix ({given.labels})"
            )
        self.decoder.check_below(f"{path}.decoder", towers[self.text], f"towers.{self.text}")

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the examples that have the text, and something of what is read."""
        there = valid(batch, self.text)
        return there if self.alone or not self.reads else there & has_read(self, batch)

    def read(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array]) -> dict[str, TokensAndMask]:
        """The tokens that the decoder reads, by the input's name; none are real of an input that an example lacks."""
        return tokens_read(self, encoded, batch)

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> TokenErrors:
        """The sums over each text's words."""
        text, there = self.text, valid(batch, self.text)
        ids = selected(there, entry(batch, text))
        real = batch.get(f"{text}_mask", jnp.ones(ids.shape, bool)) & there[:, None]
        segments, together = batch.get(f"{text}_segments"), batch.get(f"{text}_prefix")
        words, targets, count = ids[:, :-1], ids[:, 1:], real[:, 1:]
        told: dict[str, Any] = {} if together is None else {"together": together}
        if f"{text}_slots" in batch:
            slots = batch[f"{text}_slots"]
            told["inserts"], count = slots[:, :-1], count & (slots[:, 1:] < 0)
        if f"{text}_loss" in batch:
            count = count & batch[f"{text}_loss"][:, 1:]
        if together is not None:  # what sees each other, sees its targets
            count = count & (jnp.arange(1, ids.shape[1]) >= together[:, None])
        if segments is not None:
            count = count & (segments[:, 1:] == segments[:, :-1])
            told |= {"segments": segments[:, :-1], "places": entry(batch, f"{text}_positions")[:, :-1]}
        if self.parallel and context.train:
            at_once = jax.vmap(lambda key: jax.random.bernoulli(key, self.parallel))(context.keys)
            words = jnp.where(at_once[:, None], jnp.int32(self.mask_id or 0), words)
            before = jnp.zeros(len(ids), jnp.int32) if together is None else together
            told["together"] = jnp.where(at_once, words.shape[1], before)
        told |= {"train": context.train, "keys": context.keys if context.train and context.key is not None else None}
        if goes_on(self.decoder):
            words = encoded[View(text)].tokens[:, : words.shape[1]]
        penalty, given = None, (words, real[:, :-1], self.read(encoded, batch))
        if self.attention_penalty:
            states, weights, seen = self.decoder.attending(*given, **told)
            penalty = doubly_stochastic(weights, count, seen)
        else:
            states = self.decoder(*given, **told)
        logits = at_least_fp32(self.decoder.logits(states))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        if self.label_smoothing:
            even = jax.nn.logsumexp(logits, axis=-1) - jnp.mean(logits, axis=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * even
        hits, unlikely = (jnp.argmax(logits, axis=-1) == targets) & count, None
        if self.unlikelihood:
            own = None if segments is None else segments[:, 1:]
            unlikely = jnp.sum(jnp.where(count, repeated_word_losses(logits, targets, real[:, 1:], own), 0), axis=1)
        total = jnp.sum(jnp.where(count, loss, 0), axis=1)
        return TokenErrors(total, hits.sum(axis=1), count.sum(axis=1), penalty, unlikely)

    def batch_loss(self, outputs: TokenErrors, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The mean over words or texts."""
        rows = self.counted(batch)
        loss, metrics = averaged(outputs, rows)
        if outputs.unlikely is not None:
            metrics["unlikelihood"] = weighted_mean(outputs.unlikely, outputs.count, rows)
            loss += self.unlikelihood * metrics["unlikelihood"]
            outputs = outputs._replace(total=outputs.total + self.unlikelihood * outputs.unlikely)
        rows = rows & (outputs.count > 0)
        if self.mean != "tokens":
            each = outputs.total / (jnp.maximum(outputs.count, 1) if self.mean == "texts" else 1)
            loss = weighted_mean(each, rows, rows)
        if outputs.penalty is not None:
            metrics["attention_penalty"] = weighted_mean(outputs.penalty, rows, rows)
            loss += self.attention_penalty * metrics["attention_penalty"]
        return loss, metrics


def doubly_stochastic(
    weights: Float[Array, "b l c"], words: Bool[Array, "b l"], tokens: Bool[Array, "b c"]
) -> Float[Array, " b"]:
    """The penalty of each text on tokens at which its words, together, don't look once: `sum_i (1 - sum_t a_ti)^2` (Xu
    et al. 2015, arXiv:1502.03044, eq. 14), i the real tokens and t the words that are predicted; 0 without a token.
    """
    looked = jnp.sum(jnp.where(words[..., None], weights, 0), axis=1)
    return jnp.sum(jnp.where(tokens, (1 - looked) ** 2, 0), axis=1)
