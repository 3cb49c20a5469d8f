import json

from mmjax.data.datasets.described_emoji.chat import dialogue_messages
from mmjax.data.datasets.described_emoji.dialogues import AskedTurn

TURNS = (
    AskedTurn("What colour is the flag tile?", "red", "colour", "named", ""),
    AskedTurn("And the other one?", "blue", "colour", "other", "red"),
)


def test_messages_take_turns_and_the_first_has_the_picture():
    assert json.loads(dialogue_messages(TURNS)) == [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour is the flag tile?"}]},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "And the other one?"},
        {"role": "assistant", "content": "blue"},
    ]


def test_a_spoken_question_is_a_sound_and_no_text():
    first, last = json.loads(dialogue_messages(TURNS, 0)), json.loads(dialogue_messages(TURNS, 1))
    written = json.loads(dialogue_messages(TURNS))
    assert first == [{"role": "user", "content": [{"type": "image"}, {"type": "audio"}]}, *written[1:]]
    assert last == [*written[:2], {"role": "user", "content": [{"type": "audio"}]}, written[3]]
