"""A shard tells which of a video's segments can be joined."""

import json

import pytest

from mmjax.data.paths import File
from mmjax.data.prepare import shard
from mmjax.data.prepare.listing import ListedVideo
from mmjax.data.prepare.settings import PrepareSettings
from mmjax.data.prepare.shard import write_segments
from mmjax.data.segment_folder import outcome_file, shard_file
from mmjax.data.segment_records import Segment, unpacked_segment


@pytest.mark.parametrize(
    ("made", "runs"),
    [
        ([(0, 2.0, True), (1, 2.0, True), (2, 2.0, True)], [[0, 3]]),
        ([(0, 2.0, True), (2, 2.0, True), (3, 2.0, True)], [[0, 1], [1, 2]]),  # the second one is broken
        ([(0, 2.0, True), (1, 2.0, False), (2, 2.0, False), (3, 2.0, True)], [[0, 1], [1, 2], [3, 1]]),
        ([(0, 2.0, False), (1, 1.5, False)], [[0, 1]]),
        ([(0, 0.3, False)], []),
    ],
)
def test_runs_have_no_gap_and_whole_segments_that_sound_alike(tmp_path, monkeypatch, made, runs):
    def cut(video, settings, outcome):
        for number, lasts, heard in made:
            outcome.counts["segments"] += 1
            sound = b"fLaC" if heard else None
            yield Segment(video.id, number, 2.0 * number, 2.0 * number + lasts, [0.5], [b"x"], sound, None)

    monkeypatch.setattr(shard, "cut_video", cut)
    (tmp_path / "shards").mkdir()
    videos = [ListedVideo(id, File(id), None, None, 5, {}) for id in ("a", "b")]
    told = []
    write_segments(tmp_path, 3, videos, PrepareSettings(2.0, 0.5), lambda *given: told.append(given))
    found = json.loads(outcome_file(tmp_path, 3).read_text())
    assert [(line["id"], line["shard"], line["first"], line["runs"]) for line in found["videos"]] == [
        ("a", 3, 0, runs), ("b", 3, len(made), runs)
    ]  # fmt: skip
    assert told == [(0.0, 5), (0.0, 5)]
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

    records = array_record_module.ArrayRecordReader(str(shard_file(tmp_path, 3))).read_all()
    assert [unpacked_segment(each).number for each in records] == [number for number, _, _ in made] * 2
