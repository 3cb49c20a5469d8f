"""Videos of tables are listed with their words, splits and columns."""

from pathlib import Path

import pytest

from mmjax.data.prepare.listing import listed_videos
from mmjax.errors import UserError


def table(folder: Path, text: str) -> str:
    for name in ("a.mp4", "b.mp4", "a.srt"):
        (folder / name).write_bytes(name.encode())
    (folder / "t.csv").write_text(text)
    return str(folder / "t.csv")


def test_a_table_of_videos(tmp_path):
    place = table(
        tmp_path, "id,video,words,split,text,views\n1,a.mp4,a.srt,test,a talk,7\n2,b.mp4,,train,,\n3,c.mp4,,,,\n"
    )
    found = listed_videos(place, "en")
    assert [(one.id, one.split, one.size) for one in found] == [("1", "test", 5), ("2", "train", 5), ("3", None, -1)]
    assert found[0].words is not None
    assert found[0].words.read() == b"a.srt"  # type: ignore[union-attr]
    assert [one.columns for one in found] == [
        {"views": "7", "text": "a talk"}, {"views": None, "text": None}, {"views": None, "text": None}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("text\na\n", "no column video, but text, id"),
        ("video,times\na.mp4,3\n", "can't have its column 'times', whose name is one of theirs: rename it"),
        ("video,image\na.mp4,b.mp4\n", "can't have its column 'image', which holds pictures"),
        ("id,video\n1,a.mp4\n1,b.mp4\n", "1 of its rows have an id that another row has"),
    ],
)
def test_what_cannot_be_prepared_is_told(tmp_path, text, told):
    with pytest.raises(UserError, match=told):
        listed_videos(table(tmp_path, text), "en")


def test_neither_a_folder_nor_a_table(tmp_path):
    with pytest.raises(UserError, match="neither a folder of videos nor a table"):
        listed_videos(str(tmp_path / "nowhere"), "en")
