"""What every tower owes to a row of zeros in which nothing is real: numbers, and a gradient that is one."""

import operator
from functools import reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models.decoders.patches import Decoder
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.pooling import POOLINGS, AttentionPool
from mmjax.models.towers.audio import AudioTransformer
from mmjax.models.towers.convolutional import Convolutional, ConvolutionalAudio
from mmjax.models.towers.divided import DividedViT
from mmjax.models.towers.factorised import FactorisedViT
from mmjax.models.towers.frames import Frames
from mmjax.models.towers.kaldi_fbank import KaldiFbank
from mmjax.models.towers.log_mel import LogMel
from mmjax.models.towers.recurrent import Recurrent
from mmjax.models.towers.recurrent_audio import RecurrentAudio
from mmjax.models.towers.resnet import ResNet
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.tubelets import TubeletViT
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contract import selected
from mmjax.objectives.masking import EMPTY
from tests.flat import flat

SIZE: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2}
ROWS = np.array([True, False])  # the second has nothing
IDS, WORDS = np.array([[5, 6, 7], [0, 0, 0]], np.int32), np.array([[1, 1, 0], [0, 0, 0]], bool)
WAVES = np.where(ROWS[:, None], np.arange(640) % 97, 0).astype(np.int16)
HEARD = np.broadcast_to(ROWS[:, None], WAVES.shape)
PIXELS = np.where(ROWS[:, None, None, None], np.arange(32 * 32 * 3).reshape(32, 32, 3) % 251, 0).astype(np.uint8)
FRONT: dict[str, Any] = {"fft": 512, "mels": 8, "fmin": 100.0}
LOG_MEL = flat(AudioTransformer, spectrogram=LogMel(**FRONT), patch=(1, 4), samples=640, pooling="mean", **SIZE)
KALDI = flat(AudioTransformer, spectrogram=KaldiFbank(**FRONT), patch=(1, 8), samples=640, pooling="max", **SIZE)
VIDEO = np.where(ROWS[:, None, None, None, None], np.arange(4 * 8 * 8 * 3).reshape(4, 8, 8, 3) % 251, 0).astype(
    np.uint8
)
WATCHED = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
CLIP: dict[str, Any] = {"blocks": Blocks(**SIZE), "patch": (2, 4, 4), "frames": 4, "size": 8}
FRAME = flat(ViT, patch=4, size=8, cls=True, pooling="cls", **SIZE)
KEPT = np.array([[0, 2], [EMPTY, EMPTY]], np.int32)
TOWERS: list[tuple[Any, tuple[Any, ...], np.ndarray | None]] = [
    (flat(ViT, patch=16, size=32, pooling="mean_sqrt", positions="rotary", **SIZE), (PIXELS,), KEPT),
    (flat(ViT, patch=16, size=32, pooling="map", norm="post", dtype="float16", **SIZE), (PIXELS,), KEPT),
    (flat(TextTransformer, vocab=9, length=3, pre_norm=True, causal=True, **SIZE), (IDS, WORDS), None),
    (flat(TextTransformer, vocab=9, length=3, pooling="mean_weighted", dtype="bfloat16", **SIZE), (IDS, WORDS), KEPT),
    (LOG_MEL, (WAVES, HEARD), KEPT),
    (KALDI, (WAVES, HEARD), None),
    (ResNet(layers=(1, 1, 1, 1), width=2, heads=2, size=32, embed_dim=4), (PIXELS,), None),
    (Recurrent(vocab=9, length=3, width=8, depth=2, bidirectional=True), (IDS, WORDS), None),
    (Recurrent(vocab=9, length=3, width=8, cell="gru", pooling="max", dtype="bfloat16"), (IDS, WORDS), KEPT),
    (RecurrentAudio(spectrogram=LogMel(**FRONT), samples=640, width=8, pooling="mean"), (WAVES, HEARD), KEPT),
    (Convolutional(channels=(4, 4), groups=2, embed_dim=4), (PIXELS,), None),
    (ConvolutionalAudio(spectrogram=LogMel(**FRONT), samples=640, channels=(4, 4), groups=2), (WAVES, HEARD), None),
    (TubeletViT(**CLIP, cls=True, pooling="map"), (VIDEO, WATCHED), KEPT),
    (DividedViT(**CLIP, cls=True, pooling="patches", positions="rotary"), (VIDEO, WATCHED), None),
    (FactorisedViT(**CLIP, temporal=Blocks(**SIZE), cls=True, pooling="cls"), (VIDEO, WATCHED), None),
    (Frames(frame=FRAME, patch_tokens=True, blocks=Blocks(**SIZE), frames=4, unit=True), (VIDEO, WATCHED), None),
]


def total(*arrays: Any) -> Any:
    """Of valid rows alone, so that the others have a gradient of zero to hand back."""
    return reduce(
        operator.add, (jnp.sum(jnp.square(selected(jnp.asarray(ROWS), x).astype(jnp.float32))) for x in arrays)
    )


def test_no_tower_makes_nan_of_a_row_of_nothing_nor_of_its_gradient() -> None:
    variables = [
        nn.unbox(jax.eval_shape(tower.init, jax.random.key(0), *inputs)) for tower, inputs, _ in TOWERS
    ]  # drawn by numpy: init would take as long to compile as all that follows
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: random.normal(scale=0.3, size=x.shape).astype(x.dtype) ** 2, variables)

    def losses(variables: Any) -> tuple[Any, Any]:
        found = []
        for (tower, inputs, keep), held in zip(TOWERS, variables, strict=True):

            def encode(tower: Any, inputs: Any = inputs, keep: Any = keep) -> Any:
                tokens, real = tower.tokens(*inputs, keep=keep, train=isinstance(tower, ResNet))
                return tokens, tower.pool(tokens, real)

            found.append(tower.apply(held, method=encode, mutable=["batch_stats"])[0])
        return total(*jax.tree.leaves(found)), found

    (loss, found), gradients = jax.jit(jax.value_and_grad(losses, has_aux=True))(variables)
    assert loss > 0
    for leaf in jax.tree.leaves((found, gradients)):
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


def test_no_pooling_makes_nan_where_nothing_is_real_nor_of_its_gradient() -> None:
    tokens, nothing = jnp.zeros((2, 3, 4)), jnp.zeros((2, 3), bool)
    head = AttentionPool(heads=2, mlp_dim=4)
    shapes = nn.unbox(jax.eval_shape(head.init, jax.random.key(0), tokens, nothing))
    held: Any = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), shapes)
    poolings: dict[str, Any] = POOLINGS | {"map": lambda tokens, mask: head.apply(held, tokens, mask)}

    def values(tokens: Any) -> Any:
        found = {name: jnp.sum(pooling(tokens, nothing)) for name, pooling in poolings.items()}
        return sum(found.values()), found

    (_, found), gradient = jax.jit(jax.value_and_grad(values, has_aux=True))(tokens)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found, gradient)))


def test_no_decoder_makes_nan_of_a_row_of_which_nothing_was_kept() -> None:
    tokens, real = jnp.zeros((2, 2, 16)), jnp.zeros((2, 2), bool)
    rest = (real, np.full((2, 2), EMPTY), (2, 2), 0, jnp.zeros((2, 4), bool))
    deeper: dict[str, Any] = SIZE | {"depth": 2}
    decoders: Any = [flat(Decoder, **SIZE), flat(Decoder, **deeper, window=(2, 2), shift=(1, 1))]
    shapes = [
        nn.unbox(jax.eval_shape(lambda key, d=d: d.init(key, tokens, *rest), jax.random.key(0))) for d in decoders
    ]
    held = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), shapes)

    def loss(held: Any) -> Any:
        return sum(jnp.sum(d.apply(variables, tokens, *rest)) for d, variables in zip(decoders, held, strict=True))

    for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(held)):
        assert np.isfinite(leaf).all()
