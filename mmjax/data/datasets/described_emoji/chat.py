"""The dialogues of `described_emoji` as messages, in the format of Hugging Face's chat templates."""

import json
from collections.abc import Sequence
from typing import Any

from mmjax.data.datasets.described_emoji.dialogues import AskedTurn


def dialogue_messages(turns: Sequence[AskedTurn], spoken_turn: int = -1) -> str:
    """A JSON list of messages, of "user" and "assistant" by turns; the first has the picture before its text.

    spoken_turn: the number of the question that is a sound in place of a text; -1: none is.
    """
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        asked: dict[str, str] = {"type": "audio"} if number == spoken_turn else {"type": "text", "text": turn.question}
        parts = [{"type": "image"}, asked] if number == 0 else [asked]
        plain = len(parts) == 1 and asked["type"] == "text"
        messages.append({"role": "user", "content": turn.question if plain else parts})
        messages.append({"role": "assistant", "content": turn.answer})
    return json.dumps(messages)
