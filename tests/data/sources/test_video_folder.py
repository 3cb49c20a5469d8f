"""A folder of videos: what lies beside them is found, splits are stable, and nothing is read before it is asked for."""

from pathlib import Path

import pytest

from mmjax.data import VideoFolder
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.WEBM", "in/a.mkv", ".hidden.mp4", ".git/c.mp4", "notes.md", "a.en.vtt", "b.srt", "b.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "a.txt").write_text(" a dog \n")
    (tmp_path / "in/a.de.vtt").write_text("WEBVTT")
    return tmp_path


def test_videos_with_their_subtitles_and_texts(folder: Path) -> None:
    records = VideoFolder(str(folder)).open("all")
    found = {record["id"]: record for record in (records[i] for i in range(len(records)))}
    assert list(found) == ["a.mp4", "b.WEBM", "in/a.mkv"]
    assert records.columns == ("video", "words", "text", "id")
    assert {id: record["video"].read() for id, record in found.items()} == {id: id.encode() for id in found}
    said = {id: record["words"] and Path(record["words"].path).name for id, record in found.items()}
    assert said == {"a.mp4": "a.en.vtt", "b.WEBM": "b.srt", "in/a.mkv": None}
    assert found["a.mp4"]["text"] == "a dog"
    german = VideoFolder(str(folder), language="de").open("all")
    assert [german[i]["words"] and Path(german[i]["words"].path).name for i in range(3)] == [None, "b.srt", "a.de.vtt"]
    assert records.media == ("video", "words")


def test_a_column_that_no_video_has_is_lacking(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert VideoFolder(str(tmp_path)).open("all").columns == ("video", "id")


def test_each_video_is_in_one_split_which_other_files_do_not_change(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number:02}.mp4").touch()
    source = VideoFolder(str(tmp_path), shares={"train": 0.5, "test": 0.5})

    def ids(split: str) -> list[str]:
        records = source.open(split)
        return [records[i]["id"] for i in range(len(records))]

    before = ids("train"), ids("test")
    assert sorted([*before[0], *before[1]]) == ids("all")
    assert min(map(len, before)) > 15
    (tmp_path / "zzz.mp4").touch()
    assert before == tuple([id for id in ids(split) if id != "zzz.mp4"] for split in ("train", "test"))
    with pytest.raises(SplitNotFoundError, match="no row in the split 'validation'"):
        source.open("validation")


def test_the_fingerprint_changes_with_the_files_and_not_with_the_place(folder: Path, tmp_path_factory) -> None:
    moved = tmp_path_factory.mktemp("elsewhere") / "videos"
    before = VideoFolder(str(folder)).open("all").fingerprint()
    folder.rename(moved)
    assert VideoFolder(str(moved)).open("all").fingerprint() == before
    (moved / "c.mp4").touch()
    assert VideoFolder(str(moved)).open("all").fingerprint() != before


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        VideoFolder(str(tmp_path / "none")).open("all")
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match=r"none of its 1 files has an ending of videos, \.3gp"):
        VideoFolder(str(tmp_path)).open("all")
