import dataclasses
import re
from collections import Counter, defaultdict

import pytest

from mmjax.data.datasets.described_emoji.dialogues import AskedTurn
from mmjax.data.datasets.described_emoji.shortcuts import (
    WANTED,
    check_dialogues,
    check_facts,
    fact_told,
    known_facts,
    told_facts,
    without_history,
    without_picture,
)
from mmjax.data.datasets.described_emoji.tiles import FACTS
from mmjax.errors import UserError

SPLITS = ("train", "validation", "test")
CHANCE = {"kind": 1 / 8, "colour": 1 / 9, "count": 1 / 4, "place": 1 / 4, "side": 1 / 2, "height": 1 / 2}


@pytest.mark.parametrize("split", SPLITS)
def test_picture_and_question_alone_tell_less_than_half_of_what_refers_back(held, split):
    """By counting anew: of each picture and each of its questions, no answer is more frequent than the others."""
    seen = defaultdict(Counter)
    for scene, turns in held[split]:
        for turn in turns:
            if turn.needs_history:
                seen[scene.id, turn.question][turn.answer] += 1
    assert all(max(times.values()) <= sum(times.values()) / 2 for times in seen.values())
    best = sum(max(times.values()) for times in seen.values()) / sum(sum(times.values()) for times in seen.values())
    assert without_history(held[split]) == pytest.approx(best)
    assert best < 0.49


@pytest.mark.parametrize("split", SPLITS)
def test_without_the_picture_answers_are_guessed_by_chance(held, split):
    found, by_chance = without_picture(held["train"], held[split])
    turns = [turn for _, turns in held[split] for turn in turns]
    number = {fact: round(1 / share) for fact, share in CHANCE.items()}
    assert by_chance == pytest.approx(sum(1 / (number[t.fact] - bool(t.told)) for t in turns) / len(turns), abs=0.003)
    assert found == pytest.approx(by_chance, abs=0.015)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("wanted", WANTED)
def test_no_fact_of_a_tile_is_told_by_another(planned, split, wanted):
    limit = 0.03 if split == "train" else 0.07  # 300 pictures, of which lucky guesses are 4 points at most
    known = known_facts(wanted)
    assert len(known) == 7
    train, told = told_facts(planned["train"]), told_facts(planned[split])
    for each in known:
        found, by_chance = fact_told(train, told, wanted, each)
        assert by_chance == pytest.approx(CHANCE[wanted])
        assert found < by_chance + limit, each


def test_the_dataset_passes(planned, held):
    check_facts(planned)
    check_dialogues(held)


def changed(scene, **facts):
    """The scene whose first tile has other facts."""
    return dataclasses.replace(scene, tiles=(dataclasses.replace(scene.tiles[0], **facts), scene.tiles[1]))


def test_a_fact_that_goes_with_another_is_told(planned):
    goes = dict(zip(FACTS["kind"], FACTS["colour"], strict=False))
    tied = [changed(scene, colour=goes[scene.tiles[0].kind]) for scene in planned["train"]]
    assert fact_told(told_facts(tied), told_facts(tied), "colour", "kind")[0] > 0.5
    with pytest.raises(UserError, match=r"the kind of tiles of 'train' is told by colour in 0\.5\d\d, and may be in"):
        check_facts({"train": tied})
    with pytest.raises(UserError, match=r"the kind of tiles of 'train' is told by nothing in 0\.5\d\d"):
        check_facts({"train": [changed(scene, kind="face") for scene in planned["train"]]})


def test_the_other_tile_must_not_tell_either(planned):
    goes = dict(zip(FACTS["kind"], FACTS["colour"], strict=False))
    tied = [changed(scene, colour=goes[scene.tiles[1].kind]) for scene in planned["train"]]
    fair, spoilt = told_facts(planned["train"]), told_facts(tied)
    assert fact_told(spoilt, spoilt, "colour", "other kind")[0] > 0.5
    assert fact_told(fair, spoilt, "colour", "other kind")[0] < 0.15  # training doesn't teach it
    with pytest.raises(UserError, match=r"the kind of tiles of 'train' is told by other colour in 0\.5\d\d"):
        check_facts({"train": tied})


def test_history_that_is_not_needed_is_told(held):
    """Dialogues that begin with one tile alone: picture and question tell everything."""
    alone = held["test"][::2]
    assert without_history(alone) > 0.8
    with pytest.raises(UserError, match=r"picture and the question alone tell 0\.\d+ of the answers of 'test' that"):
        check_dialogues({"train": held["train"], "test": alone})


def test_answers_that_questions_tell_are_told(held):
    def leaky(turns):
        return [
            turn if turn.needs_history else dataclasses.replace(turn, question=f"{turn.question} {turn.answer}")
            for turn in turns
        ]

    spoilt = {split: [(scene, leaky(turns)) for scene, turns in each] for split, each in held.items()}
    found, by_chance = without_picture(spoilt["train"], spoilt["test"])
    assert found > by_chance + 0.1
    with pytest.raises(UserError, match=r"answers of 'validation' are told without the picture"):
        check_dialogues(spoilt)


def test_an_uneven_answer_of_training_is_told(held):
    def uneven(turn: AskedTurn) -> AskedTurn:
        return dataclasses.replace(turn, answer="four") if turn.fact == "count" and not turn.needs_history else turn

    spoilt = [(scene, [uneven(turn) for turn in turns]) for scene, turns in held["train"]]
    with pytest.raises(UserError, match=re.escape("answers of 'train' are told without the picture")):
        check_dialogues({"train": spoilt})
