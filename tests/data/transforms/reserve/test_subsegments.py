"""The cut of a window into sub-segments, against the nearest centre by looking at all of them."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.bad_example import BadExample
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.reserve.subsegments import CutSubsegments, SpokenWords, in_order
from mmjax.data.transforms.text import Lowercase, Prompt
from mmjax.data.transforms.window import CutWindow
from mmjax.errors import UserError
from tests.data.decoding.sounding import sounding
from tests.data.transforms.reserve.windows import Clip, Word, cut, numbered, spoken, window


def by_looking(centres, middles) -> list[int]:
    places, latest = [], 0
    for centre in centres:
        distances = [abs(centre - middle) for middle in middles]
        latest = max(latest, distances.index(min(distances)))
        places.append(latest)
    return places


times = st.integers(-20, 100).map(lambda quarters: quarters / 4)  # so that ties are exact


@settings(deadline=None)
@given(st.lists(times, max_size=30), st.lists(times, min_size=1, max_size=12, unique=True))
def test_a_word_is_in_the_nearest_subsegment_or_a_later_one_that_is_taken(centres, middles):
    middles = np.sort(np.asarray(middles, float))
    found = in_order(np.asarray(centres, float), middles)
    assert found.tolist() == by_looking(centres, middles.tolist())
    assert (np.diff(found) >= 0).all()


@settings(deadline=None, max_examples=50)
@given(spoken(), st.integers(0, 9), st.sampled_from([4.8, 5.0, 6.5]))
def test_every_word_is_in_one_subsegment(words, seed, segment):
    found = cut(window(words, 4 * segment), np.random.default_rng(seed))
    assert found.words == [word.text for word in words]
    assert found.places.tolist() == by_looking([(w.start + w.end) / 2 for w in words], found.times.centres.tolist())


def test_a_tie_goes_to_the_earlier_one():
    assert in_order(np.array([1.0, 1.0]), np.array([0.0, 2.0])).tolist() == [0, 0]
    assert in_order(np.array([1.0]), np.array([5.0])).tolist() == [0]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 5), st.floats(0, 2))
def test_subsegments_lie_in_their_segments_behind_each_other(seed, segments, each, spare):
    segment = each * 1.6 + spare
    rng = np.random.default_rng(seed)
    starts = cut(window(numbered([1], [1.0]), segments * segment), rng, segments, each).times.starts
    rows = starts.reshape(segments, each)
    assert (rows >= np.arange(segments)[:, None] * segment - 1e-6).all()
    assert (rows + 1.6 <= (np.arange(segments)[:, None] + 1) * segment + 1e-6).all()
    assert (np.diff(rows) >= 1.6 - 1e-6).all()


def test_a_words_middle_counts():
    found = cut(window([Word("0", 1.0, 4.0), Word("1", 4.5, 4.7)], 20.0))
    assert found.centres.tolist() == pytest.approx([2.5, 4.6])
    assert found.places.tolist() == [1, 2]


def test_gaps_are_equal_in_evaluation_and_shares_of_uniform_draws_in_training():
    record = window(numbered([1], [1.0]), 4 * 5.0)
    starts = cut(record).times.starts.reshape(4, 3)
    np.testing.assert_allclose(starts[1], 5 + np.array([0.05, 1.7, 3.35]))
    drawn = np.concatenate(
        [cut(record, np.random.default_rng(seed)).times.starts.reshape(4, 3) for seed in range(2000)]
    )
    first = (drawn[:, 0] % 5) / 0.2
    rng = np.random.default_rng(1)
    shares = rng.random((200_000, 4))
    shares /= shares.sum(1, keepdims=True)
    for level in (10, 50, 90):
        assert np.percentile(first, level) == pytest.approx(np.percentile(shares[:, 0], level), abs=0.01)
    gaps = np.diff(drawn, axis=1) - 1.6
    np.testing.assert_allclose(gaps.mean(0), [0.05, 0.05], atol=0.002)


def test_the_sound_is_a_clip_of_the_file_for_each_subsegment():
    record = window(numbered([1], [1.0]), 20.0)
    found = CutSubsegments(segments=4)(record, np.random.default_rng(0))
    times = found["words"].times
    assert [clip.start for clip in found["audio"]] == pytest.approx((7 + times.starts).tolist())
    assert all(type(clip) is Clip and clip.content == b"film" for clip in found["audio"])
    assert [clip.end - clip.start for clip in found["audio"]] == pytest.approx([1.6] * 12)
    assert found["video"] == record["video"]
    assert found["words"].heard


def test_the_window_is_known_by_the_picture_where_there_is_no_sound():
    found = CutSubsegments(segments=4)(window(numbered([1], [19.0]), 20.0, sound=False), None)
    assert found["audio"] is None
    assert not found["words"].heard
    assert found["words"].places.tolist() == [11]


@pytest.mark.parametrize("words", [None, []])
def test_without_words_the_sound_is_left(words):
    found = CutSubsegments(segments=4)(window(words, 20.0), None)
    assert found["words"].words == []
    assert len(found["audio"]) == 12
    silent = CutSubsegments(segments=4)(window(words, 20.0, sound=False), None)
    assert silent["words"] is None
    assert silent["audio"] is None
    assert CutSubsegments()({"id": "a", "words": numbered([1], [1.0])}, None)["words"] is None


def test_the_same_draws_give_the_same_cut_and_others_another():
    record = window(numbered([1] * 3, [1.0, 2.0, 3.0]), 20.0)
    one, same, other = (cut(record, np.random.default_rng(seed)).times.starts for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_window_that_is_too_short_and_times_that_are_none_are_bad():
    with pytest.raises(BadExample, match=r"lasts 19 s, and 4 segments of 3 times 1\.6 s last 19\.2 s"):
        cut(window(None, 19.0))
    assert len(cut(window(None, 4 * 4.8)).times.starts) == 12  # no time is left over
    for start, end in ((np.nan, 1.0), (1.0, np.inf)):
        with pytest.raises(BadExample, match="finite") as caught:
            cut(window([Word("0", start, end)], 20.0))
        assert caught.value.kind == "not_finite"


def test_the_numbers_of_the_segments_videos_are_read():
    record = window(None, 20.0, video_src=np.array([4, 4, 9, 4]))
    assert cut(record).times.sources == (4, 4, 9, 4)
    assert cut(window(None, 20.0)).times.sources == (0, 0, 0, 0)
    assert cut(window(None, 20.0, which=[1, 1, 1, 2]), sources="which").times.sources == (1, 1, 1, 2)
    for given_ in ([1, 2], [0.5] * 4):
        with pytest.raises(BadExample, match="video_src"):
            cut(window(None, 20.0, video_src=given_))


def test_what_is_no_clip_or_no_number_is_told():
    for record in ({"id": "a", "audio": b"wav"}, {"id": "a", "audio": Clip(b"", 0.0, None)}):
        with pytest.raises(UserError, match="put CutWindow"):
            CutSubsegments()(record, None)
    wrong: list[dict[str, Any]] = [{"segments": 0}, {"each": True}, {"seconds": 0.0}, {"seconds": float("nan")}]
    for fields in wrong:
        with pytest.raises(UserError, match=rf"CutSubsegments\({next(iter(fields))}="):
            CutSubsegments(**fields)


def test_columns_have_the_words():
    transform = CutSubsegments()
    assert transform.columns(("id", "audio")) == ("id", "audio", "words")
    assert transform.columns(("id", "audio", "words")) == ("id", "audio", "words")
    assert transform.columns(("id", "text")) == ("id", "text")
    run = RecordTransforms((CutSubsegments(segments=4),), ("audio", "words"))
    bad = run(window(None, 5.0), lambda name: None)
    assert isinstance(bad["audio"], BadExample)
    assert isinstance(bad["words"], BadExample)


def test_words_and_the_text_before_are_cleaned_by_themselves():
    words = [Word("Red", 1, 1), Word(" ", 2, 2), Word("GREEN", 3, 3)]
    found = cut(window(words, 20.0, title=["A", "Film"]), before="title")
    assert found.sentences == ["A Film", "Red   GREEN"]
    found = found.mapped(Lowercase())
    assert (found.words, found.before, found.places.tolist()) == (["red", "", "green"], "a film", [0, 1, 1])
    assert found.sentences == ["a film", "red green"]
    with pytest.raises(UserError, match="in front of every one"):
        found.mapped(Prompt("x"))
    with pytest.raises(UserError, match="no document"):
        found.other(np.random.default_rng(0))
    assert isinstance(found, SpokenWords)
    assert Transform.vocabulary(Lowercase()) is None


def test_a_window_of_a_video_with_words_that_cannot_be_read_keeps_its_sound():
    content = sounding(seconds=2, sounds=("flac",), container="matroska")
    words = json.dumps([{"word": "a", "start": 0.2, "end": 0.4}, {"word": "b", "start": 1.5, "end": 1.7}])
    cutting = CutWindow(2), CutSubsegments(segments=2, each=2, seconds=0.4)

    def through(words):
        record = {"id": "x", "video": content, "words": words}
        for transform in cutting:
            record = transform(record, None)
        return record

    whole, broken = through(words), through("no subtitles")
    assert (whole["words"].words, whole["words"].places.tolist()) == (["a", "b"], [0, 3])
    assert [clip.start for clip in whole["audio"]] == pytest.approx([0.2 / 3, 1.6 / 3, 3.2 / 3, 4.6 / 3], abs=0.02)
    assert isinstance(broken["words"], BadExample)
    assert broken["audio"] == whole["audio"]
