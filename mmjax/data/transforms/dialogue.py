"""Conversations: their turns, read from Hugging Face's chat format or from LLaVA's, as a value on the way to a chain.

Hugging Face's is `[{"role": "user", "content": ...}, ...]`, with a text or a list of parts, `{"type": "text", "text":
...}` and `{"type": "image"}` (or `audio`, `video`; with the picture itself under `image`, or in the record). LLaVA's is
`[{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": ...}]`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.document import Document
from mmjax.errors import UserError
from mmjax.runtime.files import json_text

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
MEDIA_KINDS: tuple[str, ...] = ("image", "audio", "video")
_MARKED = re.compile(rf"<({'|'.join(MEDIA_KINDS)})>")


class Pictured(NamedTuple):
    """A place in a turn at which a picture, a sound or a video stands.

    kind: `image`, `audio` or `video`. number: its place among those of its kind in the conversation, from 0.
    value: the picture itself, or None where the record has it.
    """

    kind: str
    number: int
    value: Any = None


class ChatTurn(NamedTuple):
    """One turn: its role, `system`, `user` or `assistant`, and its words and pictures in order.

    predicted: of an assistant's turn whether its words are learnt; else they are only read.
    """

    role: str
    parts: tuple[str | Pictured, ...]
    predicted: bool = True

    @property
    def words(self) -> str:
        """The words alone, those round a picture with a space between."""
        return " ".join(part for part in self.parts if isinstance(part, str))


class Dialogue(Document):
    """A conversation on the way to `TokenizeConversation`."""

    def __init__(self, turns: Iterable[ChatTurn]):
        self.turns = tuple(turns)

    @property
    def sentences(self) -> list[str]:
        """The words of each turn that has any."""
        return [turn.words for turn in self.turns if turn.words]

    def other(self, rng: np.random.Generator) -> Document:
        """Always raises UserError: it belongs to no document."""
        del rng
        raise UserError("a conversation belongs to no document, and has no other beside it: use TokenizeConversation")

    def mapped(self, transform: Transform) -> "Dialogue":
        """The conversation with every text in it transformed as in evaluation."""

        def changed(turn: ChatTurn) -> ChatTurn:
            return turn._replace(parts=tuple(transform(p, None) if isinstance(p, str) else p for p in turn.parts))

        return Dialogue(map(changed, self.turns))

    def seen(self, kind: str) -> list[Pictured]:
        """Its pictures (or sounds, or videos), by number."""
        found = [part for turn in self.turns for part in turn.parts if isinstance(part, Pictured) and part.kind == kind]
        return sorted(found, key=lambda part: part.number)

    def with_front(self, parts: Sequence[Pictured]) -> "Dialogue":
        """The conversation with these pictures before its first user's turn; of one without, before its first turn."""
        if not parts:
            return self
        turns = list(self.turns)
        others = [place for place, turn in enumerate(turns) if turn.role != "system"]
        place = next((place for place in others if turns[place].role == "user"), others[0])
        turns[place] = turns[place]._replace(parts=(*parts, *turns[place].parts))
        return Dialogue(turns)

    def __str__(self) -> str:
        return "\n".join(f"{turn.role}: {turn.words}" for turn in self.turns)


def dialogue_of(messages: Any) -> Dialogue:
    """The conversation in a value: a list of messages in one of the formats above, or its JSON.

    Raises BadExample where it is neither, for an unknown role, for a system's turn that isn't the first, for a turn
    without content, and for a picture in another turn than a user's.
    """
    if isinstance(messages, str | bytes):
        try:
            messages = json_text.parse(messages)
        except ValueError as error:
            raise BadExample(f"the conversation is no JSON: {error}", "undecodable") from error
    if isinstance(messages, np.ndarray):
        messages = messages.tolist()
    if not isinstance(messages, list | tuple):
        raise BadExample(f"the conversation is no list of messages but {messages!r:.40}", "undecodable")
    if not messages:
        raise BadExample("the conversation has no turn", "empty")
    counts: dict[str, int] = dict.fromkeys(MEDIA_KINDS, 0)
    return Dialogue([_turn(message, place, counts) for place, message in enumerate(messages)])


def _turn(message: Any, place: int, counts: dict[str, int]) -> ChatTurn:
    """counts: pictures, sounds and videos of the turns before; they are counted on."""
    if not isinstance(message, Mapping):
        raise BadExample(f"turn {place} of the conversation is no message but {message!r:.40}", "undecodable")
    named = message.get("role") if message.get("role") is not None else message.get("from")
    role = ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        raise BadExample(f"turn {place} has the role {named!r:.40}, which is none of {', '.join(ROLES)}", "unfit")
    if role == "system" and place:
        raise BadExample(f"turn {place} is the system's, which can only be the first", "unfit")
    content, marked = message.get("content"), False
    if content is None:
        content, marked = message.get("value"), role == "user"
    if isinstance(content, str):
        parts = _marked(content, counts) if marked else [content]
    elif isinstance(content, list | tuple | np.ndarray):
        parts = [_part(part, place, counts) for part in content]
    else:
        raise BadExample(f"the content of turn {place} is no text and no list of parts but {content!r:.40}", "unfit")
    if role != "user" and any(isinstance(part, Pictured) for part in parts):
        raise BadExample(f"turn {place} is the {role}'s and holds a picture or a sound: only a user's may", "unfit")
    return ChatTurn(role, tuple(_joined_texts(parts)))


def _marked(text: str, counts: dict[str, int]) -> list[str | Pictured]:
    """A text of LLaVA's, whose pictures are written `<image>`."""
    return [part if place % 2 == 0 else _counted(part, None, counts) for place, part in enumerate(_MARKED.split(text))]


def _part(part: Any, place: int, counts: dict[str, int]) -> str | Pictured:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if kind not in MEDIA_KINDS:
        raise BadExample(
            f"turn {place} has a part {part!r:.60}, which is no text, {', '.join(MEDIA_KINDS[:-1])} or video", "unfit"
        )
    if part.get("url") is not None:
        raise BadExample(
            f"turn {place} has a {kind} on the web, {part['url']!r:.60}: nothing is fetched", "undecodable"
        )
    value = part.get(kind) if part.get(kind) is not None else part.get("path")
    return _counted(kind, value, counts)


def _counted(kind: str, value: Any, counts: dict[str, int]) -> Pictured:
    counts[kind] += 1
    return Pictured(kind, counts[kind] - 1, value)


def _joined_texts(parts: Sequence[str | Pictured]) -> list[str | Pictured]:
    """The parts with neighbouring texts as one, without white space at their ends; empty ones are left out."""
    found: list[str | Pictured] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    stripped = (part.strip() if isinstance(part, str) else part for part in found)
    return [part for part in stripped if part]
