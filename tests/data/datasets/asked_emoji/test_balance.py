from collections import Counter, defaultdict

import pytest

from mmjax.data.datasets.asked_emoji.balance import Balance, balanced
from mmjax.data.datasets.asked_emoji.questions import Asked, asked_alone, asked_of_both
from mmjax.data.datasets.asked_emoji.scenes import scenes
from tests.data.datasets.asked_emoji.made import many


@pytest.fixture(scope="module")
def asked():
    both = scenes(many(), "train", 90)
    alone = [asked for twins in both for scene in twins for asked in asked_alone(scene)]
    return balanced(alone, [pair for twins in both for pair in asked_of_both(twins)], 180)


def times(asked, key):
    """Value of a field -> answer -> number."""
    found = defaultdict(Counter)
    for each in asked:
        found[getattr(each, key)][each.answer] += 1
    return found


def test_of_one_text_all_answers_are_equally_frequent(asked):
    texts = times(asked, "question")
    assert len(texts) > 50
    for text, found in texts.items():
        assert len(found) > 1, text
        assert len(set(found.values())) == 1, (text, found)


def test_of_one_form_answers_differ_in_number_by_one_at_most(asked):
    for form, found in times(asked, "form").items():
        assert max(found.values()) - min(found.values()) <= 1, (form, found)


def test_of_one_picture_all_answers_differ(asked):
    pictures = times(asked, "picture")
    assert len(pictures) > 170
    assert all(set(found.values()) == {1} for found in pictures.values())
    assert max(len(found) for found in pictures.values()) <= 8


def test_every_kind_is_asked_about_as_often_as_it_should(asked):
    kinds = Counter(each.kind for each in asked)
    assert set(kinds) == {"neighbour", "beside", "over", "side", "height", "group", "count", "colour", "presence"}
    assert kinds["presence"] == pytest.approx(180, abs=2)
    assert 800 < len(asked) < 1_100


def one(picture, answer, question="is there an animal?", kind="presence"):
    return Asked(picture, kind, question, question, answer)


def test_what_has_no_counterpart_is_not_asked():
    balance = Balance()
    balance.choose_alone([one("a", "yes"), one("b", "yes"), one("c", "no"), one("d", "yes")], 100)
    assert Counter(each.answer for each in balance.asked) == {"yes": 1, "no": 1}
    flags = [
        one("e", "yes", "is there a flag?"),
        one("f", "no", "is there a face?"),
        one("g", "yes", "is there a face?"),
    ]
    balance.choose_alone(flags, 100)
    assert {each.question for each in balance.asked[2:]} == {"is there a face?"}


def test_a_picture_with_few_questions_comes_first():
    balance = Balance()
    balance.choose_alone([one("a", "yes"), one("b", "no")], 2)
    others = [one(picture, answer, "is there a face?") for picture, answer in (("a", "no"), ("b", "yes"))]
    fresh = [one(picture, answer, "is there a face?") for picture, answer in (("c", "no"), ("d", "yes"))]
    balance.choose_alone([*others, *fresh], 2)
    assert {each.picture for each in balance.asked[2:]} == {"c", "d"}


def test_a_count_needs_all_numbers_and_a_colour_three():
    colours, numbers = ("red", "green", "blue", "pink"), ("one", "two", "three", "four")
    for kind, answers, asked in (("colour", colours, 6), ("count", numbers, 0)):
        balance = Balance()
        other = [one("z", answers[3], "of another text?", kind)]  # so that there are four answers of the kind
        balance.choose_alone(other + [one(f"{a}{n}", a, "which?", kind) for a in answers[:3] for n in range(2)], 100)
        assert len(balance.asked) == asked
        balance.choose_alone([one(a, a, "of two?", kind) for a in answers[:2]] + other, 100)
        assert len(balance.asked) == asked


def test_pairs_of_one_text_stay_even():
    def pair(twins, first, second):
        question = "what is above the car?"
        return one(f"{twins}a", first, question, "neighbour"), one(f"{twins}b", second, question, "neighbour")

    balance = Balance()
    balance.choose_pairs([pair("1", "animal", "plant"), pair("2", "flag", "food"), pair("3", "animal", "flag")], 6)
    assert Counter(each.answer for each in balance.asked) == dict.fromkeys(("animal", "plant", "flag", "food"), 1)
