import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.audio import (
    AddNoise,
    CropOrPad,
    DecodeAudio,
    PickUtterance,
    RandomGain,
    RandomShift,
    RandomSpeed,
)
from mmjax.data.transforms.values import Cut
from tests.data.conftest import RATE, kind_of, sound_bytes, tone


def pitch(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(spectrum.argmax() * RATE / len(wave))


@pytest.mark.parametrize("format", ["FLAC", "WAV"])
def test_decoding_int16_is_exact(format):
    wave = np.random.default_rng(0).integers(-32768, 32767, 500).astype(np.int16)
    np.testing.assert_array_equal(DecodeAudio()(sound_bytes(wave, format=format), None), wave)


def test_decoding_scales_floats_mixes_channels_and_clips():
    stream = io.BytesIO()
    stereo = np.stack([np.full(100, 0.5), np.full(100, 0.25)], axis=1)
    soundfile.write(stream, stereo, RATE, format="WAV", subtype="FLOAT")
    assert set(DecodeAudio()(stream.getvalue(), None).tolist()) == {round(0.375 * 32767)}
    int_stereo = sound_bytes(np.stack([np.full(50, 3000), np.full(50, 1000)], axis=1).astype(np.int16))
    assert set(DecodeAudio()(int_stereo, None).tolist()) == {2000}
    assert DecodeAudio()(np.array([2.0, -2.0, 0.0]), None).tolist() == [32767, -32767, 0]


@pytest.mark.parametrize(("rate", "format", "subtype"), [(8000, "WAV", "PCM_16"), (44100, "FLAC", "PCM_24")])
def test_decoding_resamples_and_keeps_pitch_and_length(rate, format, subtype):
    wave = DecodeAudio()(sound_bytes(tone(440, 0.5, rate), rate, format, subtype), None)
    assert wave.dtype == np.int16
    assert len(wave) == pytest.approx(RATE / 2, abs=2)
    assert pitch(wave) == pytest.approx(440, abs=3)
    assert np.abs(wave).max() == pytest.approx(8000, rel=0.05)


def test_a_file_that_cannot_be_sought_in_is_decoded():
    wave = tone(440, 0.5)
    decoded = DecodeAudio()(sound_bytes(wave, format="WAV", subtype="GSM610"), None)
    assert len(decoded) == pytest.approx(len(wave), abs=320)
    assert np.corrcoef(decoded[: len(wave)], wave[: len(decoded)])[0, 1] > 0.9


def test_vorbis_comes_at_its_loudness():
    wave = DecodeAudio()(sound_bytes(tone(440, 0.5), format="OGG", subtype="VORBIS"), None)
    assert np.abs(wave[1000:-1000]).max() == pytest.approx(8000, rel=0.1)


@pytest.mark.parametrize("bad", [b"", b"no sound", np.zeros((2, 2), np.int16), np.array([3])])
def test_what_is_no_sound_is_a_bad_example(bad):
    assert kind_of(DecodeAudio(), bad) == "undecodable"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_bad(value):
    wave = np.array([0.0, value, 0.1])
    assert kind_of(DecodeAudio(), wave) == "not_finite"
    assert kind_of(DecodeAudio(RATE), sound_bytes(wave, format="WAV", subtype="FLOAT")) == "not_finite"


def test_a_sound_that_is_too_long_to_unpack_is_told_by_its_header():
    small = sound_bytes(np.zeros(50_000, np.int16))
    assert len(small) < 1_000  # silence compresses
    assert kind_of(DecodeAudio(RATE, most_samples=49_999), small) == "too_large"
    assert kind_of(DecodeAudio(RATE, most_samples=50_000), small) is None
    stereo = sound_bytes(np.zeros((50_000, 2), np.int16))
    assert kind_of(DecodeAudio(RATE, most_samples=99_999), stereo) == "too_large"
    slow = sound_bytes(np.zeros(20_000, np.int16), rate=1, format="WAV")  # 320 million samples at 16 kHz
    assert kind_of(DecodeAudio(), slow) == "too_large"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU"]), st.integers(0, 2**32 - 1))
def test_whatever_is_done_to_a_file_it_decodes_or_is_bad(format, seed):
    rng = np.random.default_rng(seed)
    contents = bytearray(sound_bytes(tone(440, 0.1), format=format))
    for _ in range(int(rng.integers(1, 8))):
        contents[rng.integers(len(contents))] = rng.integers(256)
    if rng.random() < 0.3:
        contents = contents[: rng.integers(len(contents))]
    assert kind_of(DecodeAudio(most_samples=1_000_000), bytes(contents)) in (None, "undecodable", "too_large")


def test_pick_utterance_takes_the_first_in_evaluation_and_any_in_training():
    recordings = [b"a", b"b", b"c"]
    assert PickUtterance()(recordings, None) == b"a"
    rng = np.random.default_rng(0)
    assert {PickUtterance()(recordings, rng) for _ in range(50)} == set(recordings)
    assert PickUtterance()(b"alone", rng) == b"alone"
    with pytest.raises(BadExample, match="no recording"):
        PickUtterance()([], None)


def test_speed_changes_length_and_pitch_together():
    wave = tone(440, 0.5)
    faster = RandomSpeed((1.25, 1.25))(wave, np.random.default_rng(0))
    assert len(faster) == len(wave) / 1.25
    assert pitch(faster) == pytest.approx(440 * 1.25, abs=4)
    assert np.abs(RandomSpeed((1.0, 1.0))(wave, np.random.default_rng(0)).astype(int) - wave).max() <= 2


def test_gain_stays_in_its_range_and_clips():
    wave = tone(440, 0.1)
    rng = np.random.default_rng(0)
    factors = [np.abs(RandomGain(6)(wave, rng)).max() / np.abs(wave).max() for _ in range(100)]
    assert 10 ** (-6 / 20) - 1e-3 <= min(factors) < 0.6
    assert 1.8 < max(factors) <= 10 ** (6 / 20) + 1e-3
    assert np.abs(RandomGain(40)(np.full(9, -32768, np.int16), np.random.default_rng(3)).astype(int)).max() <= 32768


@pytest.mark.parametrize("decibels", [10.0, 20.0])
def test_noise_has_the_ratio_that_was_asked_for(decibels):
    wave = tone(440, 1.0)
    noise = AddNoise((decibels, decibels))(wave, np.random.default_rng(0)).astype(float) - wave
    measured = 10 * np.log10((wave.astype(float) ** 2).mean() / (noise**2).mean())
    assert measured == pytest.approx(decibels, abs=0.2)
    silence = np.zeros(10, np.int16)
    np.testing.assert_array_equal(AddNoise()(silence, np.random.default_rng(0)), silence)


def test_shift_puts_silence_before_the_sound():
    wave = tone(440) + np.int16(9000)
    shifted = RandomShift(100)(wave, np.random.default_rng(1))
    front = len(shifted) - len(wave)
    assert 0 < front <= 100
    assert not shifted[:front].any()
    np.testing.assert_array_equal(shifted[front:], wave)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.booleans())
def test_crop_or_pad_keeps_real_samples_first(length, samples, seed, training):
    wave = np.arange(1, length + 1, dtype=np.int16)
    found = CropOrPad(samples)(wave, np.random.default_rng(seed) if training else None)
    assert isinstance(found, Cut) == (len(wave) > samples)
    assert getattr(found, "whole", len(wave)) == len(wave)
    values, mask = found
    real = min(length, samples)
    assert values.shape == mask.shape == (samples,)
    assert mask.tolist() == [True] * real + [False] * (samples - real)
    assert not values[real:].any()
    np.testing.assert_array_equal(values[:real], np.arange(real) + values[0])  # a run of the sound, unbroken
    if not training:
        assert values[0] == 1


def test_crop_is_random_in_training_and_an_empty_sound_is_bad():
    wave = np.arange(100, dtype=np.int16)
    rng = np.random.default_rng(0)
    starts = {int(CropOrPad(10)(wave, rng).values[0]) for _ in range(500)}
    assert min(starts) == 0
    assert max(starts) == 90
    with pytest.raises(BadExample, match="empty"):
        CropOrPad(10)(np.zeros(0, np.int16), None)


@pytest.mark.parametrize("augmentation", [RandomSpeed(), RandomGain(), AddNoise(), RandomShift(50)])
def test_in_evaluation_an_augmentation_is_the_identity(augmentation):
    wave = tone(440)
    np.testing.assert_array_equal(augmentation(wave, None), wave)
    assert augmentation.random


def test_a_resampled_file_is_the_same_each_time():
    stream, time = io.BytesIO(), np.arange(800) / 8000
    soundfile.write(stream, (9000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16), 8000, format="WAV")
    first = DecodeAudio(16_000)(stream.getvalue(), None)
    for _ in range(3):
        np.testing.assert_array_equal(DecodeAudio(16_000)(stream.getvalue(), None), first)
