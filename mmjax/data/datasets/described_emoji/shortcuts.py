"""Measures how far `described_emoji` can be guessed without the picture, or without what was said before.

The guess is what is most frequent in training where the same is known; without history, what is most frequent in these
very dialogues, which nobody can beat.
"""

import math
from collections.abc import Mapping, Sequence

from mmjax.data.datasets.asked_emoji.shortcuts import TOLERANCE, best_accuracy, chance, learned_accuracy
from mmjax.data.datasets.described_emoji.dialogues import AskedTurn
from mmjax.data.datasets.described_emoji.tiles import FACTS, TiledScene
from mmjax.errors import UserError

Rows = list[dict[str, str]]
Asked = Sequence[tuple[TiledScene, Sequence[AskedTurn]]]  # dialogues, each with its scene

MOST_WITHOUT_HISTORY = 0.5  # of the answers that refer back
WANTED = (*FACTS, "side", "height")  # of a tile, as captions tell them


def without_history(asked: Asked) -> float:
    """The accuracy, on the turns that refer back, of the best answer that a picture and the question's words have."""
    rows = [
        {"seen": f"{scene.id} {turn.question}", "answer": turn.answer}
        for scene, turns in asked
        for turn in turns
        if turn.needs_history
    ]
    return best_accuracy(rows, "seen")


def without_picture(train: Asked, asked: Asked) -> tuple[float, float]:
    """The accuracy, on all turns of `asked`, of who knows the question and what the other tile has, and chance.

    Of the question the words count, and of words that training never has with that, the fact. On training itself, which
    many words are asked once in, it is the fact alone.
    """
    words = asked is not train
    rows = _turn_rows(asked, words)
    return learned_accuracy(_turn_rows(train, words), rows), chance(rows, "form")


def known_facts(wanted: str) -> tuple[str, ...]:
    """The names of what may tell a tile's fact: nothing at all, its other facts, and those of the other tile.

    Not the same fact of the other tile, which differs, nor of two places what they say of each other.
    """
    barred = {wanted, *({"place"} if wanted in ("side", "height") else ())}
    return ("nothing", *(f"{whose}{fact}" for whose in ("", "other ") for fact in FACTS if fact not in barred))


def told_facts(scenes: Sequence[TiledScene]) -> Rows:
    """All facts of each tile, its relations to the other one, and the facts of that, by "other kind" and the like."""
    return [
        tile.facts() | tile.relations(other) | {f"other {fact}": value for fact, value in other.facts().items()}
        for scene in scenes
        for tile, other in (scene.tiles, scene.tiles[::-1])
    ]


def fact_told(train: Rows, told: Rows, wanted: str, known: str) -> tuple[float, float]:
    """The accuracy of guessing a fact, one of `WANTED`, by one of its `known_facts`, and chance.

    train, told: `told_facts` of training and of those to be guessed.
    """
    rows = _fact_rows(told, wanted, known)
    return learned_accuracy(_fact_rows(train, wanted, known), rows), chance(rows, "kind")


def check_dialogues(splits: Mapping[str, Asked]) -> None:
    """Raises UserError where, in one of the splits, half of the answers that refer back can be told without history, or
    answers can be told without the picture. "train" is among the splits.
    """
    for split, asked in splits.items():
        if (found := without_history(asked)) >= MOST_WITHOUT_HISTORY:
            raise UserError(
                f"described_emoji: the picture and the question alone tell {found:.3f} of the answers of {split!r} "
                f"that refer back, and may tell less than {MOST_WITHOUT_HISTORY}: raise the numbers of pictures"
            )
        found, by_chance = without_picture(splits["train"], asked)
        _check_guess(f"answers of {split!r} are told without the picture", found, by_chance, len(asked))


def check_facts(splits: Mapping[str, Sequence[TiledScene]]) -> None:
    """Raises UserError where, in one of the splits, a fact of a tile can be told by nothing, or by another fact.
    "train" is among the splits.
    """
    told = {split: told_facts(scenes) for split, scenes in splits.items()}
    for split, scenes in splits.items():
        for wanted in WANTED:
            for known in known_facts(wanted):
                found, by_chance = fact_told(told["train"], told[split], wanted, known)
                _check_guess(f"the {wanted} of tiles of {split!r} is told by {known}", found, by_chance, len(scenes))


def _check_guess(what: str, found: float, by_chance: float, number: int) -> None:
    """Raises UserError where a guess is right more often than by chance, 3 points, and two standard errors of as many
    guesses: of three hundred pictures some are lucky.
    """
    limit = by_chance + TOLERANCE + 2 * math.sqrt(by_chance * (1 - by_chance) / number)
    if found > limit:
        raise UserError(
            f"described_emoji: {what} in {found:.3f}, and may be in {limit:.3f}: raise the numbers of pictures"
        )


def _turn_rows(asked: Asked, words: bool) -> Rows:
    rows = []
    for turn in (turn for _, turns in asked for turn in turns):
        form = f"{turn.fact} {turn.told}"
        question = f"{turn.question} {turn.told}" if words else form
        rows.append({"kind": turn.fact, "form": form, "question": question, "answer": turn.answer})
    return rows


def _fact_rows(told: Rows, wanted: str, known: str) -> Rows:
    return [
        {"kind": wanted, "form": facts.get(known, ""), "question": facts.get(known, ""), "answer": facts[wanted]}
        for facts in told
        if wanted in facts
    ]
