"""All metrics of captions that need no Java, from plain texts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.bleu import bleu
from mmjax.evaluate.metrics.written.caption_words import caption_words
from mmjax.evaluate.metrics.written.cider_d import cider_d
from mmjax.evaluate.metrics.written.rouge_l import rouge_l


class CaptionScores(NamedTuple):
    """Scores by name, `bleu1` to `bleu4`, `rouge_l` and `cider_d`: of the corpus, and of each text.

    Those of a corpus are the means of its texts', except BLEU. `cider_d` goes up to 10, the others are fractions.
    """

    corpus: dict[str, float]
    examples: dict[str, Float[np.ndarray, " n"]]


def caption_scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Scores of captions, each against the references of its image, cut into words by `caption_words`.

    Give all images of a split at once: CIDEr-D weighs n-grams by how many of these images' references have them, and is
    0 for a single image.

    Raises UserError where there are no texts, or one lacks references.
    """
    if any(isinstance(given, str) for given in references):
        raise UserError("caption_scores(references=...): a list of texts for each image, not one text")
    words = [caption_words(text) for text in texts]
    known = [[caption_words(text) for text in given] for given in references]
    scores = bleu(words, known)
    means = {"rouge_l": rouge_l(words, known), "cider_d": cider_d(words, known)}
    names = [f"bleu{n}" for n in range(1, len(scores.corpus) + 1)]
    corpus = dict(zip(names, scores.corpus.tolist(), strict=True))
    return CaptionScores(
        corpus | {name: float(each.mean()) for name, each in means.items()},
        dict(zip(names, scores.examples.T, strict=True)) | means,
    )
