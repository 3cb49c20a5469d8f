"""Kaldi's filterbank beside one by loops, and torchaudio's; Hugging Face's is in `tests/interop/hf`."""

from functools import partial

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.towers.kaldi_fbank import KaldiFbank
from tests.models.golden.fields import FILE, KALDI


def reference(audio, front):
    """The same by loops, in float64, with a Fourier transform written out (Kaldi's feat/feature-window and mel)."""
    n, top = front.window, front.fmax or front.rate / 2
    angle = 2 * np.pi * np.outer(np.arange(front.fft // 2 + 1), np.arange(n)) / front.fft
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / (n - 1))
    window = window if front.shape == "hann" else window**0.85
    low, high = (1127 * np.log(1 + f / 700) for f in (front.fmin, top))
    step = (high - low) / (front.mels + 1)
    rows = []
    for i in range(1 + (len(audio) - n) // front.hop):
        frame = np.asarray(audio[i * front.hop : i * front.hop + n], np.float64) * front.full_scale / 32768
        frame = frame - frame.mean()
        frame = np.array([x - front.emphasis * frame[max(0, k - 1)] for k, x in enumerate(frame)]) * window
        power = (np.cos(angle) @ frame) ** 2 + (np.sin(angle) @ frame) ** 2
        bands = []
        for band in range(front.mels):
            left, middle, right = (low + step * (band + j) for j in range(3))
            total = 0.0
            for k, p in enumerate(power):
                m = 1127 * np.log(1 + k * front.rate / front.fft / 700)
                if left < m < right:
                    total += p * ((m - left) / step if m <= middle else (right - m) / step)
            bands.append(max(total, 2.0**-23))
        rows.append((np.log(bands) - front.mean) / front.std)
    return np.stack(rows)


@pytest.mark.parametrize(("shape", "full_scale"), [("hann", 1.0), ("povey", 32768.0)])
def test_equals_float64_reference(shape, full_scale):
    fields = {"window": 200, "hop": 80, "fft": 256, "mels": 20, "mean": -4.0, "std": 3.0, "fmax": 7000.0}
    front = KaldiFbank(**fields, shape=shape, full_scale=full_scale)
    audio = (np.random.default_rng(0).normal(size=(2, 1000)) * 5000 + 300).astype(np.int16)
    got = jax.jit(front)(audio)
    assert got.shape == (2, front.frames(1000), 20) == (2, 11, 20)
    np.testing.assert_allclose(got, np.stack([reference(row, front) for row in audio]), atol=2e-4)


@pytest.mark.parametrize("name", KALDI)
def test_equals_torchaudio(name):
    """To 1e-4 in all bands within 60 dB of a frame's loudest. What is quieter drowns in the rounding of a transform in
    float32: there theirs is up to 2.3e-4 from the exact numbers, and ours has to be as near."""
    golden, front = np.load(FILE), KaldiFbank(**KALDI[name])
    theirs, ours = golden[name], np.asarray(jax.jit(front)(golden["sound"][None])[0])
    heard = theirs > theirs.max(axis=1, keepdims=True) - 6 * np.log(10)
    assert ours.shape == theirs.shape
    assert 0.9 < heard.mean() < 0.97
    np.testing.assert_allclose(ours[heard], theirs[heard], rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours, reference(golden["sound"], front), rtol=0, atol=2.3e-4)


def test_frames_lie_within_the_sound():
    front = KaldiFbank()
    assert [front.frames(n) for n in (0, 399, 400, 559, 560)] == [0, 0, 1, 1, 2]
    assert front.frames(front.samples(7)) == 7 == front.frames(front.samples(8) - 1)
    frame_mask = jax.jit(front.frame_mask)
    for real in (0, 399, 400, 560, 600):
        mask = np.arange(600)[None] < real
        assert np.asarray(frame_mask(mask)).sum() == front.frames(real)
    beyond = jax.jit(partial(front, frames=4))(np.zeros((1, 600), np.int16))
    np.testing.assert_allclose(beyond, np.log(2.0**-23), rtol=1e-6)


def test_a_constant_and_a_band_between_two_bins_hold_the_floor():
    assert not KaldiFbank().filters().any(axis=0).all()  # AST's 128 bands: some of the lowest hear nothing
    quiet = jax.jit(KaldiFbank(mels=8))(np.full((1, 800), 1234, np.int16))
    np.testing.assert_allclose(quiet, np.log(2.0**-23), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 600}, "window=600 is longer than fft=512"),
        ({"shape": "hanning"}, "shape='hanning' is not one of hann, povey; did you mean hann"),
        ({"fmin": 9000.0}, "fmin=9000.0, fmax=8000.0 must be ordered"),
    ],
)
def test_errors_say_what_would_do(fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(KaldiFbank(**fields), np.zeros((1, 800), np.int16))
