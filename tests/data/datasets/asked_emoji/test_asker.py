"""Questions that are drawn one by one: their balance is counted on scenes of all emoji of training."""

import pickle
from collections import Counter, defaultdict

import pytest

from mmjax.data.datasets.asked_emoji import asker as asker_module
from mmjax.data.datasets.asked_emoji.answers import ANSWERS
from mmjax.data.datasets.asked_emoji.asker import OF_A_PICTURE, Asker
from mmjax.data.datasets.asked_emoji.balance import SHARES
from mmjax.data.datasets.asked_emoji.questions import asked_alone, asked_of_places
from mmjax.data.datasets.asked_emoji.scenes import Pool
from mmjax.data.datasets.asked_emoji.shortcuts import best_accuracy, chance, learned_accuracy
from mmjax.data.datasets.asked_emoji.things import Thing, things
from mmjax.errors import UserError

COUNT = 32_000


@pytest.fixture(scope="module")
def asker():
    return Asker(Pool(things(), "train"))


@pytest.fixture(scope="module")
def drawn(asker):
    pictures = [asker.asked_of_picture(picture) for picture in range(COUNT // 4)]
    return [(scene, asked) for scene, questions in pictures for asked in questions]


@pytest.fixture(scope="module")
def kinds(drawn):
    found = defaultdict(list)
    for _, asked in drawn:
        found[asked.kind].append(vars(asked))
    return found


def test_a_question_depends_on_its_number_alone_in_any_process(asker, drawn):
    assert [asker.asked(number) for number in range(80, 120)] == drawn[80:120]
    other = pickle.loads(pickle.dumps(asker))
    for number in (COUNT - 1, 7, 4_002):
        assert other.asked(number) == drawn[number]
    assert other.described() == asker.described()


def test_a_question_can_be_asked_of_its_scene_and_is_answered_by_it(drawn):
    for scene, asked in drawn[::17]:
        assert asked in (*asked_alone(scene), *asked_of_places(scene))
        assert asked.picture == scene.id
        assert {placed.thing.split for placed in scene.placed} == {"train"}


def test_a_picture_is_asked_four_questions_of_different_answers(drawn):
    pictures = defaultdict(list)
    for number, (_, asked) in enumerate(drawn):
        pictures[number // OF_A_PICTURE].append(asked)
    for each in pictures.values():
        assert len({asked.picture for asked in each}) == 1
        assert len({asked.answer for asked in each}) == OF_A_PICTURE == 4
    assert len({each[0].picture for each in pictures.values()}) == COUNT / 4


def test_all_emoji_and_answers_occur_and_kinds_have_about_their_shares(drawn, kinds):
    assert {asked.answer for _, asked in drawn} == set(ANSWERS)
    assert len({placed.thing.id for scene, _ in drawn for placed in scene.placed}) > 1_200
    whole = sum(SHARES.values())
    for kind, share in SHARES.items():
        assert len(kinds[kind]) / COUNT == pytest.approx(share / whole, abs=0.04), kind


@pytest.mark.parametrize("kind", SHARES)
def test_the_question_alone_tells_no_more_than_chance(kinds, kind):
    asked = kinds[kind]
    assert best_accuracy(asked, "kind") <= chance(asked, "kind") + 0.03
    often = Counter(each["form"] for each in asked)
    asked = [each for each in asked if often[each["form"]] >= 200]  # of few the best is good by chance
    assert asked
    assert best_accuracy(asked, "form") <= chance(asked, "form") + 0.04


def test_neither_the_question_nor_the_picture_alone_tells_an_answer(drawn):
    asked = [vars(each) for _, each in drawn]
    half = len(asked) // 2
    assert best_accuracy(asked, "picture") == chance(asked, "picture") == 0.25
    for key in ("form", "kind"):
        assert best_accuracy(asked, key) <= chance(asked, key) + 0.03
    assert learned_accuracy(asked[:half], asked[half:]) <= chance(asked, "form") + 0.03


def test_emoji_that_allow_too_few_questions_are_an_error(monkeypatch):
    monkeypatch.setattr(asker_module, "_SCENES", 100)
    same = [Thing(f"{number}", "", "object", None, "train") for number in range(8)]
    with pytest.raises(UserError, match=r"no scene in 100 can be asked 4 questions of different answers: raise limit"):
        Asker(Pool(same, "train")).asked(0)
