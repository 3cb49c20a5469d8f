"""Windows of a video and of its words that overlap: always at some time, never by rule the same, the same again by the
same random numbers."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data import BadExample, CutOverlapping, DecodeVideo, EachFrame, Lowercase, PickCaption, Resize
from mmjax.data.chains import Chains, evaluation
from mmjax.data.decoding.subtitles import TimedWord
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.transforms import overlapping
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.contract import Spec, Transform
from mmjax.data.transforms.text_input import TextInput
from mmjax.errors import UserError
from tests.data.decoding.sounding import sounding

SECONDS = 4.0
WORDS = [{"word": f"w{n}", "start": 0.4 * n + 0.1, "end": 0.4 * n + 0.3} for n in range(9)]
CUT = CutOverlapping(seconds=(0.5, 1.5), words=(2, 4))


@pytest.fixture(scope="module")
def content() -> bytes:
    return sounding(seconds=SECONDS, sounds=())


def record(content: Any, words: Any = WORDS, **others: Any) -> dict[str, Any]:
    given = json.dumps(words) if isinstance(words, list) and words else words
    return {"id": "a", "video": content, "words": given, **others}


def test_words_follow_each_other_and_the_window_holds_a_time_of_theirs(content: bytes) -> None:
    begins, counts, lengths, same = set(), set(), [], 0
    for seed in range(200):
        cut = CUT(record(content), np.random.default_rng(seed))
        clip, words = cut["video"], cut["words"]
        first = int(words[0].text[1:])
        assert [word.text for word in words] == [f"w{n}" for n in range(first, first + len(words))]
        assert cut["text"] == " ".join(word.text for word in words)
        assert words[0].start == pytest.approx(0.4 * first + 0.1)  # seconds of the video, not of a window
        assert clip.start <= words[-1].end
        assert clip.end >= words[0].start
        assert 0 <= clip.start < clip.end <= SECONDS + 0.05
        begins.add(first)
        counts.add(len(words))
        lengths.append(clip.end - clip.start)
        same += abs(clip.start - words[0].start) < 0.05 and abs(clip.end - words[-1].end) < 0.05
    assert begins == set(range(8))
    assert counts == {2, 3, 4}
    assert 0.5 <= min(lengths) < 0.6
    assert 1.4 < max(lengths) <= 1.5 + 1e-9
    assert same < 10


def test_it_is_a_function_of_the_random_numbers_and_fixed_in_evaluation(content: bytes) -> None:
    one, again, other = (CUT(record(content), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one == again
    assert one["video"] != other["video"]
    fixed = CUT(record(content), None)
    assert fixed["text"] == "w2 w3 w4 w5"
    assert fixed["video"].start + 0.5 == pytest.approx(1.6)  # the middle of 0.9 to 2.3, and a second about it
    assert fixed["video"].end - fixed["video"].start == pytest.approx(1.0)


def test_few_words_short_videos_and_words_beyond_the_end(content: bytes) -> None:
    alone = CUT(record(content, WORDS[:1]), np.random.default_rng(0))
    assert alone["text"] == "w0"
    whole = CutOverlapping((60, 90), (2, 4))(record(content), np.random.default_rng(0))["video"]
    assert (whole.start, whole.end) == (0.0, pytest.approx(SECONDS, abs=0.05))
    later = [{"word": "late", "start": 100.0, "end": 101.0}]
    across = [{"word": "across", "start": 3.8, "end": 4.1}]  # its middle is still in the video
    for seed in range(10):
        cut = CUT(record(content, WORDS + across + later), np.random.default_rng(seed))
        assert "late" not in cut["text"]
        assert cut["video"].end <= SECONDS + 0.05
        assert CUT(record(content, across + later), np.random.default_rng(seed))["text"] == "across"
    assert CUT(record(content, later), None)["text"] is None


def test_a_video_in_which_nothing_is_said_is_still_cut(content: bytes) -> None:
    for nothing in (None, [], ()):
        cut = CUT(record(content, nothing), np.random.default_rng(0))
        assert (cut["words"], cut["text"]) == (None, None)
        assert 0.5 <= cut["video"].end - cut["video"].start <= 1.5
    starts = {CUT(record(content, None), np.random.default_rng(seed))["video"].start for seed in range(40)}
    assert min(starts) < 0.3
    assert max(starts) > 2.3
    for broken in (b"\x00\x01\x02", "no subtitles", 17):
        cut = CUT(record(content, broken), None)
        assert isinstance(cut["text"], BadExample)
        assert isinstance(cut["words"], BadExample)
        assert isinstance(cut["video"], Clip)
    assert CUT({"id": "a", "words": WORDS}, None) == {"id": "a", "words": WORDS}
    without: dict[str, Any] = CUT({"id": "a", "video": content}, None)
    assert (without["video"].start, without["text"]) == (pytest.approx(1.5, abs=0.03), None)


class Length(Transform):
    """A text's number of words."""

    def __call__(self, value: str, rng: Any) -> Any:
        return np.array([len(value.split())], np.int32)

    def spec(self, before: Any) -> Spec:
        return Spec((1,), "int32", kind=TextInput)


def test_in_chains_what_is_missing_is_missing_and_what_is_bad_is_bad(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains = Chains(
        {"video": (DecodeVideo(2), EachFrame((Resize(8),))), "text": (PickCaption(), Lowercase(), Length())}
    )
    cutting = RecordTransforms((CUT,), ("video", "text"))

    def row(video: Any, words: Any) -> Any:
        found = chains.row(cutting(record(video, words, text="all of the story"), evaluation), evaluation)
        return bool(found["video_valid"]), bool(found["text_valid"]), int(found["text_bad"]), int(found["text"][0])

    undecodable = BadExample("", "undecodable").code
    assert row(content, WORDS) == (True, True, 0, 4)  # and not the story's own text
    assert row(content, None) == (True, False, 0, 0)
    assert row(content, "no subtitles") == (True, False, undecodable, 0)
    assert row(b"\0\0\0\x18ftypisom no more", WORDS)[:2] == (False, False)
    facts = overlapping.video_facts(content)
    monkeypatch.setattr(overlapping, "video_facts", lambda content: facts._replace(seconds=None))
    with pytest.raises(BadExample, match="doesn't say how long it is"):
        CUT(record(content), None)


def test_bad_fields_and_columns() -> None:
    for seconds in ((0, 1), (3, 2)):
        with pytest.raises(UserError, match=r"CutOverlapping\(seconds=.*: it is the least and the greatest number"):
            CutOverlapping(seconds, (1, 2))
    with pytest.raises(UserError, match=r"words=\(0, 4\)"):
        CutOverlapping((1, 2), (0, 4))
    with pytest.raises(UserError, match="two of its entries are called 'text'"):
        CutOverlapping((1, 2), (1, 2), said="text")
    assert CUT.columns(("id", "video", "words")) == ("id", "video", "words", "text")
    assert CUT.columns(("id", "video")) == ("id", "video")
    with pytest.raises(BadExample, match="a video is a file or its bytes, not ndarray"):
        CUT(record(np.zeros((2, 4, 4, 3), np.uint8)), None)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_windows_meet_whatever_is_said(data: st.DataObject) -> None:
    """Times in any order and of any length, words that begin before the video or end after it, ranges of any size."""
    whole = data.draw(st.floats(0.1, 1e4))
    starts = data.draw(st.lists(st.floats(-50, 1.5 * whole), min_size=1, max_size=20))
    words = [TimedWord(f"w{n}", time, time + data.draw(st.floats(0, 30))) for n, time in enumerate(sorted(starts))]
    least, most = sorted(data.draw(st.tuples(st.floats(0.01, 1e3), st.floats(0.01, 1e3))))
    few, many = sorted(data.draw(st.tuples(st.integers(1, 25), st.integers(1, 25))))
    cutting = CutOverlapping((least, most), (few, many))
    inside = [word for word in words if 0 <= (word.start + word.end) / 2 < whole]
    seed = data.draw(st.integers(0, 2**32))
    for rng in (None, np.random.default_rng(seed)):
        chosen = cutting._chosen(words, whole, rng)
        assert min(few, len(inside)) <= len(chosen) <= many
        if not chosen:
            assert not inside
            continue
        at = inside.index(chosen[0])
        assert chosen == inside[at : at + len(chosen)]
        begin, stop = max(0.0, chosen[0].start), min(whole, max(word.end for word in chosen))
        start, end = cutting._window((min(begin, whole), stop), whole, rng)
        assert start >= 0
        assert end <= whole * (1 + 1e-12)
        assert min(least, whole) * (1 - 1e-9) <= end - start <= most * (1 + 1e-9)
        assert max(start, begin) <= min(end, stop) + 1e-9  # a time of both
