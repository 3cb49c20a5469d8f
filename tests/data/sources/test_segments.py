"""Prepared segments are read as the videos themselves would be: frames up to JPEG, sound and words exactly."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmjax.data import (
    CenterCrop,
    CropOrPad,
    CutSubsegments,
    CutWindow,
    DecodeAudio,
    DecodeVideo,
    EachClip,
    EachFrame,
    Segments,
    SegmentWindow,
    VideoFolder,
)
from mmjax.data.chains import Chains, evaluation
from mmjax.data.decoding.subtitles import timed_words, words_between
from mmjax.data.segment_folder import PREPARED
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.data.transforms.clip import Clip
from mmjax.errors import UserError
from tests.data.prepare.conftest import prepared, videos  # noqa: F401

AAC = 16  # levels by which a sample may differ that is decoded from another frame on: it has noise of its own
JPEG = 3.0  # levels by which a frame may differ, in the mean


def by_id(records) -> dict:
    return {record["id"]: record for record in (records[row] for row in range(len(records)))}


@pytest.fixture(scope="module")
def every(prepared):  # noqa: F811
    return by_id(Segments(str(prepared)).open("all"))


def test_rows_of_a_batch_are_those_of_the_videos(videos, prepared, every):  # noqa: F811
    chains = Chains(
        {
            "video": (DecodeVideo(4, short_side=32, jitter=False), EachFrame((CenterCrop(32),))),
            "audio": (DecodeAudio(16_000), CropOrPad(32_000)),
        }
    )
    direct = by_id(VideoFolder(str(videos)).open("all"))
    compared = 0
    for record in every.values():
        if record["end"] - record["start"] < 2:
            continue
        file = direct[record["of_video"]]["video"].unread()
        window = Clip(file, record["start"], record["end"])
        wanted = chains.row({"id": "x", "video": window, "audio": record["audio"] and window}, evaluation)
        row = chains.row(record, evaluation)
        assert wanted["video_valid"]
        assert set(row) == set(wanted)
        for name in row:
            if name == "video":
                assert np.abs(row[name].astype(int) - wanted[name]).mean() < JPEG
            else:
                np.testing.assert_array_equal(row[name], wanted[name], err_msg=f"{record['id']} {name}")
        compared += 1
    assert compared > 9


def test_words_are_those_of_the_window(videos, every):  # noqa: F811
    words = timed_words((videos / "a.vtt").read_text()).words
    for number in range(3):
        record = every[f"a.mp4/{number}"]
        inside = words_between(words, 2.0 * number, 2.0 * number + 2)
        assert SegmentWindow()(record, None)["words"] == inside
        assert record["speech"] == " ".join(word.text for word in inside)
        assert timed_words(record["words"]).words == inside
    assert every["b.webm/0"]["words"] is None is every["b.webm/0"]["speech"]
    assert every["words.mp4/0"]["words"] is None


def test_consecutive_segments_are_one_window_of_their_video(videos, prepared):  # noqa: F811
    """MERLOT Reserve's record, beside that of a window of the file."""
    chains = Chains(
        {
            "video": (DecodeVideo(12, short_side=32, jitter=False), EachFrame((CenterCrop(32),))),
            "audio": (EachClip((DecodeAudio(16_000), CropOrPad(9_600)), 9),),
        }
    )
    sub = CutSubsegments(segments=3, each=3, seconds=0.6)
    joined = by_id(Segments(str(prepared), of=3).open("all"))["a.mp4/0-2"]
    assert (joined["start"], joined["end"], len(joined["video"])) == (0, 6, 12)
    file = by_id(VideoFolder(str(videos)).open("all"))["a.mp4"]
    ours = sub(SegmentWindow()(joined, None), None)
    theirs = sub(CutWindow(6.0)(file, None), None)
    for name in ("words", "places", "centres"):
        np.testing.assert_array_equal(getattr(ours["words"], name), getattr(theirs["words"], name))
    assert ours["words"].times.starts == pytest.approx(theirs["words"].times.starts)
    assert joined["speech"] == theirs["speech"]
    row, wanted = chains.row(ours, evaluation), chains.row(theirs, evaluation)
    np.testing.assert_allclose(row["audio"], wanted["audio"], atol=AAC)
    assert np.abs(row["video"].astype(int) - wanted["video"]).mean() < JPEG


def test_joined_records_hold_whole_segments_alone(prepared):  # noqa: F811
    pairs = by_id(Segments(str(prepared), of=2).open("all"))
    assert {id for id in pairs if not id.startswith("cut")} == {"a.mp4/0-1", "b.webm/0-1", "c.mp4/0-1"}
    assert pairs["c.mp4/0-1"]["audio"] is None
    assert pairs["a.mp4/0-1"]["times"] == pytest.approx([0.2, 0.8, 1.2, 1.8, 2.2, 2.8, 3.2, 3.8], abs=0.01)


def test_all_segments_of_a_video_are_in_the_split_that_the_folder_gives_it(videos, prepared, every):  # noqa: F811
    source = VideoFolder(str(videos))
    for split in ("train", "validation", "test"):
        try:
            ids = {record["of_video"] for record in by_id(Segments(str(prepared)).open(split)).values()}
        except SplitNotFoundError:
            ids = set()
        try:
            wanted = set(by_id(source.open(split)))
        except SplitNotFoundError:
            wanted = set()
        assert ids == wanted & {record["of_video"] for record in every.values()}
    with pytest.raises(SplitNotFoundError, match=r"no record in the split 'dev': its videos are in .*train \(\d"):
        Segments(str(prepared)).open("dev")


def test_columns_of_the_video_stand_in_each_segment(every):
    assert {every[f"a.mp4/{number}"]["text"] for number in range(3)} == {"a lecture"}
    assert every["b.webm/0"]["text"] is None


def test_records_are_read_by_several_threads_and_sent_to_processes(prepared, every, monkeypatch):  # noqa: F811
    from mmjax.data.sources import segments

    monkeypatch.setattr(segments, "_OPEN", 2)
    records = pickle.loads(pickle.dumps(Segments(str(prepared)).open("all")))
    rows = [*range(len(records))] * 8
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda row: records[row], rows))
    assert found == [list(every.values())[row] for row in rows]
    assert len(records._readers) == 2


def test_the_fingerprint_is_of_the_contents(prepared, tmp_path):  # noqa: F811
    import shutil

    moved = shutil.copytree(prepared, tmp_path / "moved")
    before = Segments(str(prepared)).open("all").fingerprint()
    assert Segments(str(moved)).open("all").fingerprint() == before
    facts = json.loads((moved / PREPARED).read_text())
    facts["shards"][0]["digest"] = "0" * 32
    (moved / PREPARED).write_text(json.dumps(facts))
    assert Segments(str(moved)).open("all").fingerprint() != before


def test_what_is_no_prepared_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no prepared segments: `mmjax prepare videos FOLDER` makes them"):
        Segments(str(tmp_path)).open("all")
    (tmp_path / PREPARED).write_text('{"format": 7}')
    with pytest.raises(UserError, match="of the format 7, and 1 is read here"):
        Segments(str(tmp_path)).open("all")
    with pytest.raises(UserError, match=r"of=0"):
        Segments(str(tmp_path), of=0)
