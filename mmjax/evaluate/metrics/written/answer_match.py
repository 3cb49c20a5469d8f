"""Written answers against what was to be answered, by exact match."""

import re
import string
from collections import Counter
from collections.abc import Sequence

from mmjax.errors import UserError

_MARKS = re.compile(f"[{re.escape(string.punctuation)}]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normal_answer(text: str) -> str:
    """An answer in small letters, without punctuation, articles and extra white space, as SQuAD compares them
    (Rajpurkar et al. 2016, arXiv:1606.05250). What would be empty then stays as it is, in small letters."""
    small = text.lower()
    words = _ARTICLES.sub(" ", _MARKS.sub("", small)).split()
    return " ".join(words) if words else " ".join(small.split())


def answers_match(written: str, wanted: str) -> bool:
    """True if two answers are the same, normalised."""
    return normal_answer(written) == normal_answer(wanted)


def answer_chances(wanted: Sequence[str]) -> tuple[float, float]:
    """The accuracy of an answer that is drawn among these, normalised, and that of the most frequent of them.

    Raises UserError where there are none.
    """
    if not wanted:
        raise UserError("no answers to guess among: at least one question must be asked")
    counts = Counter(map(normal_answer, wanted)).values()
    return sum((count / len(wanted)) ** 2 for count in counts), max(counts) / len(wanted)
