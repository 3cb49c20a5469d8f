"""Answers of dialogues by hand: shares by turn, of later ones and of sounds, guesses, and candidates' ranks."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate import Dialogues
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.split_dialogues import AnsweredTurn

ANSWERED = [
    AnsweredTurn(0, 1, "what?", False, "two", "Two."),
    AnsweredTurn(0, 2, "and it?", False, "red", "blue"),
    AnsweredTurn(2, 1, "", True, "two", "two"),
    AnsweredTurn(2, 2, "who?", False, "the cat", "cat"),
    AnsweredTurn(2, 3, "where?", False, "left", "right"),
]
NEEDS = [[False, True], None, np.array([False, False, True])]
SCORES = {(0, 1): [-1.0, -2.0, -3.0], (2, 2): [-2.0, -1.0], (2, 3): [-1.0]}
OPTIONS: list[Any] = [json.dumps([["two", "red", "x"], None]), None, [["x"], ["The cat!", "dog"], ["left"]]]
RELEVANCE: list[Any] = [[[0.5, 0.0, 1.0], None], None, "[null, [0, 0], null]"]


class Known:
    """A model whose answers are given."""

    def __init__(self, answered: Any = ANSWERED, **columns: Any):
        self.given, self.columns = answered, {"needs": NEEDS, "options": OPTIONS, "relevance": RELEVANCE, **columns}

    def column(self, name: str) -> Any:
        return self.columns[name]

    def answered(self, *asked: Any) -> Any:
        assert asked == ("words", "messages", 16, None)
        return self.given

    def ranked_answers(self, objective: str, messages: str, options: Any, history: Any) -> Any:
        assert options[0, 1] == ["two", "red", "x"]
        assert options.keys() == {(0, 1), (2, 1), (2, 2), (2, 3)}
        wanted = {(each.row, each.number): each.wanted for each in ANSWERED}
        return {key: np.array(scores) for key, scores in SCORES.items()}, wanted


def judged(model: Any, **fields: Any) -> dict[str, float]:
    found = Dialogues("words", **fields)(Embedded({}, {}, predictions=model), lambda texts: np.zeros(0))
    return {name.removeprefix("dialogues/words/"): value for name, value in found.items()}


def test_shares_of_right_answers_by_hand() -> None:
    found = judged(Known(), needs="needs")
    assert (found["answer_accuracy"], found["examples"]) == (3 / 5, 5.0)
    assert [found[f"answer_accuracy/{turn}"] for turn in (1, 2, 3)] == [1.0, 0.5, 0.0]
    assert found["later_accuracy"] == 0.0
    assert found["spoken_accuracy"] == 1.0
    assert found["chance_answer_accuracy"] == pytest.approx((4 + 1 + 1 + 1) / 25)
    assert found["majority_answer_accuracy"] == 2 / 5
    assert (found["chance_later_accuracy"], found["majority_later_accuracy"]) == (0.5, 0.5)
    assert judged(Known())["later_accuracy"] == pytest.approx(1 / 3)  # all but the first answers
    assert "R@1" not in found


def test_candidates_are_ranked_as_visdial_s() -> None:
    found = judged(Known(), options="options", relevance="relevance")
    assert found["R@1"] == pytest.approx(2 / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert found["mean_rank"] == pytest.approx(4 / 3)
    gain = (0.5 + 0.0) / (1 + 0.5 / np.log2(3))
    assert found["ndcg"] == pytest.approx(gain)
    assert found["chance_R@1"] == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert found["chance_ndcg"] == pytest.approx(0.5 * (1 + 1 / np.log2(3)) / (1 + 0.5 / np.log2(3)))


def test_what_can_t_be_judged_says_why() -> None:
    with pytest.raises(UserError, match="no conversation of the validation split has an answer"):
        judged(Known([]))
    with pytest.raises(UserError, match=r"needs='needs'.* tells nothing of answer 2 of row 0"):
        judged(Known(needs=[[False], None, [True] * 3]), needs="needs")
    with pytest.raises(UserError, match=r"Dialogues\(options=\.\.\.\): 'no json' is no list of lists"):
        judged(Known(options=["no json", None, None]), options="options")
    with pytest.raises(UserError, match="answer 1 of row 0 has 2 values and 3 options"):
        judged(Known(relevance=[[[1.0, 0.0]], None, None]), options="options", relevance="relevance")
    with pytest.raises(UserError, match="which isn't among its options"):
        judged(Known(options=[[["two", "red", "x"]], None, [["x"], ["dog", "ape"], ["left"]]]), options="options")


def test_samples_tell_what_was_asked_written_and_right() -> None:
    found = Dialogues("words").samples(replace(Embedded({}, {}), predictions=Known()))
    assert [(sample.name, sample.row) for sample in found] == [("dialogues/words", 0), ("dialogues/words", 2)]
    assert found[0].lines == (("asked", "what?", None), ("wrote", "Two.", True), ("asked", "and it?", None),
                              ("wrote", "blue", False), ("right is", "red", None))  # fmt: skip
    assert found[1].lines[0] == ("asked", "(a sound)", None)
