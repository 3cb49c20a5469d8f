from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.kaldi_fbank import KaldiFbank
from mmjax.models.towers.log_mel import LogMel
from mmjax.models.towers.recurrent_audio import RecurrentAudio
from tests.models import oracle
from tests.models.towers.test_recurrent import reference

SIZES: dict[str, Any] = {"window": 200, "hop": 100, "fft": 256, "mels": 8}
LOG_MEL, KALDI = LogMel(**SIZES, mean=-8.0, std=4.0), KaldiFbank(**SIZES, mean=-8.0, std=4.0)
SMALL: dict[str, Any] = {"samples": 2000, "width": 6}


def waveforms(*shape: int) -> Any:
    return (np.random.default_rng(0).normal(size=shape) * 4000).astype(np.int16)


@pytest.mark.parametrize(("front", "frames"), [(LOG_MEL, 9), (KALDI, 7)])
def test_it_equals_float64_numpy_on_the_real_frames_alone(front, frames):
    tower = RecurrentAudio(spectrogram=front, **SMALL, bidirectional=True, depth=2)
    x = waveforms(1, 1250)
    mask = np.arange(1250)[None] < 850
    params = oracle.params_of(tower, x)
    tokens, real = oracle.apply(tower, params, x, mask, method="tokens")
    assert tower.grid(x) == (tokens.shape[1],)
    np.testing.assert_array_equal(real[0], np.arange(tokens.shape[1]) < frames)
    heard = np.asarray(jax.jit(front)(x[:, :850]), np.float64)[0]
    want = reference(oracle.as64(params)["params"], "lstm", heard)
    np.testing.assert_allclose(tokens[0, :frames], want, atol=3e-6)
    np.testing.assert_allclose(oracle.apply(tower, params, x, mask)[0], np.r_[want[-1, :3], want[0, 3:]], atol=3e-6)


@pytest.mark.parametrize("front", [LOG_MEL, KALDI])
@pytest.mark.parametrize("pooling", ["last", "max"])
def test_a_padded_waveform_gives_the_unpadded_ones_embedding(front, pooling):
    tower = RecurrentAudio(spectrogram=front, **SMALL, cell="gru", bidirectional=True, pooling=pooling, embed_dim=4)
    x = waveforms(2, 850)
    params = oracle.params_of(tower, x)
    want = oracle.apply(tower, params, x)
    for extra in (30, 900):  # within the last frame, and beyond it
        padded = np.pad(x, ((0, 0), (0, extra)), constant_values=77)  # whatever stands there
        mask = np.broadcast_to(np.arange(850 + extra) < 850, padded.shape)
        np.testing.assert_allclose(oracle.apply(tower, params, padded, mask), want, atol=2e-6)


def test_kept_frames_are_read_as_if_they_were_all():
    tower = RecurrentAudio(spectrogram=LOG_MEL, **SMALL)
    x = waveforms(1, 1000)
    params = oracle.params_of(tower, x)
    keep = np.array([[7, -1, 2, 4]])
    tokens, real = oracle.apply(tower, params, x, keep=keep, method="tokens")
    np.testing.assert_array_equal(real, [[True, False, True, True]])
    frames, _ = oracle.apply(tower, params, x, method="patches")
    want = reference(oracle.as64(params)["params"], "lstm", frames[0, [7, 2, 4]].astype(np.float64))
    np.testing.assert_allclose(tokens[0, [0, 2, 3]], want, atol=2e-6)


def test_parameters():
    tower = RecurrentAudio(spectrogram=LOG_MEL, samples=2000, width=6, depth=2, embed_dim=4)
    shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), waveforms(1, 500)))
    layers = 4 * (8 * 6 + 6 * 6 + 6) + 4 * (6 * 6 + 6 * 6 + 6)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == layers + 6 * 4


@pytest.mark.parametrize(
    ("front", "samples", "message"),
    [
        (LOG_MEL, 2100, "waveforms of 2100 samples are longer than samples=2000"),
        (KALDI, 150, "waveforms of 150 samples hold no frame of spectrogram.window=200"),
    ],
)
def test_errors_say_what_would_do(front, samples, message):
    tower = RecurrentAudio(spectrogram=front, **SMALL)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: tower.init(jax.random.key(0), waveforms(1, samples)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Incoming((2100,), "int16"), "longer than the 2000 of towers.audio.samples"),
        (Incoming((2000,), "int16", rate=8000), "towers.audio.spectrogram.rate=16000"),
        (Incoming((2000,), "int32"), r"towers.audio reads waveforms int16\[T\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(given, message):
    tower = RecurrentAudio(spectrogram=LOG_MEL, **SMALL)
    tower.check_input("towers.audio", Incoming((2000,), "int16", rate=16_000))
    with pytest.raises(UserError, match=message):
        tower.check_input("towers.audio", given)
