"""Conversations as they are read, from both formats, and what is refused by name."""

import json
from typing import Any

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.dialogue import ChatTurn, Dialogue, Pictured, dialogue_of
from mmjax.data.transforms.text import Lowercase
from mmjax.errors import UserError

LLAVA = [
    {"from": "system", "value": "be kind"},
    {"from": "human", "value": "<image>\nwhat is it?"},
    {"from": "gpt", "value": "a cat <image> "},
    {"from": "human", "value": "and\n<audio>, here <image>?"},
]
CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nwhat is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a cat "}, {"type": "text", "text": "<image>"}]},
    {
        "role": "user",
        "content": ["and", {"type": "audio", "text": None}, ", here", {"type": "image", "image": b"png"}, "?"],
    },
]


def test_both_formats_and_their_json_are_one_conversation() -> None:
    chat, llava = dialogue_of(CHAT), dialogue_of(LLAVA)
    assert [turn.role for turn in llava.turns] == ["system", "user", "assistant", "user"]
    assert llava.turns[1] == ChatTurn("user", (Pictured("image", 0), "what is it?"))
    assert llava.turns[2] == ChatTurn("assistant", ("a cat <image>",))  # an answer shows nothing
    assert llava.turns[3].parts == ("and", Pictured("audio", 0), ", here", Pictured("image", 1), "?")
    assert chat.turns[3].parts[3] == Pictured("image", 1, b"png")
    assert chat.turns[:3] == llava.turns[:3]
    for given in (json.dumps(LLAVA), json.dumps(LLAVA).encode(), tuple(LLAVA), np.array(LLAVA, object)):
        assert dialogue_of(given).turns == llava.turns
    assert llava.seen("image") == [Pictured("image", 0), Pictured("image", 1)]
    assert llava.seen("video") == []
    assert str(llava).splitlines()[1:3] == ["user: what is it?", "assistant: a cat <image>"]
    assert llava.sentences == ["be kind", "what is it?", "a cat <image>", "and , here ?"]


def test_a_text_of_the_chat_format_is_left_as_it_is() -> None:
    assert dialogue_of([{"role": "user", "content": " an <image> tag"}]).turns[0].parts == ("an <image> tag",)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("{", "no JSON"),
        ('{"a": 1}', "no list of messages but {'a': 1}"),
        (3, "no list of messages but 3"),
        ([], "has no turn"),
        (["hi"], "turn 0 of the conversation is no message but 'hi'"),
        ([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}], "turn 1 has the role 'tool'"),
        ([{"content": "a"}], "turn 0 has the role None"),
        ([{"role": ["user"], "content": "a"}], r"turn 0 has the role \['user'\]"),
        ([{"role": "user"}], "the content of turn 0 is no text"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], "turn 1 is the system's"),
        ([{"role": "user", "content": [{"type": "tool_use"}]}], "turn 0 has a part"),
        ([{"role": "user", "content": [{"type": "image", "url": "x://y"}]}], "nothing is fetched"),
        ([{"role": "assistant", "content": [{"type": "image"}]}], "turn 0 is the assistant's and holds a picture"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_what_is_no_conversation_is_bad(messages: Any, message: str) -> None:
    with pytest.raises(BadExample, match=message):
        dialogue_of(messages)


def test_texts_are_cleaned_and_pictures_stay() -> None:
    cleaned = Dialogue([ChatTurn("user", (Pictured("image", 0), "What?")), ChatTurn("assistant", ("A Cat",))]).mapped(
        Lowercase()
    )
    assert cleaned.turns == (ChatTurn("user", (Pictured("image", 0), "what?")), ChatTurn("assistant", ("a cat",)))
    with pytest.raises(UserError, match="use TokenizeConversation"):
        cleaned.other(np.random.default_rng(0))


def test_pictures_go_before_the_first_turn_of_a_users() -> None:
    turns = [ChatTurn("system", ("s",)), ChatTurn("assistant", ("hi",)), ChatTurn("user", ("q",))]
    seen = [Pictured("image", 0), Pictured("image", 1)]
    assert Dialogue(turns).with_front(seen).turns[2].parts == (*seen, "q")
    assert Dialogue(turns[:2]).with_front(seen).turns[1].parts == (*seen, "hi")
