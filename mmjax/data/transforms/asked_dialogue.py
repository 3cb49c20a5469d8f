"""The conversation that a user asks a model with, and the pictures that are given beside it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.dialogue import MEDIA_KINDS, ChatTurn, Dialogue, Pictured, dialogue_of


def asked_dialogue(value: Any, entries: Collection[str] | None, placed: Sequence[str] = ()) -> Dialogue:
    """The conversation of a string, the user's turn, or of a list of messages that ends in such a turn.

    entries: the names of the pictures and sounds that are given beside it; None: it isn't known. placed: of those that
    may be, the names of which the tokens stand within the text: such a one that no message names stands before the
    first user's words.

    Raises BadExample where the messages are no conversation, no user's turn ends it, or a message names a picture that
    isn't given, or the reverse.
    """
    dialogue = Dialogue([ChatTurn("user", (value,) if value else ())]) if isinstance(value, str) else dialogue_of(value)
    if not any(turn.role == "user" for turn in dialogue.turns):
        raise BadExample("the conversation has no turn of the user's: end it in one", "unfit")
    if dialogue.turns[-1].role != "user":
        raise BadExample("the conversation ends in a turn of the assistant's: leave it out, or ask on", "unfit")
    for kind in MEDIA_KINDS:
        named = dialogue.seen(kind)
        if held := [part for part in named if part.value is not None]:
            raise BadExample(
                f"a message holds {kind} {held[0].number + 1} itself: leave it out there, and give {kind}=...", "unfit"
            )
        if entries is None:
            continue
        given = [entry for entry in entries if entry.partition("_")[0] == kind]
        if len(named) > len(given):
            raise BadExample(
                f"the messages have {len(named)} of {kind}, and {', '.join(given) or 'none'} is given: give "
                f"{kind}=... beside them, where the model reads it",
                "unfit",
            )
        if not named:
            numbers = [number for number, entry in enumerate(_of(kind, placed)) if entry in given]
            dialogue = dialogue.with_front([Pictured(kind, number) for number in numbers])
        elif left := [entry for entry in _of(kind, placed)[len(named) :] if entry in given]:
            raise BadExample(f"{left[0]} is given, and no message says where it stands", "unfit")
    return dialogue


def is_conversation(value: Any) -> bool:
    """True for a list of messages."""
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _of(kind: str, entries: Sequence[str]) -> list[str]:
    return [entry for entry in entries if entry.partition("_")[0] == kind]
