"""Scores of named entities: spans of words by their BIO tags, counted by seqeval."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from jaxtyping import Int

from mmjax.errors import UserError

Tagged = Sequence[Sequence[str]]  # the tags of each text's words


def entity_scores(truth: Tagged, found: Tagged, strict: bool = False) -> dict[str, float]:
    """The `precision`, `recall` and `f1` of entities, all texts and types together: an entity is right where its type,
    its first and its last word are. A score without anything to divide by is 0.

    The tags are `O`, `B-PER`, `I-PER` and so on. They are read as CoNLL's evaluation reads them (Tjong Kim Sang and De
    Meulder 2003, arXiv:cs/0306050): an `I-` that follows no tag of its type begins an entity. With `strict` it is none,
    as IOB2 has it.

    Raises UserError where the texts or their words differ in number, and where seqeval isn't installed.
    """
    counts = [len(tags) for tags in truth], [len(tags) for tags in found]
    if counts[0] != counts[1]:
        place = next((i for i, (a, b) in enumerate(zip(*counts, strict=False)) if a != b), None)
        where = (
            f"text {place} has {counts[0][place]} tags, and {counts[1][place]} were found"
            if place is not None
            else f"there are {len(truth)} texts, and {len(found)} were found"
        )
        raise UserError(f"{where}: each word has one tag")
    if not sum(counts[0]):
        return {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    seqeval = _library()
    lists = [list(tags) for tags in truth], [list(tags) for tags in found]
    how = {"mode": "strict", "scheme": seqeval.scheme.IOB2} if strict else {}
    scores = {
        "precision": seqeval.metrics.precision_score,
        "recall": seqeval.metrics.recall_score,
        "f1": seqeval.metrics.f1_score,
    }
    return {name: float(score(*lists, average="micro", zero_division=0, **how)) for name, score in scores.items()}


def scored_tags(
    truth: Int[np.ndarray, "n length"], found: Int[np.ndarray, "n length"], classes: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """The names of the true and of the found tags of each text's words, of the places that are scored.

    truth: numbers of classes, below 0 where a place isn't scored, as `TokenizeTagged` gives them; only rows that are
    valid. found: a class's number at each place.
    """
    names = np.array(classes, object)
    pairs = [(names[mine[mine >= 0]], names[theirs[mine >= 0]]) for mine, theirs in zip(truth, found, strict=True)]
    return [mine.tolist() for mine, _ in pairs], [theirs.tolist() for _, theirs in pairs]


def _library() -> ModuleType:
    try:
        import seqeval.metrics  # pyright: ignore[reportMissingImports] (an extra)
        import seqeval.scheme  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError('scores of entities need seqeval: pip install "mmjax[eval]"') from error
    return seqeval
