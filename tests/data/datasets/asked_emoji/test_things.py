from collections import Counter

import pytest

from mmjax.data.datasets.asked_emoji.answers import COLOURS, WORDS
from mmjax.data.datasets.asked_emoji.things import things
from mmjax.data.datasets.spoken_emoji.catalogue import SKIN_TONES, catalogue
from mmjax.data.datasets.spoken_emoji.example import picture_folder


@pytest.fixture(scope="module")
def everything():
    return things()


def test_emoji_have_the_splits_and_names_of_spoken_emoji(everything):
    entries = {entry.id: entry for entry in catalogue(path.stem for path in picture_folder().glob("*.svg"))}
    assert len(everything) > 1_400
    for thing in everything:
        assert thing.split == entries[thing.id].split
        assert thing.name in ("", entries[thing.id].names["en"])
        assert not SKIN_TONES & set(thing.id.split("-"))


def test_a_name_that_is_said_is_short_and_no_group_s_word(everything):
    names = {thing.id: thing.name for thing in everything}
    assert names["1F34E"] == "red apple"
    assert names["1F9D1"] == ""  # "person"
    assert names["1F1E6-1F1FD"] == ""  # "Åland Islands"
    assert all(len(name.split()) <= 3 for name in names.values())


def test_every_split_has_every_word_and_every_colour_but_people_have_none(everything):
    for split in ("train", "validation", "test"):
        part = [thing for thing in everything if thing.split == split]
        assert {thing.word for thing in part} == set(WORDS)
        assert {thing.colour for thing in part} == {None, *COLOURS}
    assert {thing.colour for thing in everything if thing.word == "person"} == {None}


def test_a_limit_takes_some_of_each_word_and_split(everything):
    few = things(limit=3)
    whole = Counter((thing.split, thing.word) for thing in everything)
    assert Counter((thing.split, thing.word) for thing in few) == {key: min(3, times) for key, times in whole.items()}
    assert set(few) < set(everything)
