"""VQA's accuracy, by leaving out each annotator, and its normalisation, case by case."""

import pytest

from mmjax.data.transforms.labels import SOFT
from mmjax.errors import UserError
from mmjax.evaluate.metrics.vqa_accuracy import CONTRACTIONS, normalised_answer, vqa_accuracy


@pytest.mark.parametrize("n", range(11))
def test_the_accuracy_of_n_equal_answers(n):
    people = ["yes"] * n + [f"other {i}" for i in range(10 - n)]
    left_out = []
    for i in range(10):
        others = people[:i] + people[i + 1 :]
        left_out.append(min(1.0, others.count("yes") / 3))
    assert vqa_accuracy("yes", people) == pytest.approx(sum(left_out) / 10, abs=1e-12)
    assert vqa_accuracy("yes", people) == pytest.approx([0, 0.3, 0.6, 0.9, 1][min(n, 4)], abs=1e-12)
    assert vqa_accuracy("yes", people) == pytest.approx(SOFT[min(n, 4)], abs=1e-12)  # the soft targets are these


def test_the_shortcut_of_a_third_is_another_number():
    assert vqa_accuracy("2", ["2"] * 2 + ["3"] * 8) == pytest.approx(0.6, abs=1e-12)


def test_unanimous_answers_are_compared_as_they_are_written():
    assert vqa_accuracy("a cat", ["A cat."] * 10) == 0
    assert vqa_accuracy("A cat.", ["A cat."] * 10) == 1
    assert vqa_accuracy("\tA cat.\n", ["A cat. "] * 10) == 1
    assert vqa_accuracy("a cat", ["A cat."] * 9 + ["dog"]) == 1  # normalised, since one differs
    assert vqa_accuracy("Two", ["2"] * 5 + ["two"] * 5) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat.", "cat"),
        ("The\tend\n", "end"),
        ("none", "0"),
        ("Ten an zero", "10 0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldntve couldnt've couldn'tve", "couldntve couldn't've couldn't've"),
        ("lets", "lets"),
        ("Im", "im"),
        ("somebody'd", "somebodyd"),
        ("twas", "'twas"),
        ("black-and-white", "black and white"),
        ("yes, no", "yes no"),
        ("yes,no", "yes no"),
        ("red/blue", "red blue"),
        ("red/ blue/green", "red bluegreen"),  # a mark beside a space anywhere is left out everywhere
        ("1,000 t-shirts", "1000 tshirts"),  # with a comma between digits all marks are
        ("3.5", "3.5"),
        (".5 vs. 5.", ".5 vs 5"),
        ("e.g.", "eg"),
        ("10:30", "10:30"),
        ("it's", "it's"),
        ("what?!", "what"),
        ("a", ""),
        ("." * 40, "." * 8),  # the published code removes 32
        ("", ""),
    ],
)
def test_normalised_answers(text, expected):
    assert normalised_answer(text) == expected


def test_contractions_lack_one_apostrophe():
    for short, whole in CONTRACTIONS.items():
        assert short.replace("'", "") == whole.replace("'", "")
        assert normalised_answer(short) == whole
    assert len(CONTRACTIONS) == 114  # the published 120 without two that are themselves and four of capitals


def test_answers_without_annotators():
    for annotators in ([], "yes"):
        with pytest.raises(UserError, match="annotators="):
            vqa_accuracy("yes", annotators)
