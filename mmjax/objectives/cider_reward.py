"""CIDEr-D of written ids as a reward in training, on the device (Vedantam et al. 2015, arXiv:1411.5726)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mmjax.errors import UserError

ORDER = 4  # n-grams of 1 to 4 ids
SIGMA_IDS = 6.0  # of the penalty on a difference of lengths
BEST = 10.0  # the score of a text that is its only reference
ABSENT = np.int32(-1)  # behind an n-gram of fewer than four ids
NOTHING = np.iinfo(np.int32).max  # in the table's empty places, which stand last

FREQUENCIES = "frequencies"  # Linen's collection of these tables: a part of the train state, and of no exported model


class FrequencyTable(NamedTuple):
    """The number of examples that have an n-gram in their references, for those that two or more have: one example
    weighs as none does."""

    ngrams: Int[Array, "s 4"]
    """In order."""
    counts: Int[Array, " s"]
    images: Int[Array, ""]
    """The number of examples that were counted."""


def empty_table(size: int) -> FrequencyTable:
    """A table with no n-gram, by which every reward is 0."""
    return FrequencyTable(
        jnp.full((size, ORDER), NOTHING, jnp.int32), jnp.zeros(size, jnp.int32), jnp.zeros((), jnp.int32)
    )


def counted_table(references: Iterable[Sequence[Sequence[int]]], size: int, path: str) -> FrequencyTable:
    """The table of the references of some examples, each a list of lists of ids; as numpy arrays.

    path: of the objective's field that says the size. Raises UserError where there are more n-grams than that, or no
    example.
    """
    counts: Counter[tuple[int, ...]] = Counter()
    images = 0
    for given in references:
        images += 1
        counts.update({ngram for text in given for ngram in _ngrams(text)})
    if not images:
        raise UserError(f"{path}: no example of the training split has references, so no n-gram can be counted")
    found = sorted((*ngram, *[int(ABSENT)] * (ORDER - len(ngram))) for ngram, count in counts.items() if count > 1)
    if len(found) > size:
        raise UserError(
            f"{path}={size:,}: {len(found):,} n-grams are in the references of two or more examples of the training "
            f"split: set {path}={len(found)} or more"
        )
    ngrams, times = np.full((size, ORDER), NOTHING, np.int32), np.zeros(size, np.int32)
    for place, ngram in enumerate(found):
        ngrams[place], times[place] = ngram, counts[tuple(id for id in ngram if id != ABSENT)]
    return FrequencyTable(ngrams, times, np.array(images, np.int32))  # pyright: ignore[reportArgumentType]


def counted_of(row: Mapping[str, np.ndarray], text: str) -> list[list[int]]:
    """The references of a row as they are compared: without the id that begins each, and with the one that ends it."""
    ids, lengths = row[text], row[f"{text}_lengths"]
    return [one[1:length].tolist() for one, length in zip(ids, lengths.tolist(), strict=True) if length]


def cider_rewards(
    texts: Int[Array, "n t"],
    lengths: Int[Array, " n"],
    references: Int[Array, "r l"],
    reference_lengths: Int[Array, " r"],
    table: FrequencyTable,
) -> Float[Array, " n"]:
    """CIDEr-D of each text of one example, from 0 to 10, as `mmjax.evaluate.metrics.written.cider_d` has it of the same
    ids and the same counts; float32.

    Each n-gram is known by its ids, no hash: texts and references are compared place by place. A reference of length 0
    doesn't count; without any the reward is 0.
    """
    own, other = _weighed(texts, lengths, table), _weighed(references, reference_lengths, table)

    def similarity(mine: _Text, theirs: _Text) -> Array:
        there = _matches(mine.ids, mine.real, theirs.ids, theirs.real).sum(axis=-1)  # [4, t]: in the reference
        shared = jnp.minimum(mine.times, there) * there * mine.weights**2
        # Each place of an n-gram that occurs several times in the text has its part of what that n-gram counts.
        dot = jnp.sum(jnp.where(mine.times > 0, shared / jnp.maximum(mine.times, 1), 0), axis=-1)
        norms = mine.norms * theirs.norms
        alike = jnp.sum(jnp.where(norms > 0, dot / jnp.where(norms > 0, norms, 1), 0)) / ORDER
        return alike * jnp.exp(-((mine.length - theirs.length) ** 2) / (2 * SIGMA_IDS**2))

    each = jax.vmap(lambda mine: jax.vmap(lambda theirs: similarity(mine, theirs))(other))(own)
    real = reference_lengths > 0
    return BEST * jnp.sum(jnp.where(real, each, 0), axis=1) / jnp.maximum(real.sum(), 1)


def _ngrams(text: Sequence[int]) -> set[tuple[int, ...]]:
    return {tuple(text[at : at + n]) for n in range(1, ORDER + 1) for at in range(len(text) - n + 1)}


class _Text(NamedTuple):
    ids: Int[Array, "*n t"]
    real: Bool[Array, "*n t"]
    times: Int[Array, "*n 4 t"]
    """How often the n-gram that begins at a place occurs; 0 where none does."""
    weights: Float[Array, "*n 4 t"]
    norms: Float[Array, "*n 4"]
    length: Float[Array, "*n"]


def _weighed(ids: Int[Array, "n t"], lengths: Int[Array, " n"], table: FrequencyTable) -> _Text:
    real = jnp.arange(ids.shape[1]) < lengths[:, None]
    times = jax.vmap(_matches)(ids, real, ids, real).sum(axis=-1)
    held = jnp.where(real, ids, ABSENT)
    shifted = [jnp.pad(held[:, place:], ((0, 0), (0, place)), constant_values=ABSENT) for place in range(ORDER)]
    grams = jnp.stack(
        [jnp.stack([*shifted[:n], *[jnp.full_like(ids, ABSENT)] * (ORDER - n)], axis=-1) for n in range(1, ORDER + 1)],
        axis=1,
    )
    counts = jnp.maximum(_looked_up(grams, table), 1)
    weights = jnp.log(jnp.maximum(table.images, 1).astype(jnp.float32)) - jnp.log(counts.astype(jnp.float32))
    norms = jnp.sqrt(jnp.sum(times * weights**2, axis=-1))
    return _Text(ids, real, times, weights, norms, lengths.astype(jnp.float32))


def _matches(
    ids: Int[Array, " t"], real: Bool[Array, " t"], others: Int[Array, " l"], other_real: Bool[Array, " l"]
) -> Bool[Array, "4 t l"]:
    """Whether the n-grams that begin at two places are the same, for n of 1 to 4."""
    same = (ids[:, None] == others) & real[:, None] & other_real
    found = [same]
    for place in range(1, ORDER):
        later = jnp.pad(same[place:, place:], ((0, place), (0, place)))[: same.shape[0], : same.shape[1]]
        found.append(found[-1] & later)
    return jnp.stack(found)


def _looked_up(ngrams: Int[Array, "*n 4"], table: FrequencyTable) -> Int[Array, "*n"]:
    """The counts of n-grams, 0 of those that aren't in the table, by bisection."""
    size = len(table.counts)

    def halved(_: int, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = between
        middle = (low + high) // 2
        before = _precedes(table.ngrams[jnp.minimum(middle, size - 1)], ngrams) & (low < high)
        return jnp.where(before, middle + 1, low), jnp.where(before, high, middle)

    start = jnp.zeros(ngrams.shape[:-1], jnp.int32)
    place, _ = jax.lax.fori_loop(0, size.bit_length(), halved, (start, jnp.full_like(start, size)))
    place = jnp.minimum(place, size - 1)
    return jnp.where(jnp.all(table.ngrams[place] == ngrams, axis=-1), table.counts[place], 0)


def _precedes(left: Int[Array, "*n 4"], right: Int[Array, "*n 4"]) -> Bool[Array, "*n"]:
    """Whether an n-gram stands before another in the table's order."""
    before, same = jnp.zeros(left.shape[:-1], bool), jnp.ones(left.shape[:-1], bool)
    for place in range(ORDER):
        before |= same & (left[..., place] < right[..., place])
        same &= left[..., place] == right[..., place]
    return before
