"""Answers that are written, or picked among given ones, counted as VQA normalises them."""

from typing import Any

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate import Answers
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.split_writing import WrittenSplit

COLUMNS: dict[str, list[Any]] = {
    "answer": ["a dog", ["2"] * 8 + ["three"] * 2, "red", None, "yes", ["no", "yes", "yes"]],
    "asks": ["What?", "how many", None, "which", "Is it?", "so"],
    "kind": ["what", "number", "what", "what", None, "yesno"],
}


class Writing:
    """Texts and likelihoods that are given; the fifth example has nothing that the decoder reads."""

    def __init__(self, columns: dict[str, list[Any]] = COLUMNS, **wanted: Any):
        self.column, self._wanted = columns.__getitem__, wanted

    def written(self, objective: str, prompt: Any, most: int, beams: int | None) -> WrittenSplit:
        assert (objective, prompt, most, beams) == ("words", self._wanted["prompt"], 16, None)
        return WrittenSplit([" Dog.", "two ", "blue", "green", "yes"], [0, 1, 2, 3, 5])

    def option_scores(self, objective: str, prompts: Any, options: Any) -> Any:
        assert [bool(some) for some in options] == [True, True, False, True, True, True]
        best = {0: "dog", 1: "two", 3: "red", 5: "no"}
        return {row: np.array([float(one == wanted) for one in options[row]]) for row, wanted in best.items()}


def judged(judge: Answers, **given: Any) -> dict[str, float]:
    found = judge(Embedded({}, {}, split="test", predictions=Writing(**given)), lambda texts: np.zeros(0))
    return {name.removeprefix("answers/words/"): value for name, value in found.items()}


def test_answers_to_what_the_decoder_reads() -> None:
    found = judged(Answers("words", kind="kind"), prompt="")
    assert found["examples"] == 4  # of four texts that have a right answer
    assert found["exact_match"] == 3 / 4  # "dog", "two" for the 2 of eight people, not "blue", "yes"
    assert (found["exact_match/kind=what"], found["exact_match/kind=number"]) == (1 / 2, 1.0)
    # "2" of eight, less one's own: 1; "yes" of three: one of two others each, or two for him who said no.
    assert found["vqa_accuracy"] == pytest.approx((1 + (2 / 3 + 1 / 3 + 1 / 3) / 3) / 2)


def test_answers_behind_their_questions() -> None:
    prompts = ("Q: What? A:", "Q: how many A:", "", "Q: which A:", "Q: Is it? A:", "Q: so A:")
    found = judged(Answers("words", prompt="asks", template="Q: {} A:"), prompt=prompts)
    assert (found["examples"], found["exact_match"]) == (3, 1.0)  # "blue" had no question
    assert "exact_match/kind=what" not in found


def test_the_likeliest_of_the_answers_that_there_are() -> None:
    judge = Answers("words", prompt="asks", options=("no", "dog", "two", "red"))
    assert judged(judge) | {"vqa_accuracy": 0} == {"examples": 3, "exact_match": 1.0, "vqa_accuracy": 0}
    made = judge.samples(Embedded({}, {}, split="test", predictions=Writing()))
    assert [(one.row, *(line.text for line in one.lines)) for one in made] == [
        (0, "What?", "dog", "a dog"),
        (1, "how many", "two", "2"),
        (3, "which", "red"),
        (5, "so", "no", "no"),
    ]
    assert [one.lines[1].right for one in made] == [True, True, None, True]


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(UserError, match=r"template='Q'\) has no \{\}, where the question goes"):
        judged(Answers("words", prompt="asks", template="Q"))
    empty = COLUMNS | {"answer": [None] * 6}
    with pytest.raises(UserError, match="no example of the test split has an answer"):
        judged(Answers("words"), columns=empty, prompt="")
