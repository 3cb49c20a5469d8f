from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from jax.sharding import PartitionSpec

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.convolutional import Convolutional, ConvolutionalAudio
from mmjax.models.towers.kaldi_fbank import KaldiFbank
from mmjax.models.towers.log_mel import LogMel
from tests.models import oracle

ACTIVATIONS = oracle.ACTIVATIONS | {"relu": lambda x: np.maximum(x, 0)}
SMALL: dict[str, Any] = {"channels": (4, 6), "embed_dim": 5}
FRONTS: dict[str, Any] = {"window": 200, "hop": 100, "fft": 256, "mels": 10, "mean": -8.0, "std": 4.0}
LOG_MEL, KALDI = LogMel(**FRONTS), KaldiFbank(**FRONTS)
AUDIO: dict[str, Any] = SMALL | {"spectrogram": LOG_MEL, "samples": 4000}


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 9, 14, 3)).astype(np.uint8)


def waveforms(*shape: int) -> Any:
    return (np.random.default_rng(0).normal(size=shape) * 4000).astype(np.int16)


class Reference:
    """One picture `[h w i]` at a time, in float64, by loops over cells."""

    def __init__(self, tower, variables):
        self.tower, self.p = tower, oracle.as64(variables)["params"]

    def convolve(self, p, x):
        half = self.tower.kernel // 2
        wide = np.pad(x, ((half, half), (half, half), (0, 0)))
        size = self.tower.kernel
        cells = [
            [np.einsum("yxi,yxio->o", wide[r : r + size, c : c + size], p["kernel"]) for c in range(x.shape[1])]
            for r in range(x.shape[0])
        ]
        return np.array(cells) + p["bias"]

    def normalise(self, p, x):
        size = x.shape[-1] // self.tower.groups
        groups = [x[..., c : c + size] for c in range(0, x.shape[-1], size)]
        return np.concatenate([(g - g.mean()) / np.sqrt(g.var() + 1e-5) for g in groups], -1) * p["scale"] + p["bias"]

    def cells(self, x):
        pool = {"max": np.max, "mean": np.mean}[self.tower.halving]
        for stage in range(len(self.tower.channels)):
            for place in range(self.tower.convolutions):
                name = f"stage{stage}_{place}"
                x = self.convolve(self.p["stages"][name], x)
                x = self.normalise(self.p["stages"][f"{name}_norm"], x) if self.tower.groups else x
                x = ACTIVATIONS[self.tower.activation](x)
            rows, columns = range(0, x.shape[0], 2), range(0, x.shape[1], 2)
            x = np.array([[pool(x[r : r + 2, c : c + 2], axis=(0, 1)) for c in columns] for r in rows])
        return x.reshape(-1, x.shape[-1])

    def embedding(self, cells):
        return {"max": np.max, "mean": np.mean}[self.tower.pooling](cells, axis=0) @ self.p["projection"]["kernel"]


FIELDS: list[dict[str, Any]] = [
    {},
    {"kernel": 5, "halving": "mean", "activation": "gelu", "pooling": "max"},
    {"convolutions": 2, "groups": 2, "activation": "gelu_tanh"},
]


@pytest.mark.parametrize("fields", FIELDS)
def test_it_equals_float64_numpy(pictures, fields):
    mean, std = (0.48, 0.45, 0.41), (0.27, 0.26, 0.28)
    tower = Convolutional(**SMALL, **fields, mean=mean, std=std)
    variables = oracle.params_of(tower, pictures)
    tokens, real = oracle.apply(tower, variables, pictures, method="tokens")
    embedding = oracle.apply(tower, variables, pictures)
    assert tower.grid(pictures) == (3, 4)  # 9 x 14, 5 x 7, 3 x 4
    assert real.shape == (2, 12)
    assert real.all()
    reference = Reference(tower, variables)
    for row in range(2):
        want = reference.cells((np.asarray(pictures[row], np.float64) / 255 - mean) / std)
        np.testing.assert_allclose(tokens[row], want, atol=1e-5 * np.abs(want).max())
        np.testing.assert_allclose(embedding[row], reference.embedding(want), atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(("front", "fields"), [(KALDI, FIELDS[0]), *((LOG_MEL, fields) for fields in FIELDS)])
def test_a_sound_equals_float64_numpy_on_its_real_frames_alone(front, fields):
    tower = ConvolutionalAudio(**(AUDIO | {"spectrogram": front}), **fields)
    x = waveforms(1, 2450)
    mask = np.arange(2450)[None] < 1350
    variables = oracle.params_of(tower, x)
    tokens, real = oracle.apply(tower, variables, x, mask, method="tokens")
    heard = np.asarray(jax.jit(front)(x[:, :1350]), np.float64)[0, :, :, None]
    assert len(heard) == (14 if front is LOG_MEL else 12)
    reference = Reference(tower, variables)
    want = reference.cells(heard)
    assert tower.grid(x) == ((7, 3) if front is LOG_MEL else (6, 3))
    np.testing.assert_array_equal(real[0], np.arange(real.shape[1]) < len(want))
    np.testing.assert_allclose(tokens[0, : len(want)], want, atol=2e-5 * np.abs(want).max())
    assert not tokens[0, len(want) :].any()
    embedding = oracle.apply(tower, variables, x, mask)
    np.testing.assert_allclose(embedding[0], reference.embedding(want), atol=2e-5 * np.abs(want).max())


# An odd number of frames, at first or after a stage.
@pytest.mark.parametrize(("samples", "fields"), [(850, FIELDS[0]), (1350, FIELDS[1]), (1350, FIELDS[2])])
def test_a_padded_waveform_gives_the_unpadded_ones_embedding(samples, fields):
    tower = ConvolutionalAudio(**AUDIO, **fields)
    x = waveforms(2, samples)
    variables = oracle.params_of(tower, x)
    want = oracle.apply(tower, variables, x)
    for extra in (30, 1400):  # within the last frame, and beyond the last cell
        padded = np.pad(x, ((0, 0), (0, extra)), constant_values=77)  # whatever stands there
        mask = np.broadcast_to(np.arange(samples + extra) < samples, padded.shape)
        np.testing.assert_allclose(oracle.apply(tower, variables, padded, mask), want, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("fields", FIELDS)
def test_an_example_of_nothing_is_zeros_and_has_a_gradient(fields):
    tower = ConvolutionalAudio(**AUDIO, **fields)
    x, nothing = waveforms(2, 900), np.zeros((2, 900), bool)
    variables = oracle.params_of(tower, x)

    def loss(variables):
        embedding = oracle.applied(tower, variables, x, nothing)
        return jnp.sum((embedding + 1) ** 2), embedding

    (_, embedding), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)
    assert not np.asarray(embedding).any()
    assert not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(gradient))  # NaN is true


def test_parameters():
    tower = Convolutional(channels=(64, 128, 256), convolutions=2, groups=32, embed_dim=512)
    shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8)))
    sides = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    want = sum(9 * i * o + o + 2 * o for i, o in sides) + 256 * 512
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == want
    sound = ConvolutionalAudio(channels=(6, 16), kernel=5, halving="mean", spectrogram=LOG_MEL, samples=4000)
    shapes = jax.eval_shape(lambda: sound.init(jax.random.key(0), waveforms(1, 4000)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 25 * 6 + 6 + 25 * 6 * 16 + 16
    assert (sound.embedding_size, tower.embedding_size) == (16, 512)


def test_initial_values_and_logical_axes(pictures):
    tower = Convolutional(channels=(32, 64), groups=4, embed_dim=8)
    made = jax.jit(lambda: tower.init(jax.random.key(0), pictures))
    specs = nn.get_partition_spec(jax.eval_shape(made))["params"]
    assert specs["stages"]["stage1_0"]["kernel"] == PartitionSpec(None, None, None, "embed")
    assert specs["stages"]["stage1_0"]["bias"] == PartitionSpec("embed")
    assert specs["stages"]["stage0_0_norm"]["scale"] == PartitionSpec("embed")
    assert specs["projection"]["kernel"] == PartitionSpec("embed", "joint")
    p = meta.unbox(made())["params"]["stages"]
    assert np.std(p["stage1_0"]["kernel"]) == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.03)
    assert p["stage0_0_norm"]["scale"].all()


def test_a_bfloat16_tower_gives_a_float32_embedding_near_the_exact_one():
    x, mask = waveforms(2, 1600), np.arange(1600) < np.array([[1600], [700]])
    tower, short = (
        ConvolutionalAudio(**AUDIO, groups=2, halving="mean", dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    variables = oracle.params_of(tower, x)
    tokens, _ = oracle.apply(short, variables, x, mask, method="tokens")
    assert tokens.dtype == jnp.bfloat16
    embedding = oracle.apply(short, variables, x, mask)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, oracle.apply(tower, variables, x, mask), atol=0.03)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel": 4}, "kernel=4 has no middle: take an odd one, 5 say"),
        ({"groups": 4}, r"groups=4 does not divide channels=\(4, 6\); these do: \[1, 2\]"),
        ({"channels": ()}, r"channels=\(\) and convolutions=1: there must be a stage"),
        ({"activation": "rely"}, "activation='rely' is not one of relu, .* did you mean relu"),
        ({"halving": "sum"}, "halving='sum' is not one of mean, max"),
        ({"pooling": "last"}, "pooling='last' is not one of mean, max"),
    ],
)
def test_errors_say_what_would_do(pictures, fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: Convolutional(**(SMALL | fields)).init(jax.random.key(0), pictures))


def test_its_tokens_cannot_be_masked(pictures):
    keep = np.zeros((2, 1), np.int32)
    for tower, x in ((Convolutional(**SMALL), pictures), (ConvolutionalAudio(**AUDIO), waveforms(2, 900))):
        variables = oracle.params_of(tower, x)
        with pytest.raises(UserError, match=f"a {type(tower).__name__} has no patches that could be masked"):
            oracle.apply(tower, variables, x, keep=keep, method="tokens")


@pytest.mark.parametrize(
    ("tower", "fits", "given", "message"),
    [
        (Convolutional(**SMALL), Incoming((9, 14, 3), "uint8"), Incoming((9, 14), "uint8"), "towers.x reads pictures"),
        (
            ConvolutionalAudio(**AUDIO),
            Incoming((4000,), "int16", rate=16_000),
            Incoming((4001,), "int16"),
            "longer than the 4000 of towers.x.samples",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tower, fits, given, message):
    tower.check_input("towers.x", fits)
    with pytest.raises(UserError, match=message):
        tower.check_input("towers.x", given)


def test_waveforms_that_are_too_long_are_refused():
    with pytest.raises(UserError, match="waveforms of 4001 samples are longer than samples=4000"):
        jax.eval_shape(lambda: ConvolutionalAudio(**AUDIO).init(jax.random.key(0), waveforms(1, 4001)))
