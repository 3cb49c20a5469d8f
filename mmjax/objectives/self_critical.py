"""Self-critical training: a decoder that writes is rewarded for texts that are better than those it would write anyway
(Rennie et al. 2016, arXiv:1612.00563).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError, not_among, unknown
from mmjax.models.decoders.drawn import DrawnTexts, draw_texts
from mmjax.models.layers.masks import TokensAndMask
from mmjax.models.towers.bare import Incoming
from mmjax.objectives.cider_reward import (
    FREQUENCIES,
    FrequencyTable,
    cider_rewards,
    counted_of,
    counted_table,
    empty_table,
)
from mmjax.objectives.contract import AnyView, Context, entry, selected, valid
from mmjax.objectives.decoder_reads import check_decoder_reads, has_read, tokens_read
from mmjax.objectives.labels.reads import views_of
from mmjax.objectives.microbatches import KEPT
from mmjax.objectives.numerics import at_least_fp32, weighted_mean

BaselineName = Literal["greedy", "others"]


class Rewarded(NamedTuple):
    """The sums of each example over its samples."""

    total: Float[Array, " b"]
    """Of advantage times log-probability, negated, over all words."""
    words: Int[Array, " b"]
    reward: Float[Array, " b"]
    """The samples' mean; likewise below."""
    baseline: Float[Array, " b"]
    ended: Float[Array, " b"]
    """The share of samples that end within the words that they may have."""


class SelfCritical(nn.Module):
    """Rewards the texts that a decoder draws, by their CIDEr-D against all references of an example.

    The loss is the mean over all words of the batch's samples, the id that ends a text among them, of
    `-(r - b) log p(word)`: r is the sample's reward, and b the reward of the likeliest text, word by word (`greedy`),
    or the mean reward of the example's other samples (`others`, as the authors' code has it later). No gradient reaches
    r and b. Rewards are of ids, with the one that ends a text, so that it pays to end (texts would end in "with a").
    Document frequencies are those of the training split's references, counted before the first step (`Counting`).

    The batch's entry `text` is that of `TokenizeReferences`. Texts begin with the first id of the first reference, and
    end with the last one. The decoder draws and is scored without dropout, unlike the authors', which draws with it: so
    the gradient is that of the texts' own probabilities. A tower's dropout acts, on all texts of an example alike.

    What is drawn depends on the run's seed, the step and the example's number in the global batch, not on how this is
    cut up. A step costs about as many words as the longest text has, one after the other, more than one of `Caption`.

    Metrics: `reward` and `baseline`, from 0 to 10; `words`, the mean length of a sample; `ended`, the share of samples
    that end.

    Attributes:
        decoder: a `mmjax.models.TextDecoder`, or a `RecurrentDecoder`.
        reads, fusion: the inputs whose tokens the decoder reads, as `Caption` has them; one at least.
        text: the batch's entry.
        samples: the number of texts that are drawn of each example.
        baseline: what a sample's reward is compared with.
        most: the most words of a text, its end among them.
        ngrams: the number of n-grams for which there is room in the table of frequencies: those that the references of
            two or more examples have.
    """

    decoder: Any
    reads: tuple[str, ...]
    text: str = "text"
    fusion: str | None = None
    samples: int = 5
    baseline: BaselineName = "greedy"
    most: int = 20
    ngrams: int = 2**20

    def views(self) -> tuple[AnyView, ...]:
        return self.reading()

    def reading(self) -> tuple[AnyView, ...]:
        """The views of what the decoder reads beside its text."""
        return views_of(self.reads, self.fusion)

    def check_parts(self, path: str, towers: Mapping[str, Any], inputs: Mapping[str, Incoming]) -> None:
        """Raises UserError where a field is out of its range, or the references don't fit the decoder."""
        if self.baseline not in get_args(BaselineName):
            raise UserError(not_among(f"{path}.baseline", self.baseline, get_args(BaselineName)))
        for name in ("samples", "most", "ngrams"):
            if getattr(self, name) < 1:
                raise UserError(f"{path}.{name}={getattr(self, name)} must be at least 1")
        if self.baseline == "others" and self.samples < 2:
            raise UserError(
                f"{path}.samples={self.samples} with baseline='others': a sample is compared with others of its "
                "example, so draw 2 or more"
            )
        decoder = self.decoder
        if not (hasattr(decoder, "prefill") and hasattr(decoder, "extend")):
            raise UserError(
                f"{path}.decoder is a {type(decoder).__name__}, which doesn't write word by word: take a TextDecoder "
                "or a RecurrentDecoder"
            )
        if self.text not in inputs:
            raise UserError(unknown(f"{path} compares with", self.text, inputs, "chains of data.transforms"))
        given = inputs[self.text]
        if len(given.shape) != 2 or given.dtype != "int32" or "lengths" not in given.labels:
            raise UserError(
                f"{path} compares with several references of each example, int32[R, L] with their lengths, and "
                f"data.transforms gives {given} for {self.text!r}: let its chain be (KeepCaptions(), ..., "
                "TokenizeReferences(...))"
            )
        if self.most > decoder.length:
            raise UserError(
                f"{path}.most={self.most} words are more than the {decoder.length} of {path}.decoder.length: set most "
                f"to {decoder.length} or less"
            )
        if given.pieces > decoder.vocab:
            raise UserError(
                f"the tokenizer has up to {given.pieces} pieces (vocab_size), and {path}.decoder.vocab={decoder.vocab} "
                f"has no room for them: set {path}.decoder.vocab={given.pieces}, or vocab_size={decoder.vocab}"
            )
        check_decoder_reads(path, self)
        if decoder.inserted:
            raise UserError(
                f"{path}.decoder.inserted={sorted(decoder.inserted)}: texts that are drawn have no places for a "
                "picture's tokens; let the decoder read them as a prefix or a context"
            )
        if not self.reads:
            raise UserError(
                f"{path}.reads=(): a text is written of an input at least; name one there and in the decoder's context"
            )

    def counted_variables(self, rows: Iterable[Mapping[str, np.ndarray]], path: str) -> dict[str, dict[str, Any]]:
        """The table of frequencies. Raises UserError where no example has references, or there are too many n-grams."""
        references = (counted_of(row, self.text) for row in rows)
        return {FREQUENCIES: counted_table(references, self.ngrams, f"{path}.ngrams")._asdict()}

    def counted(self, batch: Mapping[str, Array]) -> Bool[Array, " b"]:
        """A mask of the examples that have references, and something of what is read."""
        return valid(batch, self.text) & has_read(self, batch)

    def read(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array]) -> dict[str, TokensAndMask]:
        """The tokens that the decoder reads, by the input's name; none are real of an input that an example lacks."""
        return tokens_read(self, encoded, batch)

    def per_example(self, encoded: Mapping[Any, Any], batch: Mapping[str, Array], context: Context) -> Rewarded:
        """The sums over each example's samples."""
        there = valid(batch, self.text)
        references = selected(there, entry(batch, self.text))
        lengths = selected(there, entry(batch, f"{self.text}_lengths"))
        first = references[:, 0]
        begin = first[:, 0]
        end = jnp.take_along_axis(first, jnp.maximum(lengths[:, :1] - 1, 0), axis=1)[:, 0]
        views, rows = self.read(encoded, batch), len(references)
        texts = self._drawn(begin, end, views, context)
        # Drawn once: the backward pass of a microbatch computes the rest again, and would draw again.
        texts = jax.tree.map(lambda x: checkpoint_name(x.reshape(rows, -1, *x.shape[1:]), KEPT), texts)
        score = jax.vmap(cider_rewards, in_axes=(0, 0, 0, 0, None))
        known = references[:, :, 1:], jnp.maximum(lengths - 1, 0)
        rewards = jax.lax.stop_gradient(score(texts.ids, texts.lengths, *known, self._table()))
        reward, baseline = self._compared(rewards)
        ids, counts = (x[:, : self.samples].reshape(rows * self.samples, *x.shape[2:]) for x in texts)
        logs, words = self._log_probabilities(begin, ids, counts, views)
        total = -jnp.sum(jnp.where(words, logs, 0).reshape(rows, self.samples, -1), axis=-1) * (reward - baseline)
        last = jnp.take_along_axis(ids, counts[:, None] - 1, axis=1)[:, 0].reshape(rows, self.samples)
        return Rewarded(
            total.sum(axis=1),
            counts.reshape(rows, self.samples).sum(axis=1),
            reward.mean(axis=1),
            baseline.mean(axis=1),
            jnp.mean(last == end[:, None], axis=1),
        )

    def batch_loss(self, outputs: Rewarded, batch: Mapping[str, Array]) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The mean over words."""
        rows = self.counted(batch)
        means = {"reward": outputs.reward, "baseline": outputs.baseline, "ended": outputs.ended}
        means["words"] = outputs.words / self.samples
        metrics = {name: weighted_mean(x, rows, rows) for name, x in means.items()}
        return weighted_mean(outputs.total, outputs.words, rows), metrics

    def _drawn(
        self, begin: Int[Array, " b"], end: Int[Array, " b"], views: Mapping[str, TokensAndMask], context: Context
    ) -> DrawnTexts:
        """The samples of each example, and behind them its likeliest text where it is the baseline."""
        likeliest = np.arange(self.samples + (self.baseline == "greedy")) == self.samples
        if self.is_initializing():  # there are no parameters to draw with
            rows = len(begin) * len(likeliest)
            return DrawnTexts(jnp.zeros((rows, self.most), jnp.int32), jnp.ones(rows, jnp.int32))
        decoder, variables = self.decoder.unbind()
        return draw_texts(decoder, variables, begin, end, views, context.keys, jnp.asarray(likeliest), self.most)

    def _table(self) -> FrequencyTable:
        if self.is_initializing():
            for name, array in empty_table(self.ngrams)._asdict().items():
                self.put_variable(FREQUENCIES, name, array)
        held = self.variables.get(FREQUENCIES)  # an exported model has none
        return FrequencyTable(**held) if held else empty_table(self.ngrams)

    def _compared(self, rewards: Float[Array, "b c"]) -> tuple[Float[Array, "b n"], Float[Array, "b n"]]:
        """The reward of each sample, and what it is compared with."""
        samples = rewards[:, : self.samples]
        if self.baseline == "greedy":
            return samples, jnp.broadcast_to(rewards[:, self.samples :], samples.shape)
        return samples, (samples.sum(axis=1, keepdims=True) - samples) / (self.samples - 1)

    def _log_probabilities(
        self,
        begin: Int[Array, " b"],
        ids: Int[Array, "b*n m"],
        counts: Int[Array, " b*n"],
        views: Mapping[str, TokensAndMask],
    ) -> tuple[Float[Array, "b*n m"], Bool[Array, "b*n m"]]:
        """The log-probability of each word, and which there are."""
        words = jnp.arange(self.most) < counts[:, None]
        before = jnp.concatenate([jnp.repeat(begin, self.samples)[:, None], ids[:, :-1]], axis=1)
        own = jax.tree.map(lambda x: jnp.repeat(x, self.samples, axis=0), dict(views))
        logits = at_least_fp32(self.decoder.logits(self.decoder(before, words, own)))
        chosen = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1), words
