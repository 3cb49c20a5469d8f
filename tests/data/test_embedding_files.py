"""Folders of embeddings: what is written is read, and what is missing or broken is said."""

import json

import numpy as np
import pytest

from mmjax import embeddings
from mmjax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(2):
        vectors = {
            "image": rng.normal(size=(3, 4)).astype(np.float32),
            "text": rng.normal(size=(3, 2)).astype(np.float32),
        }
        valid = {"image": np.array([True, False, True]), "text": np.ones(3, bool)}
        columns = {"id": [f"{index}-{i}\u2028" for i in range(3)], "kind": [np.int64(7), None, np.arange(2)]}
        embeddings.write_shard(
            tmp_path, embeddings.shard_name(index, 2), embeddings.Embeddings(vectors, valid, columns)
        )
    digests = {name: embeddings.digest(tmp_path, name) for name in (embeddings.shard_name(i, 2) for i in range(2))}
    told = {
        "count": 6,
        "shards": 2,
        "modalities": {"image": 4, "text": 2},
        "data": {"split": "test"},
        "digests": digests,
    }
    embeddings.write_manifest(tmp_path, told)
    return tmp_path


def test_what_was_written_is_read(folder):
    found = embeddings.read(folder)
    assert found.embeddings["image"].shape == (6, 4)
    assert found.valid["image"].tolist() == [True, False, True] * 2
    assert found.columns["id"][4] == "1-1\u2028"  # a line of its own in some editors, not here
    assert found.columns["kind"][:3] == [7, None, [0, 1]]
    assert found.split == "test"
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(found.embeddings["image"][:3], rng.normal(size=(3, 4)).astype(np.float32))
    assert list(embeddings.read(folder, ["text"]).embeddings) == ["text"]
    assert not list(folder.glob("*.tmp"))


def test_what_cannot_be_read_is_named(folder, tmp_path_factory):
    with pytest.raises(UserError, match=r"not 'imaeg'; did you mean image\?"):
        embeddings.read(folder, ["imaeg"])
    with pytest.raises(UserError, match=r"it has no embeddings.json"):
        embeddings.read(tmp_path_factory.mktemp("empty"))
    (folder / "embeddings-00001-of-00002.safetensors").write_bytes(b"\x10")
    with pytest.raises(UserError, match=r"embeddings-00001-of-00002 can't be read"):
        embeddings.read(folder)
    told = embeddings.manifest(folder)
    embeddings.write_manifest(folder, {**told, "digests": None})
    with pytest.raises(UserError, match="is not complete"):
        embeddings.read(folder)
    (folder / "embeddings.json").write_text("[]")
    with pytest.raises(UserError, match="is no list of embeddings"):
        embeddings.read(folder)


@pytest.mark.parametrize("ending", ["safetensors", "jsonl"])
def test_a_bit_that_was_flipped_is_seen(folder, ending):
    path = folder / f"{embeddings.shard_name(1, 2)}.{ending}"
    contents = bytearray(path.read_bytes())
    place = len(contents) - 3 if ending == "safetensors" else contents.index(b"1-1") + 2  # a number; a name
    contents[place] ^= 1
    path.write_bytes(contents)
    with pytest.raises(UserError, match=r"00001-of-00002 can't be read \(it holds something else than was written\)"):
        embeddings.read(folder)


def test_rows_that_are_not_there_are_missed(folder):
    told = embeddings.manifest(folder)
    (folder / "embeddings.json").write_text(json.dumps({**told, "count": 7}))
    with pytest.raises(UserError, match=r"has 6 embeddings, and its embeddings\.json says 7"):
        embeddings.read(folder)
