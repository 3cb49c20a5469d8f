"""The answers to questions, written down by hand for scenes that are drawn here:

first:   red cat    | green car          second:   blue rose  | green car
         (empty)    | blue rose                    (empty)    | red cat
"""

from mmjax.data.datasets.asked_emoji.answers import ANSWERS
from mmjax.data.datasets.asked_emoji.questions import asked_alone, asked_of_both
from mmjax.data.datasets.asked_emoji.scenes import scenes
from tests.data.datasets.asked_emoji.made import many, scene, thing

CAT, CAR, ROSE = thing("cat", "animal", "red"), thing("car", "vehicle", "green"), thing("rose", "plant", None)
FIRST = scene("x-a", {(0, 0): CAT, (0, 1): CAR, (1, 1): ROSE})
SECOND = scene("x-b", {(0, 0): ROSE, (0, 1): CAR, (1, 1): CAT})


def answers(scene):
    return {asked.question: asked.answer for asked in asked_alone(scene)}


def paired(twins):
    """Question without the words for emoji -> the answers in both, where each emoji has its name instead of a word."""
    found = {}
    for one, other in asked_of_both(twins):
        assert one.question == other.question
        question = one.question
        for each in (CAT, CAR, ROSE):
            question = question.replace(f"the {each.word}", f"the {each.name}")
        found[question] = (one.answer, other.answer)
    return found


def test_questions_of_fixed_words():
    assert answers(FIRST) == {
        "what is at the top left?": "animal",
        "what is at the top right?": "vehicle",
        "what is at the bottom right?": "plant",
        "what colour is the emoji at the top left?": "red",
        "what colour is the emoji at the top right?": "green",
        "what colour is the animal?": "red",
        "what colour is the vehicle?": "green",
        "how many emoji are there?": "three",
        "how many animals are there?": "one",
        "how many vehicles are there?": "one",
        "how many plants are there?": "one",
        "is there an animal?": "yes",
        "is there a vehicle?": "yes",
        "is there a plant?": "yes",
        "is there a building?": "no",
        "is there a face?": "no",
        "is there a flag?": "no",
        "is there a hand?": "no",
        "is there a person?": "no",
        "is there a symbol?": "no",
        "is there any clothing?": "no",
        "is there any food?": "no",
    }


def test_two_of_a_word_are_counted_and_not_asked_about_by_it():
    found = answers(scene("x-a", {(0, 0): CAT, (1, 1): thing("dog", "animal", "brown")}))
    assert found["how many animals are there?"] == "two"
    assert "what colour is the animal?" not in found


def test_questions_about_a_place_have_other_answers_in_the_twin():
    assert paired((FIRST, SECOND)) == {
        "is the cat on the left or on the right?": ("left", "right"),
        "is the cat at the top or at the bottom?": ("top", "bottom"),
        "is the rose on the left or on the right?": ("right", "left"),
        "is the rose at the top or at the bottom?": ("bottom", "top"),
        "is the cat to the left or to the right of the rose?": ("left", "right"),
        "is the rose to the left or to the right of the cat?": ("right", "left"),
        "is the cat above or below the rose?": ("above", "below"),
        "is the rose above or below the cat?": ("below", "above"),
        "what is to the left of the car?": ("animal", "plant"),
        "what is below the car?": ("plant", "animal"),
    }


def test_neighbours_of_one_word_are_not_asked_for():
    dog = thing("dog", "animal")
    twins = (
        scene("x-a", {(0, 0): CAT, (0, 1): CAR, (1, 1): dog}),
        scene("x-b", {(0, 0): dog, (0, 1): CAR, (1, 1): CAT}),
    )
    assert not [one for one, _ in asked_of_both(twins) if one.kind == "neighbour"]


def test_an_emoji_whose_name_may_mean_another_is_not_named():
    twins = (
        scene("x-a", {(0, 0): thing("cat", "animal"), (1, 1): thing("black cat", "animal")}),
        scene("x-b", {(1, 1): thing("cat", "animal"), (0, 0): thing("black cat", "animal")}),
    )
    assert list(asked_of_both(twins)) == []


def test_words_and_names_are_both_used_and_the_form_has_neither():
    pairs = [pair for twins in scenes(many(), "train", 60) for pair in asked_of_both(twins)]
    forms = {one.form for one, _ in pairs}
    assert len(forms) == 8
    assert all("…" in form for form in forms)
    called = {
        one.question.partition("is the ")[2].partition(" on the left")[0] for one, _ in pairs if one.kind == "side"
    }
    assert {"animal", "vehicle", "plant", "flag"} < called
    assert len(called) > 20
    assert all("…" not in one.question and {one.answer, other.answer} <= set(ANSWERS) for one, other in pairs)
