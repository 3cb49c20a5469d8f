from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.audio import AudioTransformer
from mmjax.models.towers.log_mel import LogMel
from tests.flat import flat
from tests.models import oracle

FRONT = LogMel(window=200, hop=100, fft=256, mels=8)
SMALL: dict[str, Any] = {"spectrogram": FRONT, "samples": 2000, "width": 16, "depth": 2, "heads": 2, "mlp_dim": 24}
STRIPS, SQUARES = (4, 8), (4, 4)


def waveforms(*shape):
    return (np.random.default_rng(0).normal(size=shape) * 4000).astype(np.int16)


@pytest.mark.parametrize("patch", [STRIPS, SQUARES])
def test_patches_cut_the_spectrogram(patch):
    tower = flat(AudioTransformer, **SMALL, patch=patch, pooling="mean", positions="sincos")
    x = waveforms(2, 1150)
    patches, real = oracle.apply(tower, {}, x, method="patches")
    mels = np.asarray(jax.jit(partial(FRONT, frames=12))(x))
    grid = tower.grid(x)
    assert grid == ((3,) if patch == STRIPS else (3, 2))
    assert real.all()
    corners = [(t, f) for t in range(0, 12, patch[0]) for f in range(0, 8, patch[1])]
    want = np.stack([mels[:, t : t + patch[0], f : f + patch[1]].reshape(2, -1) for t, f in corners], axis=1)
    np.testing.assert_allclose(patches, want, atol=1e-5)


@pytest.mark.parametrize(
    ("patch", "positions", "pooling"),
    [(STRIPS, "learned", "mean"), (SQUARES, "learned", "cls"), (SQUARES, "sincos", "map")],
)
def test_a_padded_waveform_gives_the_unpadded_ones_embedding(patch, positions, pooling):
    tower = flat(AudioTransformer, **SMALL, patch=patch, positions=positions, pooling=pooling, cls=pooling == "cls")
    x = waveforms(2, 850)
    params = oracle.params_of(tower, x)
    want = oracle.apply(tower, params, x)
    for extra in (30, 900):  # within the last patch, and beyond it
        padded = np.pad(x, ((0, 0), (0, extra)), constant_values=77)  # whatever stands there
        mask = np.broadcast_to(np.arange(850 + extra) < 850, padded.shape)
        np.testing.assert_allclose(oracle.apply(tower, params, padded, mask), want, atol=3e-6)


def test_a_patch_is_real_if_one_of_its_frames_is():
    tower = flat(AudioTransformer, **SMALL, patch=SQUARES, pooling="mean", positions="sincos")
    mask = np.arange(2000) < np.array([[0], [1], [400], [401], [2000]])
    _, real = oracle.apply(tower, {}, waveforms(5, 2000), mask, method="patches")
    np.testing.assert_array_equal(real.sum(axis=1), [0, 2, 2, 4, 10])


def test_kept_patches_are_those_of_a_stack_on_them_alone():
    tower = flat(AudioTransformer, **SMALL, patch=STRIPS, pooling="mean", positions="sincos", cls=True)
    x = waveforms(2, 2000)
    mask = np.arange(2000) < np.array([[900], [2000]])
    params = oracle.params_of(tower, x)
    keep = np.array([[2, 0, -1, 4], [3, 1, 4, -1]])
    tokens, real = oracle.apply(tower, params, x, mask, keep=keep, method="tokens")
    np.testing.assert_array_equal(real, [[True, True, True, False, False], [True, True, True, True, False]])
    for row in range(2):
        ids = keep[row][real[row, 1:]]
        alone, _ = oracle.apply(tower, params, x[row][None], mask[row][None], keep=ids[None], method="tokens")
        np.testing.assert_allclose(tokens[row][real[row]], alone[0], atol=2e-6)


def test_equals_float64_numpy():
    tower = flat(AudioTransformer, **SMALL, patch=STRIPS, pooling="mean", embed_dim=8)
    x = waveforms(2, 2000)
    params = oracle.params_of(tower, x)
    p = oracle.as64(params)["params"]
    got = oracle.apply(tower, params, x)
    patches = np.asarray(jax.jit(FRONT)(x), np.float64).reshape(2, 5, 32)
    for row in range(2):
        tokens = oracle.transformer(p["transformer"], oracle.dense(p["stem"], patches[row]) + p["position"])
        np.testing.assert_allclose(got[row], tokens.mean(0) @ p["projection"]["kernel"], atol=5e-5)


def test_audio_mae_parameters():
    tower = AudioTransformer(
        spectrogram=LogMel(mels=128, fft=1024),
        patch=(16, 16),
        samples=163_840,
        blocks=Blocks(width=768, depth=12, heads=12),
        positions="sincos",
        cls=True,
        pooling="mean",
    )
    variables = jax.eval_shape(lambda: tower.init(jax.random.key(0), np.zeros((1, 163_840), np.int16)))
    head = 768 * 527 + 527
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) + head == 85_659_407


@pytest.mark.parametrize(
    ("patch", "samples", "message"),
    [
        ((4, 3), 2000, r"patch=\(4, 3\): 3 bands don't divide the 8 mels"),
        (STRIPS, 2500, r"a grid of \(7,\) patches is larger than the \(5,\) that learned positions are kept for"),
    ],
)
def test_errors_say_what_would_do(patch, samples, message):
    tower = flat(AudioTransformer, **SMALL, patch=patch, pooling="mean")
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: tower.init(jax.random.key(0), waveforms(1, samples)))


OVERLAPPING: dict[str, Any] = SMALL | {"patch": (4, 4), "stride": (3, 2)}


def test_overlapping_patches_cut_the_spectrogram():
    tower = flat(AudioTransformer, **OVERLAPPING, pooling="mean", positions="sincos")
    x = waveforms(2, 1150)
    patches, real = oracle.apply(tower, {}, x, method="patches")
    mels = np.asarray(jax.jit(FRONT)(x))
    assert tower.grid(x) == (3, 3)  # of 12 frames and 8 bands: the last two frames make no whole patch
    assert real.all()
    corners = [(t, f) for t in (0, 3, 6) for f in (0, 2, 4)]
    want = np.stack([mels[:, t : t + 4, f : f + 4].reshape(2, -1) for t, f in corners], axis=1)
    np.testing.assert_allclose(patches, want, atol=1e-5)


def test_a_padded_waveform_gives_the_unpadded_ones_embedding_with_overlap_too():
    tower = flat(AudioTransformer, **OVERLAPPING, pooling="pair", cls=True, distill=True)
    x = waveforms(2, 1150)
    params = oracle.params_of(tower, x)
    want = oracle.apply(tower, params, x)
    for extra in (30, 850):
        padded = np.pad(x, ((0, 0), (0, extra)), constant_values=77)
        mask = np.broadcast_to(np.arange(1150 + extra) < 1150, padded.shape)
        np.testing.assert_allclose(oracle.apply(tower, params, padded, mask), want, atol=3e-6)


def test_attended_padding_is_silence_up_to_the_full_length():
    tower = flat(AudioTransformer, **OVERLAPPING, attend_padding=True, pooling="pair", cls=True, distill=True)
    x, mask = waveforms(2, 1150), np.arange(1150) < np.array([[1150], [500]])
    params = oracle.params_of(tower, x)
    assert tower.grid(x) == tower.capacity()
    patches, real = oracle.apply(tower, params, x, mask, method="patches")
    assert real.all()
    np.testing.assert_allclose(patches[1, -1], FRONT.silence, rtol=1e-6)
    full = np.pad(x, ((0, 0), (0, 850)), constant_values=77)
    full_mask = np.pad(mask, ((0, 0), (0, 850)))
    want = oracle.apply(tower, params, full, full_mask)
    np.testing.assert_allclose(oracle.apply(tower, params, x, mask), want, atol=3e-6)


def test_two_tokens_come_first_and_their_mean_is_the_embedding():
    tower = flat(AudioTransformer, **OVERLAPPING, pooling="pair", cls=True, distill=True)
    x = waveforms(2, 2000)
    params = oracle.params_of(tower, x)
    p = params["params"]
    assert tower.prefix == 2
    assert p["position"].shape[0] == 2 + 6 * 3
    tokens, _ = oracle.apply(tower, params, x, method="tokens")
    np.testing.assert_allclose(oracle.apply(tower, params, x), (tokens[:, 0] + tokens[:, 1]) / 2, atol=1e-6)
    swapped = jax.tree.map(lambda leaf: leaf, params)  # the two are told apart by nothing but what they hold
    swapped["params"]["cls"], swapped["params"]["distill"] = p["distill"], p["cls"]
    swapped["params"]["position"] = p["position"][np.r_[1, 0, 2:20]]
    np.testing.assert_allclose(oracle.apply(tower, swapped, x), oracle.apply(tower, params, x), atol=3e-6)
    with pytest.raises(UserError, match="pooling='pair' needs distill=True"):
        oracle.params_of(flat(AudioTransformer, **OVERLAPPING, pooling="pair", cls=True), x)
