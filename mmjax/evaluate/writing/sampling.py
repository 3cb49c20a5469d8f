"""Chooses the next words of texts from their logits: the likeliest, or one drawn from a distribution that was cut."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from mmjax.errors import UserError


class Sampling(NamedTuple):
    """The settings by which words are drawn; a setting that is None has no effect. They act in this order, each on the
    distribution that those before it left.

    repetition_penalty: what the logits of words that the prompt or the text has already are divided by where they are
        positive, and multiplied by where they are negative (CTRL: Keskar et al. 2019, arXiv:1909.05858, section 4.1,
        divides; the case of negative ones is Hugging Face's).
    temperature: what logits are divided by; 0: the likeliest word is taken, and the settings below have no effect.
    top_k: the number of likeliest words that are left (Fan et al. 2018, arXiv:1805.04833).
    top_p: of the likeliest words so many are left that their probabilities add up to this (Holtzman et al. 2020,
        arXiv:1904.09751).
    min_p: the least probability that is left, as a share of the likeliest word's (Nguyen et al. 2024,
        arXiv:2407.01082).
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def check(self) -> None:
        """Raises UserError where a setting is out of its range, or has no effect."""
        if not 0 <= self.temperature < float("inf"):
            raise UserError(
                f"temperature={self.temperature} must be at least 0: 0 takes the likeliest word, 1 draws by the "
                "model's own distribution"
            )
        if self.top_k is not None and (isinstance(self.top_k, bool) or self.top_k != int(self.top_k) or self.top_k < 1):
            raise UserError(f"top_k={self.top_k} must be a whole number of at least 1, or None: all words")
        for name in ("top_p", "min_p"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise UserError(f"{name}={share} must be above 0 and at most 1, or None: all words")
        if self.repetition_penalty is not None and not 0 < self.repetition_penalty < float("inf"):
            raise UserError(f"repetition_penalty={self.repetition_penalty} must be above 0, or None: 1 changes nothing")
        if self.temperature == 0:
            for name in ("top_k", "top_p", "min_p"):
                if getattr(self, name) is not None:
                    raise UserError(
                        f"{name}={getattr(self, name)} with temperature=0, which takes the likeliest word anyway: set "
                        "a temperature, 1.0, say"
                    )

    def settings(self) -> "Sampling":
        """The same with None for the temperature 0: which of the fields are None decides what is compiled."""
        return self._replace(temperature=None) if self.temperature == 0 else self  # pyright: ignore[reportArgumentType]


GREEDY = Sampling()


def penalised(
    logits: Float[Array, "b v"], seen: Bool[Array, "b v"], penalty: float | Float[Array, ""]
) -> Float[Array, "b v"]:
    """Logits of which those of words that were `seen` are less likely by the `repetition_penalty`."""
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def limited(logits: Float[Array, "b v"], sampling: Sampling) -> Float[Array, "b v"]:
    """Logits with -inf for the words that top_k, top_p and min_p leave out; of equally likely words at a limit all
    stay."""
    if sampling.top_k is not None or sampling.top_p is not None:
        ordered, least = jnp.sort(logits, axis=-1, descending=True), jnp.float32(-jnp.inf)
        if sampling.top_k is not None:
            last = jnp.minimum(jnp.int32(sampling.top_k), logits.shape[-1]) - 1
            least = ordered[:, last][:, None]
            ordered = jnp.where(ordered >= least, ordered, -jnp.inf)
        if sampling.top_p is not None:
            shares = jax.nn.softmax(ordered, axis=-1)
            # Summed from the least likely one, for the last ones are small: what it and those behind it have together.
            behind = jnp.cumsum(shares[:, ::-1], axis=-1)[:, ::-1]
            left = jnp.where(behind > 1 - sampling.top_p, ordered, jnp.inf).at[:, 0].set(ordered[:, 0])
            least = jnp.maximum(least, jnp.min(left, axis=-1, keepdims=True))
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    if sampling.min_p is not None:
        best = jnp.max(logits, axis=-1, keepdims=True)
        logits = jnp.where(logits - best >= jnp.log(sampling.min_p), logits, -jnp.inf)
    return logits


def next_words(
    logits: Float[Array, "b v"],
    sampling: Sampling,
    keys: Key[Array, " b"],
    allowed: Bool[Array, " v"],
    seen: Bool[Array, "b v"] | None = None,
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """The next word of each row, and its log-probability in the model's own distribution: that of the logits as they
    are, before a penalty, a temperature or a limit.

    sampling: as `settings` gives it. keys: of each row for this word. allowed: the words that may be chosen. seen: the
    words that the penalty is for.
    """
    changed = jnp.where(allowed, logits, -jnp.inf)
    if sampling.repetition_penalty is not None and seen is not None:
        changed = penalised(changed, seen, sampling.repetition_penalty)
    if sampling.temperature is None:
        ids = jnp.argmax(changed, axis=-1)
    else:
        changed = limited(changed / sampling.temperature, sampling)
        ids = jax.vmap(jax.random.categorical)(keys, changed)
    own = jnp.take_along_axis(logits, ids[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
    return ids.astype(jnp.int32), own


def row_keys(seed: PRNGKeyArray, rows: Int[Array, " b"], samples: Int[Array, " b"]) -> Key[Array, " b"]:
    """The key of each row, by the number of its prompt and of the sample of that prompt: whatever stands beside it in
    a batch, its text is the same."""
    return jax.vmap(lambda row, sample: jax.random.fold_in(jax.random.fold_in(seed, row), sample))(rows, samples)


def word_keys(keys: Key[Array, " b"], place: int | Int[Array, ""]) -> Key[Array, " b"]:
    """The keys of the rows for the word at this place, from 0."""
    return jax.vmap(lambda key: jax.random.fold_in(key, place))(keys)
