"""Videos are tiled by segments, of which one at a time is made."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmjax.data.decoding.video_frames import frames_at
from mmjax.data.decoding.video_sound import sound_between
from mmjax.data.decoding.video_walk import Walk
from mmjax.data.decoding.videos import video_facts
from mmjax.data.paths import File
from mmjax.data.prepare import cutting, pictures
from mmjax.data.prepare.cutting import cut_video, segment_spans
from mmjax.data.prepare.listing import ListedVideo
from mmjax.data.prepare.outcome import Outcome
from mmjax.data.prepare.settings import PrepareSettings
from tests.data.decoding.clips import Clip
from tests.data.prepare.made import SOUND_RATE, clip

AAC = 16  # levels by which a sample may differ that is decoded from another frame on: it has noise of its own


def listed(path: Path) -> ListedVideo:
    return ListedVideo("v", File(str(path)), None, None, 1, {})


def cut(path: Path, settings: PrepareSettings) -> tuple[list, Outcome]:
    outcome = Outcome("v")
    return list(cut_video(listed(path), settings, outcome)), outcome


@pytest.mark.parametrize("whole", [0.1, 0.25, 1.99, 2.0, 2.2, 2.26, 4.0, 7.3, 9.9999999, 36_000.0])
def test_segments_tile_a_video_and_have_the_frames_within(whole):
    settings = PrepareSettings(seconds=2.0, rate=2.0)
    spans = list(segment_spans(whole, settings))
    asked = [time for time in 0.25 + np.arange(2 * whole + 2) / 2 if time < whole]
    assert [time for span in spans for time in span.times] == pytest.approx(asked or [whole / 2])
    assert [span.number for span in spans] == list(range(len(spans)))
    for before, after in itertools.pairwise(spans):
        assert before.end == after.start == before.start + 2
    assert spans[0].start == 0
    assert whole - 0.25 <= spans[-1].end <= whole + 1e-6


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_frames_and_sound_are_those_that_are_read_directly(tmp_path, container):
    path = tmp_path / "v"
    path.write_bytes(clip(27, container=container))
    segments, _ = cut(path, PrepareSettings(2.0, 2.0, 32, quality=95, sound_rate=22_050))
    assert [(one.start, round(one.end, 1), len(one.frames)) for one in segments] == [(0, 2, 4), (2, 4, 4), (4, 5.4, 3)]
    for one in segments:
        direct, times = frames_at(
            str(path), [one.start + 0.25 + each / 2 for each in range(len(one.frames))], short_side=32
        )
        assert one.times == times.tolist()
        found = np.stack([np.asarray(Image.open(io.BytesIO(frame))) for frame in one.frames])
        assert found.shape == direct.shape
        assert np.abs(found.astype(int) - direct).mean() < 1.5
        assert one.audio is not None
        samples, rate = soundfile.read(io.BytesIO(one.audio), dtype="int16")
        assert rate == 22_050
        np.testing.assert_array_equal(samples, sound_between(str(path), one.start, one.end, 22_050))


def test_of_a_long_video_several_segments_of_sound_are_read_at_once(tmp_path, monkeypatch):
    path = tmp_path / "v"
    path.write_bytes(clip(53))
    settings = PrepareSettings(2.0, 0.5, 32, sound_rate=SOUND_RATE)  # its own: no sample is resampled

    def heard() -> list[np.ndarray]:
        found = [one.audio for one in cut(path, settings)[0]]
        return [soundfile.read(io.BytesIO(sound), dtype="int16")[0].astype(int) for sound in found]

    one_by_one = heard()
    asked = []
    monkeypatch.setattr(cutting, "sound_between", lambda *given: asked.append(given[1:3]) or sound_between(*given))
    monkeypatch.setattr(cutting, "OPENINGS", 2)
    at_once = heard()
    assert len(asked) == 2 < len(at_once) == 5
    assert [len(each) for each in at_once] == [len(each) for each in one_by_one] == [32_000] * 5
    assert max(np.abs(a - b).max() for a, b in zip(at_once, one_by_one, strict=True)) <= AAC


def test_segments_are_made_one_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "v"
    path.write_bytes(clip(60, heard=False))
    asked = []
    nearest = Walk.nearest
    monkeypatch.setattr(Walk, "nearest", lambda self, time: asked.append(time) or nearest(self, time))
    found = cut_video(listed(path), PrepareSettings(2.0, 2.0, 32), Outcome("v"))
    for number in range(6):
        next(found)
        assert len(asked) == 4 * (number + 1)


def test_small_frames_stay_and_large_ones_shrink(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(clip(10, heard=False))
    sizes = {}
    for side in (24, 48, 100, None):
        (segment,), _ = cut(path, PrepareSettings(2.0, 1.0, side))
        sizes[side] = {Image.open(io.BytesIO(frame)).size for frame in segment.frames}
    assert sizes == {24: {(32, 24)}, 48: {(64, 48)}, 100: {(64, 48)}, None: {(64, 48)}}


def test_a_length_that_no_header_tells_is_read(tmp_path, monkeypatch):
    path = tmp_path / "v"
    path.write_bytes(clip(22, container="webm", heard=False))
    whole = video_facts(str(path)).seconds
    assert pictures.last_seconds(str(path)) == pytest.approx(whole, abs=0.05) == pytest.approx(4.4, abs=0.05)
    monkeypatch.setattr(cutting, "video_facts", lambda content: video_facts(content)._replace(seconds=None))
    segments, outcome = cut(path, PrepareSettings(2.0, 2.0, 32))
    assert [len(one.frames) for one in segments] == [4, 4, 1]
    assert not outcome.left_out


def test_after_a_minute_without_a_frame_the_rest_is_given_up(tmp_path, monkeypatch):
    """A header may tell of a year."""
    path = tmp_path / "v"
    path.write_bytes(clip(20, heard=False))
    monkeypatch.setattr(cutting, "video_facts", lambda content: video_facts(content)._replace(seconds=3e7))
    segments, outcome = cut(path, PrepareSettings(2.0, 2.0, 32))
    assert len(segments) == 2
    (left,) = outcome.left_out
    assert (left.part, left.start, left.end) == ("frames", 4.0, 3e7)


def test_a_sound_that_is_broken_leaves_the_frames(tmp_path, monkeypatch):
    path = tmp_path / "v"
    path.write_bytes(clip(30))

    def broken(content, start, end, rate):
        if start == 2:
            raise cutting.BadExample("a hole", "undecodable")
        return sound_between(content, start, end, rate)

    monkeypatch.setattr(cutting, "sound_between", broken)
    segments, outcome = cut(path, PrepareSettings(2.0, 2.0, 32))
    assert [one.audio is not None for one in segments] == [True, False, True]
    assert [tuple(left)[1:] for left in outcome.left_out] == [("sound", 2.0, 4.0, "undecodable", "a hole")]


def test_what_is_gone_is_left_out(tmp_path):
    segments, outcome = cut(tmp_path / "none", PrepareSettings())
    assert not segments
    assert "No such file" in outcome.left_out[0].reason


def test_a_large_frame_is_bounded_by_the_short_side(tmp_path):
    path = tmp_path / "v"
    path.write_bytes(Clip("mjpeg", "matroska", 1, size=(7_680, 4_320), pixels="yuvj420p").made())
    (segment,), _ = cut(path, PrepareSettings(2.0, 2.0, 32))
    assert Image.open(io.BytesIO(segment.frames[0])).size == (57, 32)
