"""M3AE's objective and the shared trunk, held to a plain version that encodes and decodes one example at a time."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from mmjax.errors import UserError
from mmjax.models.decoders.patches import Decoder
from mmjax.models.decoders.patches_and_words import JointDecoder
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.positions import sincos
from mmjax.models.layers.transformer import Transformer
from mmjax.models.towers.shared_trunk import Trunk
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contract import View
from mmjax.objectives.masked import MaskedImage, normalised_patches
from mmjax.objectives.masked_together import MaskedTogether
from mmjax.objectives.masking import Keep
from mmjax.objectives.pretrainer import Pretrainer

WIDTH, PATCH, SIZE, LENGTH, VOCAB, DECODER = 32, 4, 16, 6, 50, 16
BATCH = 6
KEY = jax.random.key(3)


def model(microbatches=1, trunk=None, keep_text=0.5, dropout=0.0):
    trunk = trunk or Trunk(blocks=Blocks(width=WIDTH, depth=2, heads=4))
    shared = {"trunk": trunk, "pooling": "cls", "positions": "sincos"}
    return Pretrainer(
        towers={
            "image": ViT(patch=PATCH, size=SIZE, **shared),
            "text": TextTransformer(vocab=VOCAB, length=LENGTH, token_std=1.0, **shared),
        },
        objectives={
            "masked": MaskedTogether(
                vocab=VOCAB,
                decoder=JointDecoder(blocks=Blocks(width=DECODER, depth=1, heads=2, dropout=dropout)),
                keep_text=keep_text,
            )
        },
        microbatches=microbatches,
    )


@pytest.fixture(scope="module")
def batch():
    """The last two examples lack their text and their picture."""
    draw = np.random.default_rng(0)
    lengths = np.array([6, 3, 6, 3, 6, 3])  # few: each is a program of its own in the plain version
    return {
        "image": draw.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
        "text": draw.integers(5, VOCAB, (BATCH, LENGTH), np.int32),
        "text_mask": (np.arange(LENGTH) < lengths[:, None]) & (np.arange(BATCH) != 4)[:, None],
        "image_valid": np.arange(BATCH) != 5,
        "text_valid": np.arange(BATCH) != 4,
        "index": np.arange(BATCH, dtype=np.uint32) + 7,
    }


@pytest.fixture(scope="module")
def variables(batch):
    """Drawn by numpy into the shapes that init gives: no bias, CLS or vector of a modality is zero or small."""
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(model().init, {"params": KEY, "mask": KEY}, batch))
    return jax.tree.map(lambda x: jnp.asarray(0.3 * random.normal(size=x.shape), x.dtype), shapes)


@pytest.fixture(scope="module")
def gradient():
    """Loss and metrics, and their gradient, of the model in one part."""

    def loss(variables, batch):
        return model().apply(variables, batch, rngs={"mask": KEY})

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture(scope="module")
def whole(gradient, variables, batch):
    return gradient(variables, batch)


@pytest.fixture(scope="module")
def one_by_one(variables, batch):
    """The loss by the paper's words, each example alone: sequences without padding, nothing masked."""
    params = jax.tree.map(np.asarray, variables["params"])
    image, text, objective = params["towers_image"], params["towers_text"], params["objectives_masked"]
    trunk, decoder = image["trunk"], objective["decoder"]
    encode = jax.jit(Transformer(blocks=Blocks(width=WIDTH, depth=2, heads=4)).apply)
    decode = jax.jit(Transformer(blocks=Blocks(width=DECODER, depth=1, heads=2)).apply)
    normalised, draw = jax.jit(normalised_patches), jax.jit(Keep.draw, static_argnums=0)
    errors, entropies = [], []
    bound = model().bind(variables, rngs={"mask": KEY})
    key = bound.make_rng("mask")
    for row in range(BATCH):
        parts = {}
        if batch["image_valid"][row]:
            cut = batch["image"][row].reshape(4, PATCH, 4, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(16, -1)
            pixels = (cut / 255 - 0.5) / 0.5
            full = pixels @ image["stem"]["kernel"] + image["stem"]["bias"] + sincos((4, 4), WIDTH) + image["kind"]
            parts["image"] = (0, 0.25, (4, 4), full, np.asarray(normalised(pixels.astype(np.float32))))
        if batch["text_valid"][row]:
            ids = batch["text"][row][batch["text_mask"][row]]
            full = text["token"]["embedding"][ids] + sincos((LENGTH,), WIDTH)[: len(ids)] + text["kind"]
            parts["text"] = (1, 0.5, (LENGTH,), full, ids)
        sequence, kept = [trunk["cls"][None]], {}
        for name, (_, share, _, full, _) in parts.items():
            mask = np.zeros((1, 16 if name == "image" else LENGTH), bool)
            mask[0, : len(full)] = True
            masking = Keep(share)
            view = View(name, masking)
            keep = np.asarray(draw(masking, view.key(key), batch["index"][row : row + 1], mask)[0])
            kept[name] = keep[keep >= 0]
            assert len(kept[name]) == np.ceil(share * len(full))
            sequence.append(full[kept[name]])
        encoded = np.asarray(encode({"params": trunk["transformer"]}, np.concatenate(sequence)[None]))[0]
        states = encoded @ decoder["stem"]["kernel"] + decoder["stem"]["bias"]
        sequence, begin = [states[:1]], 1
        for name, (number, _, grid, full, _) in parts.items():
            placed = np.tile(decoder["mask"][number], (len(full), 1))
            placed[kept[name]] = states[begin : begin + len(kept[name])]
            begin += len(kept[name])
            sequence.append(placed + sincos(grid, DECODER)[: len(full)] + decoder["kind"][number])
        decoded = np.asarray(decode({"params": decoder["transformer"]}, np.concatenate(sequence)[None]))[0, 1:]
        for name, (_, _, _, full, target) in parts.items():
            own, decoded = decoded[: len(full)], decoded[len(full) :]
            head = objective["pixels" if name == "image" else "words"]
            out = own @ head["kernel"] + head["bias"]
            hidden = np.setdiff1d(np.arange(len(full)), kept[name])
            if name == "image":
                errors += list(np.mean((out - target) ** 2, axis=-1)[hidden])
            else:
                entropies += list((logsumexp(out, axis=1) - out[np.arange(len(full)), target])[hidden])
    return np.mean(errors), np.mean(entropies)


@pytest.mark.parametrize("microbatches", [1, 3])
def test_each_example_alone(variables, batch, whole, one_by_one, microbatches):
    image, text = one_by_one
    parts = jax.jit(model(microbatches).apply)
    loss, metrics = whole[0] if microbatches == 1 else parts(variables, batch, rngs={"mask": KEY})
    np.testing.assert_allclose(metrics["masked/image_loss"], image, rtol=1e-5)
    np.testing.assert_allclose(metrics["masked/text_loss"], text, rtol=1e-5)
    np.testing.assert_allclose(loss, image + 0.5 * text, rtol=1e-5)


def test_a_decoders_dropout_is_of_training_and_belongs_to_the_example(variables, batch, whole):
    def loss(microbatches, train):
        made = model(microbatches, dropout=0.5)
        return jax.jit(partial(made.apply, train=train))(variables, batch, rngs={"mask": KEY})[0]

    plain = whole[0][0]
    np.testing.assert_allclose(loss(1, train=False), plain, rtol=1e-6)
    dropped = loss(1, train=True)
    assert abs(dropped - plain) > 1e-3
    np.testing.assert_allclose(loss(3, train=True), dropped, rtol=1e-5)


def test_what_is_padded_or_missing_changes_nothing(variables, batch, whole, gradient):
    """Nor do padded words and missing pictures get a gradient."""
    other = dict(batch, image=batch["image"].copy(), text=np.where(batch["text_mask"], batch["text"], 49))
    other["image"][5] = 200
    jax.tree.map(np.testing.assert_array_equal, gradient(variables, other), whole)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(whole[1]) if leaf.size > 1)


def test_a_tower_alone_is_the_sequence_without_the_other(variables, batch):
    vectors = jax.jit(lambda v, b: model().apply(v, b, method="embed"))(variables, batch)
    assert vectors["image"].shape == vectors["text"].shape == (BATCH, WIDTH)
    alone = jax.jit(lambda v, b: model().apply(v, b, method="embed"))(variables, {"image": batch["image"]})
    np.testing.assert_allclose(alone["image"], vectors["image"], atol=1e-6)


def test_first_losses(batch, gradient):
    """Nothing learned yet: ln(vocab) a word, a patch's variance of 1."""
    made = nn.unbox(jax.jit(model().init)({"params": jax.random.key(0), "mask": KEY}, batch))
    (_, metrics), _ = gradient(made, batch)
    assert abs(metrics["masked/text_loss"] - np.log(VOCAB)) < 0.1
    assert 0.9 < metrics["masked/image_loss"] < 2.5  # a random decoder's variance is added


def test_the_trunk_is_there_once(variables):
    assert "trunk" in variables["params"]["towers_image"]
    assert set(variables["params"]["towers_text"]) == {"token", "kind"}


def test_towers_without_a_common_trunk(batch):
    made = model()
    text = made.towers["text"].clone(trunk=Trunk(blocks=Blocks(width=WIDTH, depth=2, heads=4)))
    apart = made.clone(towers={**made.towers, "text": text})
    with pytest.raises(UserError, match=r"objective 'masked' encodes image, text together.*trunk=trunk"):
        apart.init({"params": KEY, "mask": KEY}, batch)


def test_a_tower_of_another_width_than_its_trunk(batch):
    made = model()
    image = made.towers["image"].clone(blocks=Blocks(width=64, depth=2, heads=4))
    with pytest.raises(UserError, match=r"blocks\.width=64, but trunk\.blocks\.width=32: set both alike, or leave out"):
        made.clone(towers={**made.towers, "image": image}).init({"params": KEY, "mask": KEY}, batch)


def test_pictures_alone_by_the_usual_objective(variables, batch):
    """The same tower under MAE's objective: the comparison that the paper makes."""
    made = model()
    alone = Pretrainer(
        towers={"image": made.towers["image"]},
        objectives={"masked": MaskedImage(decoder=Decoder(blocks=Blocks(width=DECODER, depth=1, heads=2)))},
    )
    shapes = nn.unbox(jax.eval_shape(alone.init, {"params": KEY, "mask": KEY}, batch))["params"]["towers_image"]
    assert jax.tree.structure(shapes) == jax.tree.structure(variables["params"]["towers_image"])


def test_what_the_trunk_decides_cannot_be_said_beside_it(batch):
    made = model()
    image = made.towers["image"].clone(blocks=Blocks(width=WIDTH, depth=2, heads=4, layer_scale=0.1, remat="full"))
    with pytest.raises(UserError, match=r"with a trunk a tower has no layer_scale=0.1, remat='full' of its own"):
        made.clone(towers={**made.towers, "image": image}).init({"params": KEY, "mask": KEY}, batch)
