"""Each sentence of a video with the seconds that it is said in."""

import pickle
from typing import Any

import pytest

from mmjax.data import EverySentence, Folder
from mmjax.data.sources.contract import Records
from mmjax.data.transforms.clip import Clip
from mmjax.errors import UserError

VTT = "WEBVTT\n\n00:01.000 --> 00:02.500\nThe goat\n<b>appears</b>.\n\n00:04.000 --> 00:04.500\nIt leaves.\n"
SRT = "1\n00:00:00,500 --> 00:00:00,900\nHi\n"
ROWS = [
    {"id": "a", "video": b"first", "subtitles": VTT, "text": "all of it", "voice": "x"},
    {"id": "b", "video": b"second", "subtitles": None, "text": "all of it", "voice": "y"},
    {"id": "c", "video": b"third", "subtitles": SRT.encode(), "text": "all of it", "voice": "z"},
    {"id": "d", "video": None, "subtitles": "nonsense", "text": "all of it", "voice": "z"},
]


class Listed(Records):
    columns = ("id", "video", "subtitles", "text", "voice")
    class_names = {"voice": ("x", "y", "z")}

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index, /):
        return self.rows[index]


class Inner:
    def __init__(self, rows: Any = ROWS):
        self.rows = rows

    def open(self, split, data_dir=None):
        assert (split, data_dir) == ("train", "folder")
        return Listed(self.rows)


def opened(rows=ROWS, **more):
    return EverySentence(Inner(rows), **more).open("train", "folder")


def test_a_row_is_a_sentence_with_its_seconds():
    records = opened()
    rows = [records[i] for i in range(len(records))]
    assert [row["id"] for row in rows] == ["a#0", "a#1", "b#0", "c#0", "d#0"]
    assert [row["text"] for row in rows] == ["The goat appears.", "It leaves.", None, "Hi", None]
    clips = [Clip(b"first", 1.0, 2.5), Clip(b"first", 4.0, 4.5), b"second", Clip(b"third", 0.5, 0.9), None]
    assert [row["video"] for row in rows] == clips
    assert [row["voice"] for row in rows] == ["x", "x", "y", "z", "z"]
    assert set(rows[0]) == set(records.columns) == set(Listed.columns)
    assert (records.media, records.class_names) == (("video",), Listed.class_names)
    assert ROWS[0]["text"] == "all of it"
    assert pickle.loads(pickle.dumps(records))[1] == rows[1]


def test_so_many_seconds_from_its_begin_on_and_other_columns():
    assert opened(seconds=2.0)[1]["video"] == Clip(b"first", 4.0, 6.0)
    records = opened(text="said")
    assert (records[1]["said"], records[1]["text"]) == ("It leaves.", "all of it")
    assert records.columns == (*Listed.columns, "said")


def test_another_text_or_time_is_another_fingerprint():
    found = opened().fingerprint()
    assert found["rows"] == 5
    assert opened([dict(row) for row in ROWS]).fingerprint() == found
    for old, new in (("goat", "bus"), ("00:01.000", "00:01.250")):
        other = [{**ROWS[0], "subtitles": VTT.replace(old, new)}, *ROWS[1:]]
        assert opened(other).fingerprint() != found


def test_what_cannot_be_is_told(tmp_path):
    with pytest.raises(UserError, match=r"seconds=0\.0\): it must be above 0"):
        opened(seconds=0.0)
    (tmp_path / "table.csv").write_text("text,split\nhello,train\n")
    with pytest.raises(UserError, match="the source has no 'video', but text, id"):
        EverySentence(Folder(str(tmp_path / "table.csv"))).open("train")
