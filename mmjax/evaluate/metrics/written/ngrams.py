"""N-grams of texts that are cut into tokens, and the check that such texts fit together."""

from collections import Counter
from collections.abc import Hashable, Sequence

from mmjax.errors import UserError

Tokens = Sequence[Hashable]  # words, or the numbers of tokens
Ngram = tuple[Hashable, ...]


def ngram_counts(tokens: Tokens, n: int) -> Counter[Ngram]:
    """Counts each n tokens in a row of a text; empty for a text of fewer than n."""
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def check_references(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    """Raises UserError unless there are texts, each with at least one reference, all of them cut into tokens."""
    if len(hypotheses) != len(references):
        raise UserError(
            f"{len(hypotheses)} texts were written, and there are references of {len(references)}: each text has a "
            "list of its own"
        )
    if not len(hypotheses):
        raise UserError("no texts to score: give one that was written, and its references, for each example")
    for row, (hypothesis, given) in enumerate(zip(hypotheses, references, strict=True)):
        if not isinstance(given, str) and not len(given):
            raise UserError(f"text {row} has no references: leave it out, or give at least one")
        for text in (hypothesis, given, *given):
            if isinstance(text, str):
                raise UserError(
                    f"text {row}: {text!r:.60} isn't cut into tokens: give caption_words(text) of what was written, "
                    "and a list of such lists as its references"
                )
