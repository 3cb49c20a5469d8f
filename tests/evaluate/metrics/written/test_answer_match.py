"""Answers that count as the same, and what guesses get."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.answer_match import answer_chances, answers_match, normal_answer


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Top-Left corner.", "topleft corner"),
        ("a cat, an ape", "cat ape"),
        ("another theme", "another theme"),
        ("?!", "?!"),
        ("The", "the"),
        ("  Où?\n", "où"),
    ],
)
def test_answers_are_normalised_as_squad_s(text: str, normal: str) -> None:
    assert normal_answer(text) == normal


def test_what_is_nothing_but_marks_matches_itself_alone() -> None:
    assert answers_match("The two!", "two")
    assert answers_match("?", " ?")
    assert not answers_match("?", "!")
    assert not answers_match("", "two")


def test_guesses_by_drawing_all_pairs() -> None:
    answers = ["Two", "two.", "red", "blue"]
    drawn, most = answer_chances(answers)
    hits = [answers_match(one, other) for one in answers for other in answers]
    assert drawn == pytest.approx(np.mean(hits))
    assert most == 0.5
    with pytest.raises(UserError, match="no answers"):
        answer_chances([])
