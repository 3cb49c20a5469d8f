"""Tars where they lie: what is read of them, in which order, under which names, and what is wrong with them."""

import json
import logging
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mmjax.data import Decode, Lowercase, Mixture, PickCaption, Resize, Tars
from mmjax.data.pipeline import batches
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.data.tar_index_store import TarIndexes
from mmjax.errors import UserError
from tests.data.tar_files import img2dataset_like, picture, sound, write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmjax" / "indexes"


@pytest.fixture
def shards(tmp_path):
    """Three tars of img2dataset's, of 5, 0 and 7 examples."""
    for shard, count in enumerate((5, 0, 7)):
        write_tar(tmp_path / f"laion/{shard:05}.tar", img2dataset_like(shard, count))
    return f"{tmp_path}/laion/{{00000..00002}}.tar"


def rows(records) -> list[dict]:
    return [records[index] for index in range(len(records))]


def test_examples_are_those_of_the_tars_in_their_order(shards):
    records = Tars(shards).open("train")
    found = rows(records)
    keys = [(shard, number) for shard, count in ((0, 5), (2, 7)) for number in range(count)]
    assert [one["id"] for one in found] == [f"{shard:05}/{shard:05}{number:04}" for shard, number in keys]
    assert [one["image"] for one in found] == [picture(1000 * shard + number) for shard, number in keys]
    assert [one["text"] for one in found] == [f"caption {shard:05}{number:04}" for shard, number in keys]
    assert [one["url"] for one in found] == [f"https://x/{number}" for _, number in keys]
    assert (records.columns, records.media) == (("id", "image", "text", "url", "width", "key"), ("image",))
    assert rows(pickle.loads(pickle.dumps(records))) == found
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(records.__getitem__, [*range(len(records))] * 5)] == found * 5


def test_fields_name_suffixes_and_entries_of_the_json(tmp_path):
    known = {"a": {"b": ["no", " yes "]}, "n": float("nan"), "caption": "usual"}
    files = [("x.seg.png", b"1"), ("x.WebP", picture(1)), ("x.json", json.dumps(known).encode()), ("x.flac", sound(1))]
    files += [("x.cls", b" 7\n"), ("y.webp", picture(2)), ("y.cls", b"cat"), ("z.seg.png", b"2"), ("z.json", b"{}")]
    write_tar(tmp_path / "a.tar", files)
    fields = {"text": "txt;json/a/b/1", "mask": "seg.png", "image": "jpg;webp", "n": "json/n"}
    first, second, third = rows(Tars(f"{tmp_path}/a.tar", fields).open("train"))
    assert first == {"id": "a/x", "text": "yes", "mask": b"1", "image": picture(1), "n": None, "audio": sound(1),
                     "caption": "usual", "cls": 7}  # fmt: skip
    assert (second["text"], second["image"], second["cls"], second["audio"]) == (None, picture(2), "cat", None)
    assert (third["mask"], third["image"]) == (b"2", None)
    assert Tars(f"{tmp_path}/a.tar", fields).open("train").media == ("audio", "mask", "image")


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (b'{"caption": ["a", " ", "b"]}', ["a", "b"]),
        (b'{"caption": NaN}', None),
        (b'{"caption": 12}', "12"),
        (b'{"caption": {"en": "a", "de": ""}}', {"en": "a"}),
        (b'{"caption": [1]}', b"[1]"),
        (b'{"caption": 1.5}', b"1.5"),
        (b'{"caption": "a"', b'{"caption": "a"'),
    ],
)
def test_captions_that_are_lists_numbers_or_none(said, wanted, tmp_path):
    write_tar(tmp_path / "a.tar", [("o.json", b'{"caption": "x"}'), ("x.json", said)])
    assert Tars(f"{tmp_path}/a.tar").open("train")[1]["text"] == wanted


def test_a_caption_of_another_encoding_is_counted_by_the_chain(tmp_path):
    files = [
        ("a.jpg", picture(1)),
        ("a.txt", "\ufeffgrün".encode()),
        ("b.jpg", picture(2)),
        ("b.txt", "grün".encode("latin-1")),
    ]
    write_tar(tmp_path / "a.tar", files)
    source = Tars(f"{tmp_path}/a.tar")
    assert [one["text"] for one in rows(source.open("train"))] == ["grün", "grün".encode("latin-1")]


def test_splits_have_tars_of_their_own_or_a_share(shards, tmp_path):
    write_tar(tmp_path / "val/a.tar", img2dataset_like(7, 2))
    source = Tars(shards, splits={"validation": f"{tmp_path}/val/*.tar"})
    assert [len(source.open(split)) for split in ("train", "validation", "all")] == [12, 2, 14]
    ids = [one["id"] for split in ("train", "validation") for one in rows(source.open(split))]
    assert ids == [one["id"] for one in rows(source.open("all"))]
    assert ids[-1] == "val/a/000070001"
    with pytest.raises(SplitNotFoundError, match=r"no file in the split 'test'; it has train .*, validation"):
        source.open("test")
    for number in range(20):
        write_tar(tmp_path / f"many/{number}.tar", img2dataset_like(number, 1))
    many = Tars(f"{tmp_path}/many/{{0..19}}.tar", shares={"validation": 0.3})
    parts = [{one["id"] for one in rows(many.open(split))} for split in ("train", "validation")]
    assert parts[0] | parts[1] == {one["id"] for one in rows(many.open("all"))}
    assert not parts[0] & parts[1]
    assert 2 <= len(parts[1]) <= 11
    with pytest.raises(SplitNotFoundError, match="of 20 tars a share of 1e-06 for 'validation' has none"):
        Tars(many.shards, shares={"validation": 1e-6}).open("validation")


def test_a_tar_is_indexed_once_and_anew_where_it_has_changed(shards, tmp_path, monkeypatch, cache):
    from mmjax.data import tar_index_store as store

    made, index = [], store.index_tar
    monkeypatch.setattr(store, "index_tar", lambda path: made.append(os.path.basename(path)) or index(path))
    records = Tars(shards).open("train")
    assert sorted(made) == ["00000.tar", "00001.tar", "00002.tar"]
    before = records.fingerprint()
    assert Tars(shards).open("train").fingerprint() == before
    assert len(made) == 3
    write_tar(tmp_path / "laion/00001.tar", img2dataset_like(1, 3))
    with pytest.raises(UserError, match=r"00001\.tar has changed since it was indexed.*start again"):
        records._indexes[1]
    again = Tars(shards).open("train")
    assert (made[3:], len(again)) == (["00001.tar"], 15)
    assert again.fingerprint() != before
    write_tar(tmp_path / "laion/00000.tar", img2dataset_like(0, 6))
    with pytest.raises(UserError, match=r"00000\.tar has changed since it was indexed"):
        again[0]
    beside = Tars(shards, index="beside").open("train")
    assert (tmp_path / "laion/00002.tar.index.npz").is_file()
    for file in cache.rglob("*.npz"):
        file.write_bytes(b"damaged")
    assert rows(Tars(shards).open("train")) == rows(beside)


def test_what_is_broken_is_named_and_the_rest_is_used(shards, tmp_path, caplog):
    whole = rows(Tars(shards).open("train"))
    third = tmp_path / "laion/00002.tar"
    third.write_bytes(third.read_bytes()[:20_000])
    with caplog.at_level(logging.WARNING):
        found = rows(Tars(shards).open("train"))
    assert 5 < len(found) < 12
    assert found == whole[: len(found)]
    assert "00002.tar: it ends in the middle of a" in caplog.text
    assert "its last example is left out" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fields": {"text": "tx"}}, r"'tx'\}\): no example has such a file; .* jpg, json, txt; did you mean txt"),
        ({"fields": {"text": "txt/a"}}, r"fields=\{'text': 'txt/a'\}\): only a .json has entries"),
        ({"fields": {"id": "txt"}}, "an example's id is its tar's name and its key"),
        ({"index": "here"}, "index='here'.*'cache', or 'beside'"),
        ({"shares": {"validation": 1.0}}, "shares are above 0, and below 1 together"),
        ({"shares": {"a": 0.1}, "splits": {"b": "x.tar"}}, "give one"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(fields, message, shards):
    with pytest.raises(UserError, match=message):
        Tars(shards, **fields).open("train")


def test_what_is_not_there_is_told(tmp_path):
    write_tar(tmp_path / "00000.tar", img2dataset_like(0, 1))
    with pytest.raises(UserError, match=r"00001\.tar can't be read: No such file"):
        Tars(f"{tmp_path}/{{00000..00001}}.tar").open("train")
    with pytest.raises(SplitNotFoundError, match="no file in the split 'train'"):
        Tars(f"{tmp_path}/none/*.tar").open("train")
    write_tar(tmp_path / "e/0.tar", [])
    with pytest.raises(SplitNotFoundError, match="its 1 tars hold no example"):
        Tars(f"{tmp_path}/e/0.tar").open("train")
    write_tar(tmp_path / "odd/0.tar", [("a.xyz", b"1")])
    with pytest.raises(
        UserError, match="no pictures, texts, sounds or videos by their usual suffixes, its own are xyz"
    ):
        Tars(f"{tmp_path}/odd/0.tar").open("train")


def test_two_tars_with_the_same_keys_have_ids_of_their_own(tmp_path):
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", [("0.txt", name.encode()), ("0.txt", b"again")])
    found = rows(Tars(f"{tmp_path}/*.tar").open("train"))
    assert [(one["id"], one["text"]) for one in found] == [
        ("a/0", "a"),
        ("a/0#2", "again"),
        ("b/0", "b"),
        ("b/0#2", "again"),
    ]


def test_files_that_lie_far_apart_are_read_each(tmp_path):
    files = [("x.txt", b"words"), ("x.bin", bytes(2**20)), ("x.jpg", picture(1))]
    write_tar(tmp_path / "a.tar", files)
    (one,) = rows(Tars(f"{tmp_path}/a.tar").open("train"))
    assert (one["text"], one["image"]) == ("words", picture(1))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_over_hosts_workers_and_resume(workers, shards):
    chains = {"image": (Decode(), Resize(8)), "text": (PickCaption(), Lowercase())}
    mixture = Mixture({"laion": 1.0}, {"image": chains["image"]}, {"laion": Tars(shards)}, workers=workers)

    def read(step, count, host=(0, 1)):
        stream: Any = batches(mixture, batch_size=6, seed=3, step=step, host=host)
        try:
            return [next(stream) for _ in range(count)]
        finally:
            stream.close()

    whole = read(0, 5)
    for batch, wanted in zip(read(3, 2), whole[3:], strict=True):
        for name, array in wanted.items():
            np.testing.assert_array_equal(batch[name], array)
    if workers:
        return
    for host in range(3):
        for batch, wanted in zip(read(1, 2, (host, 3)), whole[1:3], strict=True):
            np.testing.assert_array_equal(batch["image"], wanted["image"][2 * host : 2 * host + 2])


def test_memory_goes_by_tar_not_by_example(shards, monkeypatch):
    from mmjax.data import tar_index_store as store

    monkeypatch.setattr(store, "_HELD", 1)
    indexes = TarIndexes(Tars(shards).tars_of("train"), beside=False)
    for tar in (0, 2, 1, 0):
        assert len(indexes[tar]) == (5, 0, 7)[tar]
        assert len(indexes._indexes) == 1
