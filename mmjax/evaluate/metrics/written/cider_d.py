"""CIDEr-D of written captions against references (Vedantam et al. 2015, arXiv:1411.5726): a metric, and a reward."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.ngrams import Ngram, Tokens, check_references, ngram_counts

ORDERS = range(1, 5)
SIGMA = 6.0  # of the penalty on a difference of lengths
SCALE = 10.0  # a caption that is its only reference has this


@dataclass(frozen=True)
class NgramFrequencies:
    """The number of images that have an n-gram in their references, for each n-gram.

    counts: by n-gram, for n of 1 to 4; those that never occur may be missing.  images: the number of images.

    Raises UserError where there is no image, or an n-gram in more images than there are.
    """

    counts: Mapping[Any, int]
    images: int

    def __post_init__(self):
        most = max(self.counts.values(), default=0)
        if self.images < max(1, most):
            raise UserError(
                f"NgramFrequencies(images={self.images}): an n-gram is in {most} of them; give the number of images "
                "that were counted"
            )

    @cached_property
    def weights(self) -> list[float]:
        """An n-gram's ln(images / count), by its count; a count of 0 weighs as much as 1."""
        return [math.log(self.images) - math.log(max(1, count)) for count in range(self.images + 1)]

    @classmethod
    def of(cls, references: Iterable[Sequence[Tokens]]) -> "NgramFrequencies":
        """Counts the references of some images, each a list of references that are cut into tokens."""
        counts: Counter[Ngram] = Counter()
        images = 0
        for given in references:
            images += 1
            counts.update({ngram for text in given for n in ORDERS for ngram in ngram_counts(text, n)})
        return cls(counts, images)


class _Weighed(NamedTuple):
    """The n-grams of a text for n of 1 to 4, by weight, the norms of these four vectors, and its length."""

    vectors: list[dict[Ngram, float]]
    norms: list[float]
    length: int


def cider_d(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    frequencies: NgramFrequencies | None = None,
) -> Float[np.ndarray, " n"]:
    """CIDEr-D of each caption, from 0 to 10; a corpus has the mean. Tables show it times 100: 1.2 as 120.

    An n-gram weighs as often as it occurs, times ln(images / images that have it). For n of 1 to 4 a caption and a
    reference are as similar as the cosine of their weights, where no n-gram of the caption weighs more than in the
    reference, times exp(-d² / 72), d the difference of their lengths. The score is the mean over n and references,
    times 10: the class `Cider` of pycocoevalcap, which is CIDEr-D, and stems no words.

    frequencies: of the references that are given, unless others are: so a score depends on all images that are
    evaluated together, and a single image has 0, since all it holds is in every image. A reward in training takes those
    of the training set. One list of references that several captions share (the same object) is weighed once.

    Raises UserError where a caption lacks references, or is a string.
    """
    check_references(hypotheses, references)
    references = list(references)  # all of them stay, so that an id means one of them
    frequencies = NgramFrequencies.of(references) if frequencies is None else frequencies
    weighed: dict[int, list[_Weighed]] = {}
    scores = []
    for caption, given in zip(hypotheses, references, strict=True):
        if id(given) not in weighed:
            weighed[id(given)] = [_weighed(text, frequencies) for text in given]
        own = _weighed(caption, frequencies)
        scores.append(sum(_similarity(own, other) for other in weighed[id(given)]) / len(given))
    return SCALE * np.array(scores)


def _weighed(text: Tokens, frequencies: NgramFrequencies) -> _Weighed:
    counts, weights = frequencies.counts, frequencies.weights
    vectors = [
        {ngram: times * weights[counts.get(ngram, 0)] for ngram, times in ngram_counts(text, n).items()} for n in ORDERS
    ]
    norms = [math.hypot(*vector.values()) for vector in vectors]
    return _Weighed(vectors, norms, len(text))


def _similarity(own: _Weighed, other: _Weighed) -> float:
    total = 0.0
    for mine, theirs, norm, other_norm in zip(own.vectors, other.vectors, own.norms, other.norms, strict=True):
        if norm and other_norm:
            # In the caption's order, not that of a set, so that a reward is the same to the bit in each process.
            shared = ((weight, theirs[ngram]) for ngram, weight in mine.items() if ngram in theirs)
            dot = sum(min(weight, known) * known for weight, known in shared)
            total += dot / (norm * other_norm)
    return total * math.exp(-((own.length - other.length) ** 2) / (2 * SIGMA**2)) / len(ORDERS)
