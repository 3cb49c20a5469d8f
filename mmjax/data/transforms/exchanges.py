"""Parts of conversations: how far one is heard, which exchange is drawn in training, and which answers are learnt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import RecordTransform, Rng
from mmjax.data.transforms.dialogue import ChatTurn, Dialogue, Pictured
from mmjax.errors import UserError


class HeardDialogue(NamedTuple):
    """The beginning of a conversation, or the last part of that."""

    dialogue: Dialogue
    unseen: tuple[Pictured, ...]
    """Pictures and sounds of the whole that aren't in it."""


def exchanges_of(turns: Sequence[ChatTurn]) -> list[list[ChatTurn]]:
    """The turns but the system's, a user's with those up to the next one's at a time."""
    found: list[list[ChatTurn]] = []
    for turn in turns:
        if turn.role == "system":
            continue
        if not found or (turn.role == "user" and found[-1][-1].role == "assistant"):
            found.append([])
        found[-1].append(turn)
    return found


def heard_dialogue(dialogue: Dialogue, end: int, history: int | None = None) -> HeardDialogue:
    """A conversation as far as its first `end` turns, of which the last exchange is heard with `history` earlier ones,
    or all. What is shown later is unseen, and so are sounds of exchanges that are left out, which are a part of what
    was said; pictures of these go to the first turn left.
    """
    system = [turn for turn in dialogue.turns[:end] if turn.role == "system"]
    exchanges = exchanges_of(dialogue.turns[:end])
    kept = exchanges if history is None else exchanges[-1 - history :]
    left = exchanges[: len(exchanges) - len(kept)]
    before = [part for turn in _flat(left) for part in turn.parts if isinstance(part, Pictured)]
    shown = [part for part in before if part.kind != "audio"]
    found = Dialogue([*system, *_flat(kept)]).with_front(shown)
    seen = {(part.kind, part.number) for turn in found.turns for part in turn.parts if isinstance(part, Pictured)}
    every = [part for turn in dialogue.turns for part in turn.parts if isinstance(part, Pictured)]
    return HeardDialogue(found, tuple(part for part in every if (part.kind, part.number) not in seen))


def media_entry(shown: Pictured) -> str:
    """The input of a picture or a sound: `image`, then `image_2`."""
    return shown.kind if not shown.number else f"{shown.kind}_{shown.number + 1}"


@dataclass(frozen=True)
class DrawExchange(RecordTransform):
    """Ends a conversation at an answer that is drawn, and leaves out all but `history` of the exchanges before its own,
    as `heard_dialogue` does; inputs that aren't seen then are missing. In evaluation the last answer stays.

    history: how many earlier exchanges stay; None: all.  hard: how many times as often an answer is drawn that needs
    what was said before. needs: the column that says of each answer whether it does, a list of bools; without it the
    first one alone doesn't. text: the entry with the conversation, which `ReadConversation` makes.

    Raises UserError where a field is out of its range; BadExample where the column is of another length.
    """

    history: int | None = 0
    hard: float = 1.0
    needs: str | None = None
    text: str = "text"
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.hard <= 0 or (self.history is not None and self.history < 0):
            raise UserError(
                f"DrawExchange(history={self.history}, hard={self.hard}): history is 0 or more, or None, and hard is "
                "above 0"
            )

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        dialogue = record.get(self.text)
        places = answer_places(dialogue)
        if not isinstance(dialogue, Dialogue) or not places:
            return record
        place = places[-1]
        if rng is not None:
            hard = hard_answers(record, self.needs, len(places))
            weights = np.where(hard, self.hard, 1.0)
            place = places[int(rng.choice(len(places), p=weights / weights.sum()))]
        found = heard_dialogue(dialogue, place + 1, self.history)
        missing = {name for shown in found.unseen if (name := media_entry(shown)) in record}
        return {**record, **dict.fromkeys(missing), self.text: found.dialogue}


@dataclass(frozen=True)
class PredictAnswers(RecordTransform):
    """Has a part of a conversation's easy answers read and not predicted in training, so that those that need what was
    said before weigh more; in evaluation all are predicted.

    easy: the rate at which an answer is predicted that needs nothing. The last one is where no other is. needs, text:
    as of `DrawExchange`.

    Raises UserError where the rate isn't from 0 to 1; BadExample where the column is of another length.
    """

    easy: float = 0.5
    needs: str | None = None
    text: str = "text"
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.easy <= 1:
            raise UserError(f"PredictAnswers(easy={self.easy}) is a rate from 0 to 1")

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        dialogue = record.get(self.text)
        places = answer_places(dialogue)
        if rng is None or not isinstance(dialogue, Dialogue) or not places:
            return record
        kept = hard_answers(record, self.needs, len(places)) | (rng.random(len(places)) < self.easy)
        kept[-1] |= not kept.any()
        turns = list(dialogue.turns)
        for place, predicted in zip(places, kept.tolist(), strict=True):
            turns[place] = turns[place]._replace(predicted=predicted)
        return {**record, self.text: Dialogue(turns)}


def answer_places(dialogue: Any) -> list[int]:
    """The places of the assistant's turns; none of what is no conversation."""
    turns = dialogue.turns if isinstance(dialogue, Dialogue) else ()
    return [place for place, turn in enumerate(turns) if turn.role == "assistant"]


def hard_answers(record: dict[str, Any], needs: str | None, count: int) -> np.ndarray:
    """A mask of a conversation's answers that need an earlier turn, bool `[count]`: by a column, or all but the first.

    Raises BadExample where the column isn't a list of as many values.
    """
    if needs is None:
        return np.arange(count) > 0
    given = record.get(needs)
    told = np.asarray([] if given is None else given)
    if told.shape != (count,):
        raise BadExample(
            f"the column {needs!r} tells of {told.size} answers, and the conversation has {count}", "unfit"
        )
    return told.astype(bool)


def _flat(exchanges: Sequence[Sequence[ChatTurn]]) -> list[ChatTurn]:
    return [turn for exchange in exchanges for turn in exchange]
