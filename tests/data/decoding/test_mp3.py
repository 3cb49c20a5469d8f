"""MP3 files whose length nothing says, or wrongly: all of them is heard."""

import io
from functools import cache

import numpy as np
import pytest
import soundfile

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding import mp3
from mmjax.data.transforms.audio import DecodeAudio
from tests.data.conftest import RATE

SECONDS = 3
ID3 = b"ID3\x03\0\0\0\0\x02\x01" + bytes(257)


def sound(rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A second of noise, whose frames are large, then two of a tone so quiet that they are small."""
    rng, time = np.random.default_rng(0), np.arange(2 * rate) / rate
    wave = np.concatenate([rng.uniform(-0.5, 0.5, rate), 0.001 * np.sin(2 * np.pi * 440 * time)])
    return wave if channels == 1 else np.stack([wave] * channels, axis=1)


@cache
def encoded(rate: int = RATE, channels: int = 1, mode: str = "VARIABLE") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, sound(rate, channels), rate, format="MP3", bitrate_mode=mode, compression_level=0.0)
    return stream.getvalue()


def bare(content: bytes) -> bytes:
    """Without the frame that says how many there are."""
    return content[mp3.scan(content).audio[0][0] :]


def frames(content: bytes) -> int:
    return soundfile.info(io.BytesIO(content)).frames


def decoded(content: bytes, rate: int = RATE) -> np.ndarray:
    return DecodeAudio(rate)(content, None)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_one_without_a_header_is_decoded_to_its_end(rate, channels):
    content = encoded(rate, channels)
    whole, stripped = decoded(content, rate), bare(content)
    assert len(whole) == SECONDS * rate
    if (rate, channels) == (RATE, 1):
        assert frames(stripped) < 0.4 * len(whole)  # what libsndfile makes of it: two thirds are lost
    found = decoded(stripped, rate)
    # The header also said how much silence the encoder put first; without it that stays.
    assert len(whole) <= len(found) < len(whole) + 3_000
    first = next(lag for lag in range(3_000) if np.abs(found[lag : lag + 500].astype(int) - whole[:500]).max() < 9)
    assert np.abs(found[first:][: len(whole)].astype(int) - whole).max() < 9


def test_two_joined_are_heard_one_after_the_other():
    content = encoded()
    whole = decoded(content)
    for joined in (content + content, content + ID3 + content, ID3 + content + b"TAG" + bytes(125) + content):
        found = decoded(joined)
        assert 2 * len(whole) <= len(found) < 2 * len(whole) + 3_000
        assert np.abs(found[: len(whole)].astype(int) - whole).max() <= 1
        assert np.abs(found[-len(whole) :].astype(int) - whole).max() <= 1
    assert len(decoded(bare(content) * 2)) >= 2 * len(whole)
    assert len(decoded(content * 3)) >= 3 * len(whole)


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_a_header_that_is_true_leaves_the_file_alone(rate, mode):
    for channels in (1, 2):
        content = encoded(rate, channels, mode)
        assert mp3.whole_mp3(content) is content
        found = mp3.scan(content)
        assert found.said == [len(found.audio)]
        assert not found.junk
        assert found.samples * len(found.audio) - SECONDS * rate in range(3_000)


def test_one_that_was_cut_off_is_bad_not_shorter():
    content = encoded()
    with pytest.raises(BadExample, match=r"the MP3 is cut off: its header says 86 frames, and \d+ are there") as bad:
        decoded(content[: len(content) // 2])
    assert bad.value.kind == "undecodable"
    with pytest.raises(BadExample, match="the MP3 is cut off: its header says 172 frames"):
        decoded(content + content[: len(content) // 2])


def test_parts_of_different_rates_are_bad():
    for other in (encoded(44_100), encoded(RATE, 2)):
        with pytest.raises(BadExample, match=r"no frames like its first ones: parts of several rates, or mono"):
            decoded(encoded() + other)


def test_junk_between_frames_is_passed_over():
    content = encoded()
    whole, rng = decoded(content), np.random.default_rng(0)
    noise = rng.integers(0, 256, 2_000).astype(np.uint8).tobytes()
    assert abs(len(decoded(bare(content) + noise + bare(content))) - 2 * len(whole)) < 3_500
    assert mp3.whole_mp3(noise * 40) == noise * 40  # no MP3 at all
    assert not mp3.begins(b"ID3\x03\0\0\0\0\0\x04" + bytes(4) + b"fLaC\0\0\0\x22")
    assert mp3.begins(ID3 + content)
    assert mp3.begins(content)


def test_one_that_would_unpack_to_more_than_is_allowed_is_refused_by_its_frames():
    stripped = bare(encoded())
    with pytest.raises(BadExample, match=r"more than most_samples=30,000") as bad:
        DecodeAudio(RATE, most_samples=30_000)(stripped, None)  # of which libsndfile would have seen 33,696
    assert bad.value.kind == "too_large"
    assert len(DecodeAudio(RATE, most_samples=50_000)(stripped, None)) > 48_000
