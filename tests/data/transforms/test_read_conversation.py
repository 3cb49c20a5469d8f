"""Pictures of conversations as entries of a record: from the messages, from the record, too few and too many."""

from typing import Any

import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.paths import File
from mmjax.data.transforms.dialogue import Pictured
from mmjax.data.transforms.read_conversation import ReadConversation
from mmjax.errors import UserError

TWO = ("image", "image_2", "audio")


def turns(*shown: dict[str, Any], text: str = "q") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*shown, text]}, {"role": "assistant", "content": "a"}]


IMAGE = {"type": "image"}


def test_the_pictures_of_a_record_are_those_of_its_messages_in_order() -> None:
    read = ReadConversation(entries=TWO)
    for given in ({"image": b"1", "image_2": b"2"}, {"image": [b"1", b"2"]}, {"images": [b"1", b"2"]}):
        found = read({"id": "0", "messages": turns(IMAGE, IMAGE), **given}, None)
        assert (found["image"], found["image_2"], found["audio"]) == (b"1", b"2", None)
        assert found["text"].seen("image") == [Pictured("image", 0), Pictured("image", 1)]


def test_pictures_in_the_messages_come_first() -> None:
    shown = [{"type": "image", "image": b"1"}, {"type": "image", "path": "b/c.png"}]
    found = ReadConversation(entries=TWO, root="/r")({"messages": turns(*shown), "image": b"other"}, None)
    assert (found["image"], found["image_2"]) == (b"1", File("/r/b/c.png"))
    found = ReadConversation(entries=TWO)({"messages": turns({"type": "image", "image": {"bytes": b"3"}})}, None)
    assert (found["image"], found["image_2"]) == (b"3", None)


def test_a_picture_that_no_message_names_is_seen_first() -> None:
    messages = [{"role": "system", "content": "s"}, *turns()]
    found = ReadConversation()({"messages": messages, "image": b"1"}, None)
    assert found["text"].turns[1].parts == (Pictured("image", 0), "q")
    assert found["image"] == b"1"


@pytest.mark.parametrize(
    ("record", "entries", "message"),
    [
        ({"messages": turns(IMAGE)}, TWO, "names 1 of image, and there are 0"),
        ({"messages": turns(IMAGE, IMAGE), "image": b"1"}, TWO, "names 2 of image, and there are 1"),
        ({"messages": turns(IMAGE), "images": [b"1", b"2"]}, TWO, "names 1 of image, and there are 2"),
        ({"messages": turns(IMAGE, IMAGE), "images": [b"1", b"2"]}, ("image",), "has 2 of image.*has room for 1"),
        ({"messages": turns({"type": "audio"}), "audio": b"1"}, ("image",), "has 1 of audio.*room for 0"),
        ({"messages": turns({"type": "image", "image": "https://x/y.png"})}, TWO, "a URL, and nothing is fetched"),
    ],
)
def test_pictures_too_few_and_too_many_are_bad(record: Any, entries: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadExample, match=message):
        ReadConversation(entries=entries)(record, None)


def test_a_video_of_frames_is_one_and_a_record_without_messages_stays() -> None:
    frames = [b"1", b"2"]
    found = ReadConversation(entries=("video",))({"messages": turns({"type": "video"}), "video": frames}, None)
    assert found["video"] == frames
    for missing in ({}, {"messages": None}, {"messages": " "}):
        assert ReadConversation()({"id": "1", **missing}, None) == {"id": "1", **missing}


def test_columns_and_entries() -> None:
    assert ReadConversation("m").columns(("id", "m", "image")) == ("id", "m", "image", "text")
    assert ReadConversation("m").columns(("id",)) == ("id",)
    for entry in ("picture", "image_b"):
        with pytest.raises(UserError, match=f"the entry '{entry}' of a conversation is none of image"):
            ReadConversation(entries=(entry,))


def test_sounds_that_no_message_names_are_left_alone_where_no_entry_is_a_sound() -> None:
    found = ReadConversation()({"messages": turns({"type": "image"}), "image": b"1", "audio": b"2"}, None)
    assert (found["image"], found["audio"]) == (b"1", b"2")
    assert found["text"].seen("audio") == []
