"""Files of sound whose headers say less, or more, than is there."""

import struct

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.audio import DecodeAudio
from tests.data.conftest import RATE, kind_of, sound_bytes, tone

WAVE = tone(440, 0.5)


def decoded(content: bytes) -> np.ndarray:
    return DecodeAudio()(content, None)


def wav(size: int | None = None, wave: np.ndarray = WAVE) -> bytes:
    """A WAV file whose header says that its sound has `size` bytes."""
    content = bytearray(sound_bytes(wave, format="WAV"))
    place = content.find(b"data") + 4
    if size is not None:
        content[place : place + 4] = struct.pack("<I", size)
        content[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    return bytes(content)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_wav_that_was_streamed_is_read_to_its_end(size):
    np.testing.assert_array_equal(decoded(wav(size)), WAVE)


def test_a_wav_whose_length_is_wrong_is_bad():
    with pytest.raises(BadExample, match=r"counts 1,000 bytes of sound, and 15,000 more follow that it doesn't name"):
        decoded(wav(1_000))
    with pytest.raises(BadExample, match=r"the WAV file is cut off: it should have 90,044 bytes, and has 16,044"):
        decoded(wav(90_000))
    np.testing.assert_array_equal(decoded(wav(16_044)), WAVE)  # its writer counted the header in


def test_chunks_and_zeros_behind_the_sound_are_none_of_it():
    for tail in (b"LIST\4\0\0\0INFO", bytes(5_000)):
        np.testing.assert_array_equal(decoded(wav() + tail), WAVE)
    empty = wav(0, WAVE[:0]) + b"LIST" + struct.pack("<I", 200) + bytes(200)
    assert not len(decoded(empty))


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        *[(format, "PCM_16") for format in ("WAV", "AIFF", "AU", "W64", "RF64", "CAF", "FLAC")],
        *[("WAV", "FLOAT"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)],
    ],
)
def test_what_was_cut_off_is_bad_not_shorter(format, subtype):
    content = sound_bytes(np.random.default_rng(0).normal(0, 0.1, 16_000), format=format, subtype=subtype)
    assert len(decoded(content)) == 16_000
    for share in (0.5, 0.9):
        assert kind_of(DecodeAudio(), content[: int(share * len(content))]) == "undecodable"


@pytest.mark.parametrize(
    ("format", "subtype"), [("FLAC", "PCM_16"), ("WAV", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")]
)
def test_several_in_one_file_are_heard_one_after_the_other(format, subtype):
    first, second = (sound_bytes(tone(hertz, 0.5), format=format, subtype=subtype) for hertz in (440, 880))
    apart = np.concatenate([decoded(first), decoded(second), decoded(first)])
    np.testing.assert_array_equal(decoded(first + second + first), apart)
    assert len(apart) == 24_000
    slow = sound_bytes(tone(440, 0.5, 8_000), 8_000, format=format, subtype=subtype)
    with pytest.raises(BadExample, match="joined of sounds that differ in rate"):
        decoded(first + slow)


def test_the_parts_together_are_bounded():
    silence = sound_bytes(np.zeros(50_000, np.int16))
    assert kind_of(DecodeAudio(RATE, most_samples=100_000), silence * 2) is None
    with pytest.raises(BadExample, match=r"more than most_samples=99,999") as bad:
        DecodeAudio(RATE, most_samples=99_999)(silence * 2, None)
    assert bad.value.kind == "too_large"


def flac(total: int, wave: np.ndarray = WAVE) -> bytes:
    """A FLAC file whose header says that it has `total` samples: 36 bits of its first block."""
    content = bytearray(sound_bytes(wave, format="FLAC"))
    content[21] = content[21] & 0xF0 | total >> 32
    content[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    return bytes(content)


def test_a_flac_stream_that_does_not_know_its_length_is_read_to_its_end():
    np.testing.assert_array_equal(decoded(flac(0)), WAVE)
    long = np.random.default_rng(0).integers(-9_000, 9_000, 300_000).astype(np.int16)  # more than a block
    np.testing.assert_array_equal(decoded(flac(0, long)), long)
    with pytest.raises(BadExample, match=r"over 299,999 frames .* more than most_samples=299,999") as bad:
        DecodeAudio(RATE, most_samples=299_999)(flac(0, long), None)
    assert bad.value.kind == "too_large"
    assert kind_of(DecodeAudio(), flac(0, long)[:200_000]) == "undecodable"
    assert kind_of(DecodeAudio(), flac(9_000)) == "undecodable"  # of which it has 8,000
