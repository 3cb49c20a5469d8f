"""The streams, against the words that they were made of: what was removed is put back and gives the whole."""

import logging
import pickle
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.chains import Chains, captions, row_spec
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio
from mmjax.data.transforms.reserve.clips import EachClip
from mmjax.data.transforms.reserve.ids import ReserveIds
from mmjax.data.transforms.reserve.rows import POINTERS
from mmjax.data.transforms.reserve.streams import STREAMS, ReserveStreams
from mmjax.data.transforms.reserve.subsegments import CutSubsegments
from mmjax.data.transforms.text import Lowercase
from mmjax.errors import UserError
from tests.data.conftest import kind_of
from tests.data.transforms.reserve.windows import SHIFT, Numerals, Word, cut, masked, numbered, spoken, streams, window

PAD, MASK, MASK_AUDIO, AUDIO, POOL = 0, 3, 4, 5, 6
EACH, TOKENS = 3, 6


class Made:
    """The arrays of one window by name, with the pieces that its words have in each sub-segment."""

    def __init__(self, step: ReserveStreams, record: dict, seed: int | None, sources=None):
        rng = [None, None] if seed is None else [np.random.default_rng((seed, i)) for i in range(2)]
        if sources is not None:
            record = {**record, "video_src": sources}
        self.step = step
        self.words = cut(record, rng[0], segments=step.segments)
        found = step(self.words, rng[1])
        (self.spans, self.valid), self.labels = masked(found), found.labels
        self.of_word = [[SHIFT + int(n) for n in word.split(".")] for word in self.words.words]
        self.texts = [
            [id for ids, place in zip(self.of_word, self.words.places, strict=True) if place == k for id in ids]
            for k in range(step.segments * EACH)
        ]

    def __getattr__(self, name):
        return self.labels[name]

    def span(self, row: int) -> list[int]:
        return self.spans[row, : self.lengths[row]].tolist()

    def tokens(self, stream: str, group: int):
        """(id, pointers by name) of each place that isn't padding."""
        ids = self.labels[stream][group]
        pointers = {name: self.labels[f"{stream}_{name}"][group] for name in POINTERS}
        real = int((ids != PAD).sum())
        assert (ids[real:] == PAD).all()
        return [(int(ids[i]), {name: int(values[i]) for name, values in pointers.items()}) for i in range(real)]

    def put_back(self, stream: str, group: int) -> list[int]:
        """The pieces of a group: those that are read, the spans of its masks, and the words of what is heard."""
        found = []
        for id, pointer in self.tokens(stream, group):
            if id == MASK:
                found += self.span(pointer["text_ptr"]) if pointer["text_ptr"] >= 0 else []
            elif id == AUDIO:
                found += self.texts[pointer["audio_ptr"] // TOKENS] if pointer["audio_ptr"] % TOKENS == 0 else []
            elif id not in (MASK_AUDIO, POOL):
                found.append(id)
        return found

    def of_group(self, group: int) -> list[int]:
        size = len(self.texts) // self.step.groups
        return [id for text in self.texts[group * size : (group + 1) * size] for id in text]

    def rooms(self, stream: str) -> list[tuple[int, int]]:
        """For each sub-segment its group and block."""
        blocks = self.labels[f"{stream}_frame_blocks"]
        return [(g, int(b)) for g, row in enumerate(blocks) for b in row for _ in range(EACH)]


windows = st.builds(
    lambda words, seed, groups, split, sound, sources: Made(
        streams(groups=groups, split=split), window(words, 20.0, sound or not words), seed, sources
    ),
    spoken(),
    st.integers(0, 10_000),
    st.sampled_from([1, 2]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([True, True, False]),
    st.sampled_from([None, [0, 0, 1, 1], [7, 8, 7, 7]]),
)


@settings(deadline=None, max_examples=150)
@given(windows)
def test_what_was_removed_is_put_back_in_its_place(made):
    for group in range(made.step.groups):
        assert made.put_back("text2audio", group) == made.of_group(group)
        assert made.put_back("audio2text", group) == made.of_group(group)
    assert made.put_back("matching", 0) == [id for text in made.texts for id in text]


@settings(deadline=None, max_examples=150)
@given(windows)
def test_pointers_resolve_to_what_was_masked(made):
    count = made.step.masked
    assert count == 3
    assert len(set(made.places.tolist())) == 2 * count  # two sets that share none
    assert made.valid.tolist() == (made.lengths > 0).tolist()
    for stream, first in (("text2audio", 0), ("audio2text", count)):
        rows = {row: int(made.places[row]) for row in range(first, first + count)}
        seen, sounds, masks = [], [], 0
        for group in range(made.step.groups):
            for id, pointer in made.tokens(stream, group):
                assert pointer["frame_ptr"] == -1
                assert (id == AUDIO) == (pointer["audio_ptr"] >= 0)
                assert (id == MASK_AUDIO) == (pointer["target_ptr"] >= 0)
                assert id == MASK or pointer["text_ptr"] == -1
                masks += id == MASK
                if pointer["text_ptr"] >= 0:
                    seen.append(pointer["text_ptr"])
                    assert pointer["segments"] == rows[pointer["text_ptr"]] // EACH
                if pointer["target_ptr"] >= 0:
                    sounds.append(pointer["target_ptr"])
                    assert pointer["segments"] == pointer["target_ptr"] // EACH
                if pointer["audio_ptr"] >= 0:
                    assert pointer["segments"] == pointer["audio_ptr"] // TOKENS // EACH
                    assert pointer["audio_ptr"] // TOKENS not in rows.values()  # nothing masked is heard
                assert pointer["segments"] * made.step.groups // made.step.segments == group
                assert pointer["blocks"] == made.rooms(stream)[pointer["segments"] * EACH][1]
        assert masks == count
        assert sorted(seen) == [row for row in rows if made.valid[row]]
        if stream == "text2audio":
            assert sorted(sounds) == (sorted(rows.values()) if made.words.heard else [])
            assert not (made.text2audio == AUDIO).any()
        else:
            assert not (made.audio2text == MASK_AUDIO).any()
            assert made.words.heard or not (made.audio2text == AUDIO).any()
            assert [made.span(row) for row in rows] == [made.texts[k] for k in rows.values()]


@settings(deadline=None, max_examples=150)
@given(windows)
def test_a_heard_mask_removes_all_that_is_heard_and_steals_where_it_has_nothing(made):
    count, rooms = made.step.masked, made.rooms("text2audio")
    starts, chosen = made.words.times.starts, made.places[: made.step.masked].tolist()
    read = set(made.text2audio[made.text2audio >= SHIFT].tolist())
    for row, k in enumerate(chosen):
        span = made.span(row)
        assert set(made.texts[k]) <= set(span)  # it grows outwards alone
        assert not read & set(span)
        beside = [j for j in (k - 1, k + 1) if 0 <= j < len(rooms) and rooms[j] == rooms[k]]
        assert set(span) <= {id for j in (k, *beside) for id in made.texts[j]}
        edges = {id for j in beside for id in edge(made, j, last=j < k, near=(starts[k], starts[k] + 1.6))}
        assert not read & edges
        if not span:
            assert not read & {id for j in beside for id in made.texts[j]}
        if not made.texts[k] and span:
            assert sum(set(ids) <= set(span) for ids in made.of_word) <= 2
    assert len(chosen) == count


def edge(made: Made, k: int, last: bool, near) -> list[int]:
    """The pieces of the word of a sub-segment that is next to a sound, where it is spoken within 0.125 s of it."""
    own = [i for i, place in enumerate(made.words.places) if place == k]
    if not own:
        return []
    word = own[-1 if last else 0]
    centre = made.words.centres[word]
    outside = near[0] - centre if last else centre - near[1]
    return made.of_word[word] if outside <= 0.125 else []


@settings(deadline=None, max_examples=100)
@given(windows)
def test_nothing_of_a_text_to_be_found_is_read(made):
    count = made.step.masked
    for stream, first in (("text2audio", 0), ("audio2text", count)):
        read = set(made.labels[stream].ravel().tolist())
        for row in range(first, first + count):
            assert not read & set(made.span(row))


@settings(deadline=None, max_examples=50)
@given(windows)
def test_each_segment_has_one_pool_before_its_words_or_its_sound(made):
    tokens = made.tokens("matching", 0)
    assert [pointer["frame_ptr"] for id, pointer in tokens if id == POOL] == [0, 1, 2, 3]
    assert all((id == POOL) == (pointer["frame_ptr"] >= 0) for id, pointer in tokens)
    assert {pointer["blocks"] for _, pointer in tokens} == {0}
    for segment in range(4):
        own = [(id, p) for id, p in tokens if p["segments"] == segment]
        text = [id for texts in made.texts[3 * segment : 3 * segment + 3] for id in texts]
        assert own[0][0] == POOL
        sound = [p["audio_ptr"] for id, p in own[1:] if id == AUDIO]
        if sound:
            assert len(own) == 1 + 18
            assert sound == list(range(18 * segment, 18 * segment + 18))
            assert made.words.heard
        else:
            assert [id for id, _ in own[1:]] == text


def made_often(words, draws=400, sound=True, **fields):
    step = streams(**{"split": 0.0, **fields})
    return [Made(step, window(words, 20.0, sound), seed) for seed in range(draws)]


def test_neighbours_of_a_mask_are_read_with_probability_eight_tenths():
    read = near = far = heard = 0
    for made in made_often(numbered([1] * 40, np.linspace(0.2, 19.8, 40).tolist())):
        hidden = set(made.places[3:].tolist())
        sounds = {int(p) // TOKENS for p in made.audio2text_audio_ptr[0] if p >= 0}
        for k in set(range(12)) - hidden:
            if {k - 1, k + 1} & hidden:
                near, read = near + 1, read + (k not in sounds)
            else:
                far, heard = far + 1, heard + (k in sounds)
    assert read / near == pytest.approx(0.8, abs=0.03)
    assert heard == far > 500


def test_half_of_the_segments_are_matched_by_their_sound():
    words = numbered([1] * 4, [2.0, 7.0, 12.0, 17.0])
    audible = [(made.matching_audio_ptr >= 0).sum() / 18 / 4 for made in made_often(words)]
    assert np.mean(audible) == pytest.approx(0.5, abs=0.04)
    assert all((made.matching_audio_ptr < 0).all() for made in made_often(words, 20, matching_audio=0.0))


def test_different_videos_do_not_see_each_other():
    words = numbered([1] * 40, np.linspace(0.2, 19.8, 40).tolist())
    changed = 0
    for seed in range(30):
        step = streams(split=0.0, grow=10.0)
        one, two = (Made(step, window(words, 20.0), seed, sources) for sources in (None, [5, 5, 2, 5]))
        np.testing.assert_array_equal(one.places, two.places)
        for stream in STREAMS[:2]:
            assert (one.labels[f"{stream}_frame_blocks"] == 0).all()
            frames = two.labels[f"{stream}_frame_blocks"][0]
            assert frames[0] == frames[1] == frames[3] != frames[2]
            real, segments = two.labels[stream][0] != PAD, two.labels[f"{stream}_segments"][0]
            np.testing.assert_array_equal(two.labels[f"{stream}_blocks"][0][real], frames[segments[real]])
            assert (two.labels[f"{stream}_blocks"][0][~real] == -1).all()
        assert (two.matching_frame_blocks == 0).all()
        changed += not np.array_equal(one.text2audio, two.text2audio)  # no mask takes another video's words
        for row, k in enumerate(two.places[:3].tolist()):
            other = [id for j, text in enumerate(two.texts) if (j // 3 == 2) != (k // 3 == 2) for id in text]
            assert not set(other) & set(two.span(row))
    assert changed


CASES = {
    "none": [],
    "in one segment": numbered([2] * 20, np.linspace(5.1, 9.9, 20).tolist()),
    "one enormous": numbered([1, 900, 1], [3.0, 8.0, 15.0]),
    "500 a segment": numbered([1] * 2000, np.linspace(0, 20, 2000).tolist()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sound", [True, False])
def test_rows_that_are_too_long_keep_all_masks(name, sound):
    if not CASES[name] and not sound:
        return
    short, enough = streams(groups=2, length=30, matching_length=60, span_length=15), streams(groups=2)
    for seed in range(20):
        made = Made(short, window(CASES[name], 20.0, sound), seed)
        whole = Made(enough, window(CASES[name], 20.0, sound), seed)
        np.testing.assert_array_equal(made.places, whole.places)
        assert made.spans.shape == (6, 15)
        for row in range(6):
            assert made.span(row) == whole.span(row)[:15]
        for stream in STREAMS:
            for group in range(1 if stream == "matching" else 2):
                found, all_of_them = made.tokens(stream, group), whole.tokens(stream, group)
                special = (MASK, MASK_AUDIO, POOL)
                assert [t for t in found if t[0] in special] == [t for t in all_of_them if t[0] in special]
                if len(all_of_them) <= made.labels[stream].shape[1]:
                    assert found == all_of_them
                rest = iter(all_of_them)
                assert all(token in rest for token in found)  # in order
                starts = [p["audio_ptr"] for _, p in found if p["audio_ptr"] >= 0]
                assert all({s - s % TOKENS + i for i in range(TOKENS)} <= set(starts) for s in starts)


def test_a_row_that_is_too_long_is_filled():
    made = Made(streams(length=160, matching_length=640), window(CASES["500 a segment"], 20.0), 0)
    assert len(made.tokens("text2audio", 0)) == 6  # each sub-segment has more words than there is room for
    medium = numbered([1] * 240, np.linspace(0, 20, 240).tolist())
    for seed in range(10):
        count = len(Made(streams(length=160), window(medium, 20.0), seed).tokens("text2audio", 0))
        assert 130 <= count <= 160


def test_the_text_before_all_gets_the_room_that_is_left():
    words = numbered([1] * 6, np.linspace(1, 19, 6).tolist())
    record = window(words, 20.0, title=".".join(str(5000 + i) for i in range(100)))
    spoken_words = cut(record, before="title")
    for room, left in ((2000, 100), (60, 50), (10, 0), (4, 0)):
        found = streams(matching_length=room, matching_audio=0.0)(spoken_words, np.random.default_rng(0)).labels
        row = found["matching"][0]
        assert row[:left].tolist() == [SHIFT + 5000 + i for i in range(left)]
        assert row[left] == POOL
        assert (row == POOL).sum() == 4
        assert (found["matching_frame_ptr"][0][:left] == -1).all()
        assert (found["matching_blocks"][0][:left] == 0).all()


def test_draws_decide_and_evaluation_is_a_function_of_the_words():
    record = window(numbered([1] * 30, np.linspace(0, 20, 30).tolist()), 20.0)
    one, same, other = (Made(streams(), record, seed).labels for seed in (1, 1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
    assert not np.array_equal(one["places"], other["places"])
    first, again = (Made(streams(), record, None).labels for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    others = {tuple(Made(streams(), window(numbered([1], [float(t)])[:1] * t, 20.0), None).places) for t in range(1, 6)}
    assert len(others) > 1


def test_a_word_of_which_nothing_is_left_counts_as_none():
    words = numbered([1] * 60, np.linspace(0.1, 19.9, 60).tolist())
    with_empty = [one for word in words for one in (Word("", word.start, word.start), word)]
    step = streams()
    for seed in range(20):
        one, other = (cut(window(each, 20.0)) for each in (words, with_empty))
        found, same = (step(each, np.random.default_rng(seed)) for each in (one, other))
        np.testing.assert_array_equal(masked(found).values, masked(same).values)
        for name, array in found.labels.items():
            np.testing.assert_array_equal(array, same.labels[name])


def test_masks_take_nothing_of_another_group():
    words = numbered([1] * 14, np.linspace(0.1, 19.9, 14).tolist())
    for seed in range(40):
        made = Made(streams(groups=2, split=0.0, grow=10.0), window(words, 20.0), seed)
        for group in range(2):
            assert made.put_back("text2audio", group) == made.of_group(group)


def test_groups_are_split_at_random():
    for seed in range(10):
        made = Made(streams(groups=2, split=1.0), window(numbered([1], [1.0]), 20.0), seed)
        for stream in STREAMS[:2]:
            assert made.labels[f"{stream}_frame_blocks"].tolist() == [[0, 1], [0, 1]]
        made = Made(streams(groups=1, split=0.0), window(numbered([1], [1.0]), 20.0), seed)
        assert not made.text2audio_frame_blocks.any()


def test_paper_size():
    step = ReserveStreams(Numerals())
    words = numbered([1] * 200, np.linspace(0, 80, 200).tolist())
    made = Made(step, window(words, 80.0), 0)
    assert step.masked == 12
    assert made.spans.shape == (24, 15)
    assert made.text2audio.shape == made.audio2text_text_ptr.shape == (2, 160)
    assert made.matching.shape == (1, 640)
    assert made.audio2text_frame_blocks.shape == (2, 8)
    assert (made.text2audio == MASK_AUDIO).sum() == 12


def test_a_chain_from_a_record_to_a_row(caplog):
    def spoken_by(index):
        return [Word(w, 1.0 + 2 * i, 1.4 + 2 * i) for i, w in enumerate(("The Red Dog", "runs", f"No{index}"))]

    record = {**window(spoken_by(1), 20.0), "title": "Dogs"}
    whole = RecordTransforms((CutSubsegments(segments=4, before="title"),), ("audio", "words"))
    audio = EachClip((_Silence(), DecodeAudio(), CropOrPad(50)), 12)
    described = SentencePiece(60)
    transforms = {
        "audio": (audio,),
        "words": (Lowercase(), ReserveStreams(described, segments=4, groups=1, length=40, matching_length=90)),
    }
    rng = {"a": np.random.default_rng(0)}
    read = whole(record, lambda name: np.random.default_rng(1))
    lines = captions(read, "words", transforms["words"])
    assert lines == ["dogs", "the red dog runs no1"]
    chains = Chains(transforms, {"words": PieceTokenizer(described.train(lines))})
    row = chains.row(read, lambda name: rng.setdefault(name, np.random.default_rng(2)))
    for name, (shape, dtype) in row_spec(chains.specs).items():
        assert (row[name].shape, row[name].dtype) == (shape, np.dtype(dtype)), name
    assert row["words_valid"]
    assert row["words"].shape == (6, 15)
    assert row["audio"].shape == (12, 50)
    assert row["words_matching_frame_ptr"].max() == 3
    tokenizer = chains.tokenizers["words"]
    row = row["words_matching"][0]
    assert tokenizer.decode([id - 10 for id in row[: list(row).index(POOL)]]) == "dogs"
    with caplog.at_level(logging.WARNING):
        missing = chains.row({"id": "b", "words": None, "audio": None}, lambda name: None)
    assert not missing["words_valid"]
    assert not missing["words_text2audio"].any()
    pickle.loads(pickle.dumps(chains))


class _Silence(DecodeAudio):
    """Takes a clip for a waveform."""

    def __call__(self, value, rng):
        assert value.end - value.start == pytest.approx(1.6)
        return np.ones(40, np.int16)


def test_fields_that_cannot_be_are_told():
    wrong = [
        {"segments": 0},
        {"length": True},
        {"mask_rate": 1.5},
        {"split": -0.1},
        {"groups": 3},
        {"mask_rate": 0.6},
        {"mask_rate": 0.0},
        {"length": 23},
        {"length": 191, "mask_each": True},
        {"matching_length": 15},
    ]
    for fields in wrong:
        with pytest.raises(UserError, match=rf"ReserveStreams\({next(iter(fields))}="):
            ReserveStreams(Numerals(), **fields)
    assert ReserveStreams(Numerals(), length=24).length == 24
    assert ReserveStreams(Numerals(), length=192, mask_each=True).length == 192
    with pytest.raises(UserError, match="give CutSubsegments the same numbers"):
        streams(segments=2)(cut(window(None, 20.0)), None)
    assert kind_of(streams(), "a text") == "unfit"
    with pytest.raises(TypeError, match="no model yet"):
        ReserveStreams(SentencePiece(), segments=4)(cut(window(CASES["one enormous"], 20.0)), None)


@settings(deadline=None, max_examples=100)
@given(spoken(), st.integers(0, 10_000), st.sampled_from([1, 2]), st.sampled_from([2, 15]))
def test_each_id_that_was_removed_leaves_a_mask(words, seed, groups, longest):
    """Its k-th mask stands for the k-th id of the span; all else is as with one mask for a span."""
    fields = {"groups": groups, "span_length": longest}
    record = window(words, 20.0)
    one = Made(streams(**fields), record, seed)
    each = Made(streams(**fields, mask_each=True), record, seed)
    assert (each.spans.tolist(), each.places.tolist()) == (one.spans.tolist(), one.places.tolist())
    for stream in ("text2audio", "audio2text"):
        for group in range(groups):
            tokens = each.tokens(stream, group)
            runs = [list(run) for _, run in groupby(tokens, lambda t: (t[0] == MASK, t[1]["text_ptr"]))]
            for run in runs:
                if run[0][0] == MASK and (span := run[0][1]["text_ptr"]) >= 0:
                    assert len(run) == each.lengths[span]
            once = [
                token
                for run in runs
                for token in (run[:1] if run[0][0] == MASK and run[0][1]["text_ptr"] >= 0 else run)
            ]
            assert once == one.tokens(stream, group)


def test_masks_go_where_words_are():
    """Of twelve sub-segments six have words: the plain draw leaves half of its masks without a text."""
    words = numbered([1] * 6, [0.9 + 3.34 * k for k in range(6)])
    lacking = {
        prefer: sum(
            (Made(streams(prefer_spoken=prefer, grow=0.0), window(words, 20.0), seed).lengths[3:] == 0).sum()
            for seed in range(40)
        )
        for prefer in (False, True)
    }
    assert lacking[True] == 0 < lacking[False]


def test_ids_are_the_fields():
    ids = ReserveIds(pad=9, mask=20, mask_audio=21, audio_span=22, pool=23, shift=30)
    step = streams(ids=ids)
    found = step(cut(window(numbered([1], [1.0]), 20.0)), np.random.default_rng(0))
    names = {20, 21, 22, 23, 9, 30}
    for array in (masked(found).values, *(found.labels[stream] for stream in STREAMS)):
        assert set(array.ravel().tolist()) <= names
    assert (found.labels["text2audio"] == 21).sum() == 3
