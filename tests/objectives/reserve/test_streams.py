"""Streams are read as the data has them, and nothing of an example that lacks them is."""

import jax.numpy as jnp
import numpy as np

from mmjax.objectives.reserve.streams import (
    SpanRows,
    found_at,
    joined_spans,
    numbered_spans,
    spans_of_web_text,
    spans_of_words,
    stream_of_web_text,
    stream_of_words,
)
from tests.objectives.reserve.windows import GROUPS, SEGMENTS, batch

NO_WORDS, NO_WEB = 3, 4


def test_segments_are_counted_in_each_row_of_frames_and_by_what_matches_them() -> None:
    given = batch(6)
    for name in ("text2audio", "audio2text"):
        rows = stream_of_words(given, "words", name)
        for example in (0, 1):
            for group in range(GROUPS):
                first = group * SEGMENTS // GROUPS
                for place in np.flatnonzero(np.asarray(rows.blocks)[example, group] >= 0):
                    told = given[f"words_{name}_segments"][example, group, place]
                    assert rows.segments[example, group, place] == told - first
    rows = stream_of_words(given, "words", "matching")
    assert rows.frame_blocks is None
    for example in (0, 1):
        count = 0
        for place, pointer in enumerate(given["words_matching_frame_ptr"][example, 0]):
            count += pointer >= 0
            assert rows.segments[example, 0, place] == count
        assert count == SEGMENTS


def test_nothing_is_real_of_an_example_without_words() -> None:
    given = batch(6)
    given["words"][NO_WORDS] = 17  # whatever stands there
    for name in ("text2audio", "audio2text", "matching"):
        rows = stream_of_words(given, "words", name)
        for pointers in (rows.blocks, rows.audio, rows.text, rows.target, rows.frame):
            assert (np.asarray(pointers)[NO_WORDS] == -1).all()
            there = np.delete(np.asarray(rows.blocks), NO_WORDS, axis=0)
            assert (there >= 0).any(axis=(1, 2)).all()
        if rows.frame_blocks is not None:
            assert (np.asarray(rows.frame_blocks)[NO_WORDS] == -1).all()
    assert not np.asarray(spans_of_words(given, "words").lengths)[NO_WORDS].any()
    web = stream_of_web_text(given, "web_text")
    assert (np.asarray(web.blocks)[NO_WEB] == -1).all()
    assert (np.asarray(web.text)[NO_WEB] == -1).all()
    assert not np.asarray(spans_of_web_text(given, "web_text").lengths)[NO_WEB].any()


def test_a_text_of_the_web_is_one_row_of_one_block() -> None:
    given = batch(6)
    rows = stream_of_web_text(given, "web_text")
    np.testing.assert_array_equal(np.asarray(rows.blocks)[:, 0] == 0, given["web_text_mask"])
    np.testing.assert_array_equal(np.asarray(rows.ids)[:, 0], given["web_text"])
    expected = np.where(given["web_text_valid"][:, None], given["web_text_text_ptr"], -1)
    np.testing.assert_array_equal(np.asarray(rows.text)[:, 0], expected)
    assert (np.asarray(rows.audio) == -1).all()
    assert not np.asarray(rows.segments).any()


def test_spans_of_two_lengths_stand_one_after_the_other() -> None:
    long, short = jnp.arange(12).reshape(1, 3, 4), jnp.arange(100, 104).reshape(1, 2, 2)
    both = joined_spans([SpanRows(long, jnp.array([[4, 0, 2]])), SpanRows(short, jnp.array([[2, 1]]))])
    assert both.ids.tolist() == [[*long[0].tolist(), [100, 101, 0, 0], [102, 103, 0, 0]]]
    assert both.lengths.tolist() == [[4, 0, 2, 2, 1]]


def test_pointers_are_found_by_what_they_point_to() -> None:
    at, there = found_at(jnp.array([[-1, 7, 2, -1], [0, 2, 2, 7]]), jnp.array([[2, 7, 0], [2, 7, 0]]))
    assert there.tolist() == [[True, True, False], [True, True, True]]
    assert np.where(there, at, -1).tolist() == [[2, 1, -1], [1, 3, 0]]


def test_spans_share_a_number_where_they_share_their_ids() -> None:
    random = np.random.default_rng(0)
    ids, lengths = random.integers(0, 5, (40, 6, 4)), random.integers(0, 5, (40, 6))
    numbers = np.asarray(numbered_spans(SpanRows(jnp.asarray(ids), jnp.asarray(lengths)))).ravel()
    spans = [tuple(one[:length].tolist()) for one, length in zip(ids.reshape(-1, 4), lengths.ravel(), strict=True)]
    assert 100 < len(set(spans)) < 240
    assert (numbers >= 0).all()
    assert len(set(zip(spans, numbers.tolist(), strict=True))) == len(set(spans)) == len(set(numbers.tolist()))


def test_numbers_of_many_spans_rarely_meet() -> None:
    """Of 20,000 spans of like ids and lengths about 0.1 pairs would by chance."""
    ids = np.stack([np.arange(20_000) % 100, np.arange(20_000) // 100, np.zeros(20_000, int)], axis=1)
    numbers = numbered_spans(SpanRows(jnp.asarray(ids)[None], jnp.full((1, 20_000), 3)))
    assert len(np.unique(numbers)) >= 19_999
