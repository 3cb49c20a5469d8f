"""Makes the text of a conversation of a column of messages, and the pictures that it is about entries of the batch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.paths import File, is_remote
from mmjax.data.transforms.contract import RecordTransform, Rng
from mmjax.data.transforms.dialogue import MEDIA_KINDS, Dialogue, Pictured, dialogue_of
from mmjax.data.transforms.labels import is_missing_label
from mmjax.errors import UserError


@dataclass(frozen=True)
class ReadConversation(RecordTransform):
    """Makes the input `text` of a column of messages, in Hugging Face's chat format or LLaVA's (`dialogue.py`), and the
    inputs `entries` of its pictures, sounds and videos in their order: the second picture is `image_2`.

    A picture is the one in its part of the message, or else the next of the record's: of its columns `image` (one or
    several), `images`, and `image_2` and so on. Pictures of a record that no message names stand before the first
    user's turn, where `entries` has any of their kind. An input of `entries` for which there is no picture is missing,
    which is not bad.

    messages: the column; a record without it keeps its text. entries: names of inputs, such as `("image", "image_2",
    "audio")`. root: the folder of paths that messages hold.

    Raises UserError for an entry of another kind; BadExample for a conversation that can't be read, that names more
    pictures than there are, or fewer, or more than there are entries for.
    """

    messages: str = "messages"
    text: str = "text"
    entries: tuple[str, ...] = ("image",)
    root: str = ""

    def __post_init__(self) -> None:
        for entry in self.entries:
            kind_of_entry(entry)

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        del rng
        messages = record.get(self.messages)
        if not isinstance(messages, list | tuple | np.ndarray) and is_missing_label(messages):
            return record
        dialogue, inputs = dialogue_of(messages), {}
        for kind in MEDIA_KINDS:
            entries = [entry for entry in self.entries if kind_of_entry(entry) == kind]
            if not entries and not dialogue.seen(kind):
                continue
            dialogue, values = self._values(dialogue, kind, _given(record, kind, entries))
            if len(values) > len(entries):
                raise BadExample(
                    f"the conversation has {len(values)} of {kind}, and ReadConversation(entries={self.entries}) has "
                    f"room for {len(entries)}",
                    "unfit",
                )
            inputs |= dict.fromkeys(entries) | dict(zip(entries, values, strict=False))
        return {**record, **inputs, self.text: dialogue}

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        if self.messages not in before:
            return before
        return tuple(dict.fromkeys((*before, self.text, *self.entries)))

    def _values(self, dialogue: Dialogue, kind: str, given: list[Any]) -> tuple[Dialogue, list[Any]]:
        """The conversation, and its pictures by number. given: those of the record."""
        named = dialogue.seen(kind)
        if not named:
            return dialogue.with_front([Pictured(kind, number) for number in range(len(given))]), given
        rest = iter(given)
        values = [next(rest, None) if seen.value is None else self._stored(seen.value) for seen in named]
        lacking, left = sum(value is None for value in values), len(list(rest))
        if lacking or (left and all(seen.value is None for seen in named)):
            raise BadExample(
                f"the conversation names {len(named)} of {kind}, and there are {len(named) - lacking + left}", "unfit"
            )
        return dialogue, values

    def _stored(self, value: Any) -> Any:
        if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
            value = value.get("bytes") or value.get("path")
        if not isinstance(value, str):
            return value
        if is_remote(value):
            raise BadExample(f"the conversation has {value:.60}, a URL, and nothing is fetched", "undecodable")
        return File(os.path.join(os.path.expanduser(self.root), value))


def kind_of_entry(entry: str) -> str:
    """The kind of an input: `image` of `image_2`. Raises UserError for one of no known kind."""
    kind, _, number = entry.partition("_")
    if kind not in MEDIA_KINDS or (number and not number.isdecimal()):
        raise UserError(
            f"the entry {entry!r} of a conversation is none of {', '.join(MEDIA_KINDS)}: the second picture is image_2"
        )
    return kind


def _given(record: Mapping[str, Any], kind: str, entries: list[str]) -> list[Any]:
    """The pictures of a record, or its sounds, or its videos."""
    found: list[Any] = []
    for column in dict.fromkeys((kind, f"{kind}s", *entries)):
        value = record.get(column)
        items = value if isinstance(value, list | tuple) and kind != "video" else [value]  # frames are one video
        found += [item for item in items if item is not None]
    return found
