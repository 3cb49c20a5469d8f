"""JSON lines of any size: each read where it lies, its entries by their names, and what is wrong with them."""

import json
import logging
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data import Decode, Lines, Mixture, Resize
from mmjax.data.line_index import index_lines
from mmjax.data.paths import File
from mmjax.data.pipeline import batches
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.errors import UserError
from tests.data.tar_files import picture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rows(records) -> list[dict]:
    return [records[index] for index in range(len(records))]


def write(path, lines) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@given(
    st.lists(st.text("a é\r{}\u2028", max_size=5), max_size=8),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=200, deadline=None)
def test_lines_are_those_between_line_feeds(tmp_path_factory, lines, mark, ended, feed):
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    content = ("\ufeff" if mark else "").encode() + feed.join(lines).encode() + (feed.encode() if ended else b"")
    path.write_bytes(content)
    found = index_lines(str(path))
    got = [content[start : start + size] for start, size in zip(found.starts, found.sizes, strict=True)]
    plain = content.removeprefix(b"\xef\xbb\xbf") if mark else content
    assert got == [line for line in plain.split(b"\n") if len(line) > 1]


def test_entries_are_columns(tmp_path):
    lines = [
        {"image": "a.png", "caption": " one ", "meta": {"n": [1, 2]}, "score": 0.5, "messages": [{"role": "user"}]},
        {"image": None, "caption": ["x", ""], "meta": {}, "score": float("nan"), "label": "cat"},
        {"image": ["b.png", "/c.png"], "caption": 3},
    ]
    path = write(tmp_path / "own.jsonl", lines)
    records = Lines(path, fields={"text": "caption", "second": "meta/n/1"}).open("train")
    found = rows(records)
    assert [one["id"] for one in found] == ["own/0", "own/1", "own/2"]
    assert [one["text"] for one in found] == ["one", ["x"], "3"]
    assert [one["image"] for one in found] == [
        File(f"{tmp_path}/a.png"), None, [File(f"{tmp_path}/b.png"), File("/c.png")],
    ]  # fmt: skip
    assert [one["second"] for one in found] == [2, None, None]
    assert [one["score"] for one in found] == [0.5, None, None]
    assert (found[0]["messages"], found[1]["label"]) == ([{"role": "user"}], "cat")
    assert (records.media, records.named) == (("image",), False)
    assert rows(pickle.loads(pickle.dumps(records))) == found
    named = Lines(path, root="/else", fields={"id": "caption"}, files=("label",)).open("train")
    assert named[0]["image"] == File("/else/a.png")
    assert [named[0]["id"], named[1]["label"]] == ["one", File("/else/cat")]


def test_several_files_are_one_after_the_other(tmp_path):
    for number in range(3):
        write(tmp_path / f"parts/{number:02}.jsonl", [{"text": f"{number} {line}"} for line in range(number + 1)])
    source = Lines(f"{tmp_path}/parts/{{00..02}}.jsonl", splits={"dev": write(tmp_path / "dev.jsonl", [{"text": "d"}])})
    wanted = [(f"parts/{n:02}/{line}", f"{n} {line}") for n in range(3) for line in range(n + 1)]
    assert [(one["id"], one["text"]) for one in rows(source.open("train"))] == wanted
    assert [(one["id"], one["text"]) for one in rows(source.open("all"))] == [*wanted, ("dev/0", "d")]
    with pytest.raises(SplitNotFoundError, match=r"no file in the split 'test'; it has train .*, dev"):
        source.open("test")


def test_shares_are_by_a_hash_of_the_line_and_add_up(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"text": str(line)} for line in range(4_000)])
    source = Lines(path, shares={"validation": 0.1, "test": 0.05})
    parts = {split: {one["text"] for one in rows(source.open(split))} for split in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 4_000
    for split, share in source.shares.items():
        assert abs(len(parts[split]) - 4_000 * share) < 4 * np.sqrt(4_000 * share)
    longer = write(tmp_path / "longer/own.jsonl", [{"text": str(line)} for line in range(5_000)])
    again = {one["text"] for one in rows(Lines(longer, shares=source.shares).open("test"))}
    assert {text for text in again if int(text) < 4_000} == parts["test"]  # lines that are added move no other


def test_a_bad_line_is_named_and_its_text_is_none_that_the_chain_takes(tmp_path, caplog):
    path = tmp_path / "own.jsonl"
    path.write_bytes(b'{"text": "a"}\n\n{"text": "b"\n[1]\n{"text": "gr\xfcn"}\n{"text": "c"}')
    with caplog.at_level(logging.WARNING):
        found = rows(Lines(str(path)).open("train"))
    assert [one["text"] for one in found] == ["a", b'{"text": "b"', b"[1]", b'{"text": "gr\xfcn"}', "c"]
    assert "line 1 of those that aren't empty is no JSON object" in caplog.text


def test_a_file_that_changes_is_an_error_and_then_another_run_s(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"text": "a"}, {"text": "b"}])
    records = Lines(path).open("train")
    before = records.fingerprint()
    write(tmp_path / "own.jsonl", [{"text": "aa"}, {"text": "b"}])
    with pytest.raises(UserError, match=r"own\.jsonl has changed since it was indexed"):
        records[0]
    again = Lines(path, index="beside").open("train")
    assert (again[0]["text"], (tmp_path / "own.jsonl.index.npz").is_file()) == ("aa", True)
    assert again.fingerprint() != before


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        (
            b'{"text": "a"}\n',
            {"fields": {"text": "txt"}},
            "no line has an entry 'txt' for 'text', .*; did you mean text",
        ),
        (b'{"text": "a"}\n', {"files": ("depth",)}, "no line has an entry 'depth' for 'depth', there are text"),
        (b'{"image": "https://x/a.png"}\n', {}, "image https://x/a.png is a URL, and nothing is downloaded here"),
        (b"no json\n", {}, "none of its first lines is a JSON object"),
        ('{"text": "a"}\n'.encode("utf-16"), {}, "is in UTF-16: write it as plain UTF-8"),
        (b"\x1f\x8b123", {}, "is compressed"),
        (b"\n \n", {}, "none of its 0 lines is in 'train'"),
        (b"", {}, "none of its 0 lines is in 'train'"),
        (b'{"text": "a"}\n', {"index": "x"}, "index='x'"),
        (b'{"text": "a"}\n', {"shares": {"a": 2.0}}, "shares are above 0, and below 1 together"),
    ],
)
def test_what_does_not_fit_is_told(content, fields, message, tmp_path):
    (tmp_path / "own.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        Lines(str(tmp_path / "own.jsonl"), **fields).open("train")
    with pytest.raises(UserError, match=r"none\.jsonl can't be read: No such file"):
        Lines(str(tmp_path / "none.jsonl")).open("train")


def test_batches_go_on_where_they_stopped(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    path = write(tmp_path / "own.jsonl", [{"image": f"{number}.jpg"} for number in range(6)])
    mixture = Mixture({"own": 1.0}, {"image": (Decode(), Resize(8))}, {"own": Lines(path)})
    stream = batches(mixture, batch_size=4, seed=1)
    whole = [next(stream) for _ in range(4)]
    again = next(batches(mixture, batch_size=4, seed=1, step=3))
    for name, array in whole[3].items():
        np.testing.assert_array_equal(again[name], array)
    assert whole[3]["image_valid"].all()
