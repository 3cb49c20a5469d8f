"""A window of a video: frames, sound and words of the same seconds, in every form that they come in."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data import BadExample, CropOrPad, CutWindow, DecodeAudio, DecodeVideo, EachFrame, Resize
from mmjax.data.chains import Chains, evaluation
from mmjax.data.decoding.subtitles import TimedWord
from mmjax.data.paths import File
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.transforms.clip import Clip
from mmjax.errors import UserError
from tests.data.decoding.clips import number_of
from tests.data.decoding.sounding import clicks, sounding

SECONDS, RATE = 4.0, 16_000  # the video's, of 25 frames a second that carry their number
CLICKS = (0.5, 1.25, 2.0, 2.75, 3.5)
WORDS = [{"word": f"w{number}", "start": time - 0.1, "end": time + 0.1} for number, time in enumerate(CLICKS)]


@pytest.fixture(scope="module")
def content() -> bytes:
    return sounding(clicks(CLICKS, SECONDS, 48_000), seconds=SECONDS, sounds=("flac",), container="matroska")


@pytest.fixture(scope="module")
def silent() -> bytes:
    return sounding(seconds=2, sounds=())


def record(content: Any, **others: Any) -> dict[str, Any]:
    return {"id": "a", "video": content, "words": json.dumps(WORDS), **others}


def test_frames_sound_and_words_are_of_the_same_seconds(content: bytes) -> None:
    for seed in range(6):
        cut = CutWindow(1.5)(record(content), np.random.default_rng(seed))
        start = cut["video"].start
        assert 0 <= start <= SECONDS - 1.5
        assert (cut["video"].end, cut["audio"]) == (start + 1.5, cut["video"])
        inside = [time - start for time in CLICKS if 0 <= time - start < 1.5]
        assert cut["speech"] == " ".join(f"w{n}" for n, time in enumerate(CLICKS) if 0 <= time - start < 1.5)
        middles = [(word.start + word.end) / 2 for word in cut["words"]]
        assert middles == pytest.approx([time for time in inside], abs=0.06)  # at an end a word is cut off
        wave = DecodeAudio(RATE)(cut["audio"], None)
        assert len(wave) == 1.5 * RATE
        for time in inside:
            near = slice(max(0, round(time * RATE) - 4), round(time * RATE) + 5)
            assert np.abs(wave[near]).max() > 3_000  # a click lasts for one sample at 48 kHz
        assert np.sum(np.abs(wave) > 3_000) <= 3 * len(inside)
        frames = DecodeVideo(3)(cut["video"], None).values
        expected = (start + (np.arange(3) + 0.5) * 0.5) * 25
        assert np.abs([number_of(frame) for frame in frames] - expected).max() <= 0.5 + 1e-6


def test_the_middle_in_evaluation_and_all_of_a_shorter_video(content: bytes, silent: bytes) -> None:
    assert CutWindow(1.5)(record(content), None)["video"] == Clip(content, 1.25, 2.75)
    whole = CutWindow(60)(record(content), None)
    assert (whole["video"].start, whole["video"].end) == (0.0, pytest.approx(SECONDS, abs=0.03))
    assert whole["speech"] == "w0 w1 w2 w3 w4"
    starts = {CutWindow(1.5)(record(content), np.random.default_rng(seed))["video"].start for seed in range(40)}
    assert (len(starts), min(starts) < 0.2, max(starts) > 2.3) == (40, True, True)
    mute = CutWindow(1.0)(record(silent), None)
    assert (mute["audio"], mute["video"].end - mute["video"].start) == (None, 1.0)


def test_a_sound_of_its_own_has_the_videos_clock(silent: bytes) -> None:
    wave = (np.arange(3 * RATE) % 30_000).astype(np.int16)
    stream = io.BytesIO()
    soundfile.write(stream, wave, RATE, format="FLAC")
    cut = CutWindow(1.0)(record(silent, audio=stream.getvalue()), None)
    start = round(cut["video"].start * RATE)
    assert start == pytest.approx(RATE / 2, abs=RATE * 0.03)
    np.testing.assert_array_equal(DecodeAudio(RATE)(cut["audio"], None), wave[start : start + RATE])
    later = DecodeAudio(RATE)(Clip(stream.getvalue(), 2.5, 3.5, sound=True), None)
    np.testing.assert_array_equal(later, np.concatenate([wave[40_000:], np.zeros(8_000, np.int16)]))


def cue(number: int, time: float) -> str:
    return f"00:00:0{time - 0.1:.3f} --> 00:00:0{time + 0.1:.3f}\nw{number}\n\n"


FORMS = {
    "json": json.dumps(WORDS),
    "dicts": WORDS,
    "words": [TimedWord(each["word"], each["start"], each["end"]) for each in WORDS],
    "vtt": "WEBVTT\n\n" + "".join(cue(number, time) for number, time in enumerate(CLICKS)),
}


@pytest.mark.parametrize("form", [*FORMS, "file"])
def test_words_come_in_every_form(content: bytes, form: str, tmp_path: Path) -> None:
    if form == "file":
        (tmp_path / "a.vtt").write_text(str(FORMS["vtt"]))
    words = File(str(tmp_path / "a.vtt")) if form == "file" else FORMS[form]
    cut = CutWindow(1.5)(record(content, words=words), None)
    assert cut["speech"] == "w1 w2"  # of 1.25 to 2.75: the first word's middle is at the begin, the last one's the end
    assert [word.text for word in cut["words"]] == ["w1", "w2"]


def test_words_that_are_not_there_or_broken_leave_the_video(content: bytes) -> None:
    for nothing in (None, [], ()):
        cut = CutWindow(1.5)(record(content, words=nothing), None)
        assert (cut["words"], cut["speech"]) == (None, None)
    quiet = CutWindow(0.5)(record(content, words=WORDS[:1]), None)
    assert (quiet["words"], quiet["speech"]) == ([], None)
    for broken in (b"\x00\x01\x02", "no subtitles", 17):
        cut = CutWindow(1.5)(record(content, words=broken), None)
        assert isinstance(cut["speech"], BadExample)
        assert isinstance(cut["video"], Clip)
    outside = [{"word": "late", "start": 100.0, "end": 101.0}]
    assert CutWindow(60)(record(content, words=outside), None)["speech"] is None


def test_in_a_chain_what_is_missing_is_missing_and_what_is_bad_is_bad(content: bytes, silent: bytes) -> None:
    chains = Chains(
        {"video": (DecodeVideo(2), EachFrame((Resize(8),))), "audio": (DecodeAudio(RATE), CropOrPad(2 * RATE))}
    )
    cutting = RecordTransforms((CutWindow(1.5),), ("video", "audio"))

    def row(content: Any) -> dict[str, Any]:
        return chains.row(cutting({"id": "a", "video": content}, evaluation), evaluation)

    heard, mute, gone, broken = row(content), row(silent), row(None), row(b"\0\0\0\x18ftypisom no more")
    said = [(r["video_valid"], r["video_bad"], r["audio_valid"], r["audio_bad"]) for r in (heard, mute, gone, broken)]
    assert said == [(True, 0, True, 0), (True, 0, False, 0), (False, 0, False, 0), (False, 1, False, 1)]
    assert heard["audio_mask"].sum() == 1.5 * RATE


def test_bad_fields_and_columns() -> None:
    with pytest.raises(UserError, match=r"CutWindow\(seconds=0\): a window's length must be above 0"):
        CutWindow(0)
    with pytest.raises(UserError, match="two of its entries are called 'text'"):
        CutWindow(1, speech="text", words="text")
    with pytest.raises(BadExample, match="a video is a file or its bytes, not ndarray"):
        CutWindow(1)({"id": "a", "video": np.zeros((2, 4, 4, 3), np.uint8)}, None)
    assert CutWindow(1).columns(("id", "video", "words")) == ("id", "video", "words", "audio", "speech")
    assert CutWindow(1).columns(("id", "video")) == ("id", "video", "audio")
    assert CutWindow(1).columns(("id", "image")) == ("id", "image")


@settings(max_examples=200, deadline=None)
@given(st.floats(0.1, 1e4), st.floats(0.01, 1e4), st.integers(0, 2**32))
def test_a_window_lies_within_the_video(whole: float, seconds: float, seed: int) -> None:
    for rng in (None, np.random.default_rng(seed)):
        start, end = CutWindow(seconds)._window(whole, rng)
        assert start >= 0
        assert end <= whole * (1 + 1e-12)
        assert end - start == pytest.approx(min(seconds, whole))
