import pytest

from mmjax.data.datasets.asked_emoji.shortcuts import best_accuracy, chance, check_shortcuts, learned_accuracy
from mmjax.errors import UserError


def example(picture, question, answer, form=None, kind="k"):
    return {"picture": picture, "question": question, "form": form or question, "kind": kind, "answer": answer}


TEST = [
    example("1", "is there a cat?", "yes"),
    example("1", "how many?", "two"),
    example("2", "is there a cat?", "no"),
    example("2", "how many?", "two"),
    example("2", "what colour?", "red"),
    example("3", "how many?", "one"),
]


def test_chance_is_that_of_a_guess_among_the_answers_that_occur():
    assert chance(TEST, "form") == pytest.approx((2 * 1 / 2 + 3 * 1 / 2 + 1) / 6)
    assert chance(TEST, "picture") == pytest.approx((2 * 1 / 2 + 3 * 1 / 3 + 1) / 6)


def test_the_best_answer_for_each_value_is_right_for_the_most():
    assert best_accuracy(TEST, "form") == pytest.approx((1 + 2 + 1) / 6)
    assert best_accuracy(TEST, "kind") == pytest.approx(2 / 6)
    assert best_accuracy([*TEST, example("3", "again, how many?", "one")], "picture") == pytest.approx((1 + 1 + 2) / 7)


def test_what_was_learned_is_the_answer_to_the_same_words_or_else_to_the_same_form():
    train = [
        *(example("9", "is there a cat?", answer) for answer in ("no", "no", "no", "yes")),
        *(example("9", f"where is {name}?", answer, "where is …?") for name, answer in (("a", "left"), ("b", "left"))),
        example("9", "where is c?", "right", "where is …?", "other"),
    ]
    assert learned_accuracy(train, [example("1", "is there a cat?", "no")]) == 1
    assert learned_accuracy(train, [example("1", "is there a cat?", "yes")]) == 0
    assert learned_accuracy(train, [example("1", "where is c?", "right", "where is …?")]) == 1
    assert learned_accuracy(train, [example("1", "where is d?", "left", "where is …?")]) == 1
    assert learned_accuracy(train, [example("1", "why?", "right", kind="other")]) == 1
    assert learned_accuracy(train, [example("1", "why?", "right", kind="new")]) == 0


def pictures(**answers):
    """Twenty pictures, each with the same questions; the answers take turns from one picture to the next."""
    return [example(f"{n}", question, given[n % 2]) for n in range(20) for question, given in answers.items()]


def test_data_without_a_shortcut_passes_and_each_shortcut_is_told():
    fair = pictures(a=("yes", "no"), b=("no", "yes"))
    check_shortcuts({"train": fair, "test": fair})
    uneven = [*fair, *(example(f"{n}", "a", "yes") for n in range(8))]
    with pytest.raises(UserError, match=r"the question alone tells 0\.58\d .*of 'test', and may tell 0\.530"):
        check_shortcuts({"train": fair, "test": uneven})
    alike = pictures(a=("yes", "no"), b=("yes", "no"), c=("no", "yes"))
    with pytest.raises(UserError, match=r"the picture alone tells 0\.667 .*of 'train', and may tell 0\.530"):
        check_shortcuts({"train": alike, "test": fair})


def test_what_training_tells_of_the_same_words_is_a_shortcut_too():
    form = "where is …?"
    train = [example("1", "where is a?", "left", form), example("2", "where is b?", "right", form)]
    test = [example("3", "where is a?", "left", form), example("4", "where is b?", "right", form)]
    assert best_accuracy(test, "form") == chance(test, "form") == 0.5
    with pytest.raises(UserError, match=r"the question alone tells 1\.000 of the answers of 'test'"):
        check_shortcuts({"train": train, "test": test})
