"""The sequences that are gathered equal those that are laid out token by token."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.objectives.reserve.sequences import EncodedParts, encoded_parts, joint_rows, sees
from mmjax.objectives.reserve.streams import stream_of_web_text, stream_of_words
from tests.objectives.reserve import by_hand
from tests.objectives.reserve.windows import AUDIO_TOKENS, CLIPS, GROUPS, SEGMENTS, VOCAB, batch

D, GRID = 8, (2, 3)
SIZE = 6
RANDOM = np.random.default_rng(5)
TABLE: Any = RANDOM.normal(size=(VOCAB, D)).astype(np.float32)
VIDEO: Any = RANDOM.normal(size=(SIZE, SEGMENTS * 7, D)).astype(np.float32)
AUDIO: Any = RANDOM.normal(size=(SIZE, CLIPS * (1 + AUDIO_TOKENS), D)).astype(np.float32)


def encoded(tokens: Any, count: int, given: Any, name: str) -> EncodedParts:
    real: Any = np.repeat(given[f"{name}_mask"], tokens.shape[1] // count, axis=1)
    return encoded_parts(tokens, real, count, given[f"{name}_valid"], name)


@pytest.mark.parametrize("stream", ["text2audio", "audio2text", "matching", "web_text"])
def test_they_equal_a_loop_over_their_tokens(stream: str) -> None:
    given = batch(SIZE)
    video, audio = encoded(VIDEO, SEGMENTS, given, "video"), encoded(AUDIO, CLIPS, given, "audio")
    rows = stream_of_web_text(given, "web_text") if stream == "web_text" else stream_of_words(given, "words", stream)
    for sound in (audio, None):
        found = joint_rows(rows, TABLE[np.asarray(rows.ids)], sound, video, GRID)
        seen: Any = np.asarray(sees(found.blocks.reshape(-1, found.blocks.shape[2])))
        seen = seen.reshape(*found.blocks.shape, -1)
        frames, sounds = 0, 0
        for example in range(SIZE):
            if not given["web_text_valid" if stream == "web_text" else "words_valid"][example]:
                assert not seen[example].any()
                continue
            real = given["video_mask"][example] & given["video_valid"][example]
            pictures = by_hand.parts(VIDEO[example], real, SEGMENTS)
            heard = given["audio_mask"][example] & given["audio_valid"][example]
            clips = [] if sound is None else by_hand.parts(AUDIO[example], heard, CLIPS)
            for row in range(rows.ids.shape[1]):
                expected = by_hand.row_of(given, stream, example, row, TABLE, pictures, clips, GRID)
                np.testing.assert_array_equal(seen[example, row], expected.allowed)
                there: Any = expected.allowed.any(0)
                np.testing.assert_allclose(found.x[example, row][there], expected.x[there], atol=1e-6)
                np.testing.assert_allclose(found.places[example, row], expected.places, atol=1e-6)
                frames += there[rows.ids.shape[2] :].sum()
                sounds += (there[: rows.ids.shape[2]] & (np.asarray(rows.audio)[example, row] >= 0)).sum()
        assert (frames > 0) == (stream in ("text2audio", "audio2text"))
        assert (sounds > 0) == (stream in ("audio2text", "matching") and sound is not None)


def test_frames_and_words_of_two_blocks_do_not_see_each_other() -> None:
    """Some window of these is cut or of two videos."""
    given = batch(16, lacking=False)
    video = encoded(np.resize(VIDEO, (16, SEGMENTS * 7, D)), SEGMENTS, given, "video")
    rows = stream_of_words(given, "words", "text2audio")
    blocks: Any = np.asarray(joint_rows(rows, TABLE[np.asarray(rows.ids)], None, video, GRID).blocks)
    seen = np.asarray(sees(blocks.reshape(16 * GROUPS, -1)))
    kinds = [len({x for x in row if x >= 0}) for row in blocks.reshape(16 * GROUPS, -1)]
    assert set(kinds) == {1, 2}
    for row, own in zip(seen, blocks.reshape(16 * GROUPS, -1), strict=True):
        for a in np.flatnonzero(own >= 0):
            np.testing.assert_array_equal(row[a], own == own[a])
        assert not row[own < 0].any()


def test_what_does_not_fit_is_named() -> None:
    given = batch(SIZE)
    video = encoded(VIDEO, SEGMENTS, given, "video")
    rows = stream_of_words(given, "words", "text2audio")
    vectors = TABLE[np.asarray(rows.ids)]
    with pytest.raises(UserError, match="4 of 6 tokens, and the streams of words have 4 segments, with a grid of 3x4"):
        joint_rows(rows, vectors, None, video, (3, 4))
    fewer = EncodedParts(video.vector[:, :2], video.tokens[:, :2], video.real[:, :2])
    with pytest.raises(UserError, match="the frames are 2 of 6 tokens, and the streams of words have 4 segments"):
        joint_rows(rows, vectors, None, fewer, GRID)
    with pytest.raises(UserError, match="the tower of 'audio' gives 36 tokens for 5 parts"):
        encoded_parts(AUDIO, jnp.ones(AUDIO.shape[:2], bool), 5, given["audio_valid"], "audio")
    with pytest.raises(UserError, match="the tower of 'audio' gives 12 tokens for 12 parts"):
        encoded_parts(AUDIO[:, :12], jnp.ones((SIZE, 12), bool), 12, given["audio_valid"], "audio")
