"""Documents in files of text: their order, their splits, and what is refused by its line."""

import json
import pickle
from pathlib import Path

import pytest

from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.data.sources.text_files import TextFiles
from mmjax.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_bytes(b"\xef\xbb\xbffirst\nline\n---\n---\nse\xc3\xa9cond")
    (tmp_path / "a.jsonl").write_text('{"text": "one é"}\n\n{"text": " "}\n{"text": null}\n{"text": "two\\n"}', "utf-8")
    (tmp_path / "notes.csv").write_text("text\nnone")
    return tmp_path


def read(source: TextFiles, split: str = "all") -> list[tuple[str, str]]:
    records = source.open(split)
    return [(records[i]["id"], records[i]["text"]) for i in range(len(records))]


def test_documents_are_in_the_order_of_the_files(folder: Path) -> None:
    first = [("a.jsonl#0", "one é"), ("a.jsonl#1", "two\n")]
    assert read(TextFiles(str(folder))) == [*first, ("b/c.txt#0", "first\nline\n---\n---\nseécond")]
    cut = TextFiles(str(folder), between="---\n")
    assert read(cut) == [*first, ("b/c.txt#0", "first\nline\n"), ("b/c.txt#1", "seécond")]
    assert read(TextFiles(str(folder / "b" / "c.txt")))[0][0] == "c.txt#0"
    assert cut.places() == {"path": str(folder)}


def test_splits_are_a_column_or_shares_of_all(tmp_path: Path) -> None:
    rows = [{"body": f"text {n}", "split": "test" if n % 3 else "train"} for n in range(9)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = TextFiles(str(tmp_path / "a.jsonl"), column="body")
    assert [text for _, text in read(told, "train")] == ["text 0", "text 3", "text 6"]
    with pytest.raises(SplitNotFoundError, match="no row in the split 'dev'"):
        told.open("dev")
    for n in range(200):
        (tmp_path / f"{n:03}.txt").write_text(f"text {n}")
    (tmp_path / "a.jsonl").unlink()
    hashed = TextFiles(str(tmp_path), shares={"train": 0.8, "test": 0.2})
    parts = [read(hashed, split) for split in ("train", "test")]
    assert sorted(parts[0] + parts[1]) == read(hashed)
    assert 20 < len(parts[1]) < 60


def test_records_travel_and_know_what_they_held(folder: Path) -> None:
    records = TextFiles(str(folder)).open("all")
    assert pickle.loads(pickle.dumps(records))[2] == records[2]
    before = records.fingerprint()
    assert before == TextFiles(str(folder)).open("all").fingerprint()
    assert before != TextFiles(str(folder), between="---").open("all").fingerprint()
    (folder / "b" / "c.txt").write_text("other")
    assert before != TextFiles(str(folder)).open("all").fingerprint()


def test_bytes_that_are_no_text_are_left_to_the_chain(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    assert TextFiles(str(tmp_path)).open("all")[0]["text"] == b"\xff\xfe"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"a\.jsonl, line 2 is no JSON"),
        ('{"body": "a"}', r"line 2 is no object with a 'text': it has body; TextFiles\(column"),
        ('["a"]', "line 2 is no object with a 'text': it is"),
        ('{"text": 3}', "line 2: 'text' is no text but 3"),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a"}}\n{line}\n')
    with pytest.raises(UserError, match=message):
        TextFiles(str(tmp_path)).open("all")


def test_a_place_without_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text")
    for path, message in (
        ("none", "no such file or folder"),
        ("", "the folder holds no .txt"),
        ("a.csv", "a text's name ends in .txt"),
    ):
        with pytest.raises(UserError, match=message):
            TextFiles(str(tmp_path / path)).open("all")
    with pytest.raises(UserError, match="a URL, and nothing is downloaded"):
        TextFiles("gs://bucket/texts").open("all")
    (tmp_path / "b.txt").write_text(" \n")
    with pytest.raises(SplitNotFoundError, match="holds no document"):
        TextFiles(str(tmp_path)).open("all")
    with pytest.raises(UserError, match="name what stands between"):
        TextFiles(str(tmp_path), between="").open("all")
