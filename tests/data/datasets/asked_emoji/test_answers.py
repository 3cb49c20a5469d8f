from mmjax.data.datasets.asked_emoji.answers import ANSWERS, WORDS, word_of
from mmjax.data.datasets.spoken_emoji.catalogue import groups


def test_the_answers_are_a_closed_list_of_single_words():
    assert len(set(ANSWERS)) == len(ANSWERS) == 34
    assert all(answer.isalpha() and answer.islower() for answer in ANSWERS)
    assert {"yes", "no", "four", "left", "top", "above", "red", "animal", "flag"} < set(ANSWERS)


def test_every_subgroup_is_unicodes_and_has_one_word():
    named = [subgroup for word in WORDS.values() for subgroup in word.subgroups.split()]
    assert len(set(named)) == len(named)
    assert set(named) < {subgroup for _, subgroup in groups().values()}


def test_an_emoji_has_the_word_of_its_subgroup_unless_that_does_not_fit_it():
    assert word_of("1F408", "animal-mammal") == "animal"
    assert word_of("1F43E", "animal-mammal") is None  # paw prints
    assert word_of("1F6A6", "transport-ground") is None  # a traffic light is no vehicle
    assert word_of("1F697", "transport-ground") == "vehicle"
    assert word_of("1F63A", "cat-face") is None
