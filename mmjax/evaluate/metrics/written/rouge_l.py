"""ROUGE-L of written texts against references (Lin 2004, ACL W04-1013), as captions are scored."""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from mmjax.evaluate.metrics.written.ngrams import Tokens, check_references

BETA = 1.2  # recall counts more than precision; the summaries' ROUGE has 1


def rouge_l(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Float[np.ndarray, " n"]:
    """ROUGE-L of each text, a fraction; a corpus has the mean.

    P and R are the longest common subsequence as a share of the text and of a reference; each is the best over the
    references, which need not be the same one. The score is (1 + β²) P R / (R + β² P) with β = 1.2, as pycocoevalcap
    has it. A text without words has 0.

    Raises UserError where a text lacks references, or is a string.
    """
    check_references(hypotheses, references)
    return np.array([_score(text, given) for text, given in zip(hypotheses, references, strict=True)])


def _score(text: Tokens, references: Sequence[Tokens]) -> float:
    common = [common_length(text, reference) for reference in references]
    if not any(common):
        return 0.0
    precision = max(common) / len(text)
    recall = max(found / max(1, len(reference)) for found, reference in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_length(a: Tokens, b: Tokens) -> int:
    """The length of the longest common subsequence, a row of the usual table at a time: its steps are bits of a number
    (Hyyrö 2004), so that a row is one addition."""
    places: dict[Hashable, int] = {}
    for place, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << place
    every = (1 << len(a)) - 1
    flat = every  # the bits where the row doesn't step up
    for token in b:
        hits = flat & places.get(token, 0)
        flat = (flat + hits | flat - hits) & every
    return len(a) - flat.bit_count()
