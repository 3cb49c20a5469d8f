"""One rule for the scale of a waveform, by whatever door it comes: an array, a float file, a file of 32 bits."""

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.loudness import LOUDEST, in_scale, to_int16
from mmjax.data.transforms.audio import DecodeAudio
from tests.data.conftest import RATE, kind_of, sound_bytes, tone


def test_sixteen_bits_are_as_they_are():
    wave = np.array([-32_768, -1, 0, 5, 32_767], np.int16)
    assert in_scale(wave) is wave
    assert to_int16(wave) is wave


def test_thirty_two_bits_have_their_own_full_scale_in_arrays_and_files():
    wave = (tone(440) / 32_768 * 2**31).astype(np.int32)
    expected = np.rint(wave / 2**31 * 32_767)
    np.testing.assert_array_equal(DecodeAudio()(wave, None), expected)
    np.testing.assert_array_equal(DecodeAudio()(sound_bytes(wave, format="WAV", subtype="PCM_32"), None), expected)


def test_an_int32_array_of_sixteen_bits_is_refused_not_silence():
    wave = np.array([0, -12_345, 9], np.int32)
    with pytest.raises(BadExample, match=r"int32 array holds values up to 12,345.*give them as int16") as bad:
        DecodeAudio()(wave, None)
    assert bad.value.kind == "undecodable"
    assert kind_of(DecodeAudio(), np.array([-32_768], np.int32)) == "undecodable"
    assert not DecodeAudio()(np.zeros(9, np.int32), None).any()  # silence is silence on any scale
    quiet = sound_bytes(np.array([1, -300, 12_345] * 30, np.int32), format="WAV", subtype="PCM_32")
    assert np.abs(DecodeAudio()(quiet, None)).max() == 0  # a file says what its numbers are: this one is silent


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_beyond_the_scale_are_refused_in_files_as_in_arrays(subtype):
    loud = tone(440).astype(np.float64)  # up to 8,000: 16 bits that nobody divided
    for value in (loud, loud.astype(np.float32), sound_bytes(loud, format="WAV", subtype=subtype)):
        with pytest.raises(BadExample, match=r"floats up to \d[\d.]+; .*divide it by its full scale \(32768") as bad:
            DecodeAudio()(value, None)
        assert bad.value.kind == "undecodable"
    slow = sound_bytes(loud, rate=8_000, format="WAV", subtype=subtype)
    assert kind_of(DecodeAudio(RATE), slow) == "undecodable"  # before it is resampled, too


def test_a_little_more_than_full_scale_is_clipped_alike():
    peaks = np.array([0.5, 1.0, 1.5, -1.2, LOUDEST])
    expected = [16_384, 32_767, 32_767, -32_767, 32_767]
    assert DecodeAudio()(peaks, None).tolist() == expected
    assert DecodeAudio()(sound_bytes(peaks, format="WAV", subtype="FLOAT"), None).tolist() == expected
    assert kind_of(DecodeAudio(), np.array([np.nextafter(LOUDEST, 9)])) == "undecodable"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int64, bool, complex])
def test_types_that_say_no_scale_are_refused(dtype):
    with pytest.raises(BadExample, match=r"a waveform holds int16 .*not "):
        DecodeAudio()(np.ones(5, dtype), None)
