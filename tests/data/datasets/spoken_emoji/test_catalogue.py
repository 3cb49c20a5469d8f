from collections import Counter

import pytest

from mmjax.data.datasets.spoken_emoji import catalogue as emoji
from mmjax.data.datasets.spoken_emoji.catalogue import LANGUAGES, SPLITS, catalogue
from mmjax.data.datasets.spoken_emoji.example import picture_folder


@pytest.fixture(scope="module")
def entries():
    return catalogue(path.stem for path in picture_folder().glob("*.svg"))


def of_split(entries, split):
    return [entry for entry in entries if entry.split == split]


def test_splits_are_shares_of_all_emoji(entries):
    assert len(entries) == len({entry.id for entry in entries}) > 3_700
    counts = Counter(entry.split for entry in entries)
    for split, share in SPLITS.items():
        assert counts[split] / len(entries) == pytest.approx(share, abs=0.015)


def test_every_emoji_has_a_name_in_every_language_and_english_names_are_unique(entries):
    assert all(set(entry.names) == set(LANGUAGES) and all(entry.names.values()) for entry in entries)
    assert len({entry.names["en"].casefold() for entry in entries}) == len(entries)
    assert not [entry for entry in entries if "_" in entry.names["en"] or ":" in entry.names["en"]]


def test_no_caption_of_one_split_stands_in_another_in_any_language(entries):
    captions = {
        split: {name.casefold() for entry in of_split(entries, split) for name in entry.names.values()}
        for split in SPLITS
    }
    assert not captions["train"] & captions["validation"]
    assert not captions["train"] & captions["test"]
    assert not captions["validation"] & captions["test"]


def test_emoji_that_share_a_name_over_a_chain_of_others_are_linked():
    names = {"1": {"en": "a", "es": "X"}, "2": {"en": "b", "es": "x"}, "3": {"en": "B"}, "4": {"en": "c"}}
    assert emoji._linked(names) == {"1": "1", "2": "1", "3": "1", "4": "4"}


def test_splits_have_speakers_of_their_own(entries):
    speakers = {
        split: {said.voice.partition("+")[2] for entry in of_split(entries, split) for said in entry.utterances}
        for split in SPLITS
    }
    assert len(speakers["train"]) >= 12
    assert not speakers["train"] & speakers["validation"]
    assert not speakers["train"] & speakers["test"]
    assert not speakers["validation"] & speakers["test"]
    assert "" not in speakers["train"] | speakers["validation"] | speakers["test"]


def test_training_speakers_accents_rates_and_pitches_vary_and_an_emoji_has_no_speaker_twice(entries):
    utterances = [said for entry in of_split(entries, "train") for said in entry.utterances]
    speakers = Counter(said.voice.partition("+")[2] for said in utterances)
    accents = Counter(said.voice.partition("+")[0] for said in utterances)
    assert max(speakers.values()) < 1.25 * min(speakers.values())
    assert max(accents.values()) < 1.25 * min(accents.values())
    assert len({said.rate for said in utterances}) > 50
    assert len({said.pitch for said in utterances}) > 40
    for entry in of_split(entries, "train"):
        assert len({said.voice.partition("+")[2] for said in entry.utterances}) == emoji.TRAIN_UTTERANCES


def test_groups_are_unicodes_and_skin_tones_are_in_their_bases_group(entries):
    found = {entry.id: (entry.group, entry.subgroup) for entry in entries}
    assert found["1F408"] == ("animals-nature", "animal-mammal")
    assert found["1F44B"] == found["1F44B-1F3FD"] == ("people-body", "hand-fingers-open")
    assert found["2764"] == ("smileys-emotion", "heart")
    assert found["1F1EB-1F1F7"] == ("flags", "country-flag")
    assert {entry.group for entry in entries} == {group for group, _ in emoji.groups().values()}
    assert len({entry.group for entry in entries}) == 9


def test_an_id_does_not_depend_on_which_other_emoji_there_are(entries):
    some = catalogue(entry.id for entry in entries[::10])
    whole = {entry.id: entry for entry in entries}
    assert len(some) == len(entries[::10])
    assert sum(entry != whole[entry.id] for entry in some) <= 3  # those whose namesake is gone may move


def test_the_table_is_small_and_has_its_licence_beside_it():
    assert emoji.TABLE.stat().st_size < 100_000
    licence = emoji.TABLE.with_name("groups.LICENSE.txt").read_text(encoding="utf-8")
    assert "UNICODE LICENSE V3" in licence
    assert "MIT License" in licence
