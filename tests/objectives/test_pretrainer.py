"""The pretrainer: each view encoded once, the cut into microbatches unseen, and errors that name what is wrong."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.objectives.masked import MaskedImage, MaskedText
from mmjax.objectives.masking import Keep
from mmjax.objectives.microbatches import cut, glue
from mmjax.objectives.pretrainer import Pretrainer
from tests.flat import flat
from tests.objectives.toys import SIZES, VOCAB, ToyDecoder, ToyTower, assert_same, stems, toy_batch

B = 8
KEYS = {"mask": jax.random.key(5)}


def build(**changes: Any) -> Pretrainer:
    fields = {
        "towers": {modality: ToyTower(modality) for modality in SIZES},
        "objectives": {
            "image_text": Contrastive(("image", "text"), masking={"image": Keep(0.25)}),
            "text_audio": Contrastive(("text", "audio"), loss="sigmoid"),
            "masked_image": MaskedImage(decoder=ToyDecoder()),
            "masked_text": MaskedText(vocab=VOCAB),
        },
        "weights": {"image_text": 0.5, "masked_text": lambda step: 0.1 * step},
    }
    return Pretrainer(**(fields | changes))


def pairs(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Contrastive objectives alone, with the towers that they read."""
    return {
        "towers": {modality: ToyTower(modality) for modality in SIZES if any(modality in pair for pair in pairs)},
        "objectives": {"_".join(pair): Contrastive(pair) for pair in pairs},
        "weights": {},
    }


@pytest.fixture(scope="module")
def variables() -> Any:
    """Drawn by numpy into the shapes that init gives: init itself would take as long to compile as the step."""
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(build().init, jax.random.key(0), toy_batch(B)))
    return jax.tree.map(lambda x: jnp.asarray(0.5 * random.normal(size=x.shape), x.dtype), shapes)


def gradient(pretrainer: Pretrainer) -> Any:
    def loss(variables: Any, batch: Any, step: Any, rngs: Any) -> Any:
        return pretrainer.apply(variables, batch, step, rngs=rngs)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture(scope="module")
def step() -> Any:
    return gradient(build())


@pytest.fixture(scope="module")
def whole(step: Any, variables: Any) -> Any:
    return step(variables, toy_batch(B), 3, KEYS)


def test_microbatches_change_nothing(variables: Any, whole: Any) -> None:
    """With masked views, validity masks and a weight that is a function of the step."""
    assert_same(gradient(build(microbatches=4))(variables, toy_batch(B), 3, KEYS), whole)


def test_a_sharded_batch_in_two_microbatches_changes_nothing(variables: Any, whole: Any) -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    batch = jax.device_put(toy_batch(B), NamedSharding(mesh, PartitionSpec("data")))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh):
        assert_same(gradient(build(microbatches=2))(replicated, batch, 3, KEYS), whole, 2e-6)


def test_the_loss_is_the_weighted_sum_and_every_gradient_is_alive(whole: Any) -> None:
    (loss, metrics), gradients = whole
    weights = {"image_text": 0.5, "text_audio": 1, "masked_image": 1, "masked_text": 0.1 * 3}
    np.testing.assert_allclose(loss, sum(w * metrics[f"{name}/loss"] for name, w in weights.items()), rtol=1e-6)
    assert {"image_text/accuracy", "image_text/logit_scale", "masked_text/accuracy", "text_audio/logit_bias"} <= set(
        metrics
    )
    assert set(gradients["params"]) == {f"towers_{m}" for m in SIZES} | {f"objectives_{o}" for o in build().objectives}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_an_invalid_example_changes_nothing(step: Any, variables: Any, whole: Any) -> None:
    batch = toy_batch(B)
    for modality in SIZES:
        batch[modality][~batch[f"{modality}_valid"]] = 11
    assert_same(step(variables, batch, 3, KEYS), whole)


def test_nan_in_a_row_that_is_not_valid_is_in_no_loss_no_metric_and_no_gradient(step: Any, variables: Any) -> None:
    """To the bit: of every objective here, that reads embeddings or tokens. Ids outside the vocabulary make NaN too."""

    def filled(number: float, id: int) -> dict[str, np.ndarray]:
        batch = toy_batch(B)
        for modality in SIZES:
            batch[modality][~batch[f"{modality}_valid"]] = id if modality == "text" else number
        return batch

    expected = step(variables, filled(0, 0), 3, KEYS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    for number, id in ((np.nan, VOCAB), (np.inf, 2**31 - 1), (-np.inf, -VOCAB - 1)):
        jax.tree.map(np.testing.assert_array_equal, step(variables, filled(number, id), 3, KEYS), expected)


def test_a_batch_without_valid_examples_gives_zero(step: Any, variables: Any) -> None:
    nothing = {f"{modality}_valid": np.zeros(B, bool) for modality in SIZES}
    (loss, _), gradients = step(variables, toy_batch(B) | nothing, 3, KEYS)
    assert loss == 0
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("microbatches", [1, 2])
def test_each_distinct_view_is_encoded_once(microbatches: int) -> None:
    three = pairs(("image", "text"), ("text", "audio"), ("image", "audio"))
    assert stems(build(**three, microbatches=microbatches), toy_batch(B)) == 3
    shared = {"pair": Contrastive(("image", "text"), masking={"image": Keep(0.25)}),
              "masked": MaskedImage(decoder=ToyDecoder())}  # fmt: skip
    two = pairs(("image", "text")) | {"objectives": shared}
    assert stems(build(**two, microbatches=microbatches), toy_batch(B)) == 2
    apart = shared | {"masked": MaskedImage(decoder=ToyDecoder(), keep=0.5)}
    assert stems(build(**(two | {"objectives": apart}), microbatches=microbatches), toy_batch(B)) == 3


def test_masks_follow_the_key_and_the_index(step: Any, variables: Any, whole: Any) -> None:
    def run(batch: Any, key: Any) -> Any:
        return np.asarray(step(variables, batch, 3, {"mask": key})[0][1]["masked_image/loss"])

    batch, expected = toy_batch(B), whole[0][1]["masked_image/loss"]
    np.testing.assert_array_equal(run(batch, KEYS["mask"]), expected)
    assert abs(run(batch, jax.random.key(6)) - expected) > 1e-5
    order = np.random.default_rng(0).permutation(B)
    moved = {name: x[order] for name, x in batch.items()}  # each example keeps its index, so its mask too
    np.testing.assert_allclose(run(moved, KEYS["mask"]), expected, rtol=1e-6)


def embed(pretrainer: Pretrainer, *args: Any, **rngs: Any) -> Any:
    return jax.jit(lambda variables, batch: pretrainer.apply(variables, batch, method="embed", **rngs))(*args)


def test_embed_gives_unit_vectors_of_what_is_there(variables: Any) -> None:
    batch = toy_batch(B)
    alone = embed(build(), variables, {"text": batch["text"], "text_mask": batch["text_mask"]})
    assert set(alone) == {"text"}
    np.testing.assert_allclose(np.linalg.norm(alone["text"], axis=1), 1, rtol=1e-5)
    together = embed(build(), variables, batch)
    assert set(together) == set(SIZES)
    np.testing.assert_allclose(together["text"], alone["text"], rtol=1e-6)
    with pytest.raises(UserError, match="nothing to embed: the batch holds video"):
        embed(build(), variables, {"video": batch["image"]})


def test_embed_reads_whole_inputs_whatever_training_hides(variables: Any) -> None:
    """FLIP: evaluation sees all patches. Training's loss shows that it doesn't."""
    batch = toy_batch(B)
    seen = build(**pairs(("image", "text")))
    hidden = seen.clone(objectives={"image_text": Contrastive(("image", "text"), masking={"image": Keep(0.25)})})
    losses: Any = [jax.jit(p.apply)(variables, batch, 0, rngs=KEYS)[1]["image_text/loss"] for p in (hidden, seen)]
    assert abs(losses[0] - losses[1]) > 1e-4
    a, b = embed(hidden, variables, batch, rngs=KEYS), embed(seen, variables, batch)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def without(*names: str) -> dict[str, np.ndarray]:
    return {name: x for name, x in toy_batch(B).items() if name not in names}


@pytest.mark.parametrize(
    ("changes", "batch", "message"),
    [
        ({"microbatches": 3}, toy_batch(B), r"microbatches=3 .* batch of 8; 1, 2, 4, 8 would do"),
        ({"microbatches": 0}, toy_batch(B), r"microbatches=0 "),
        ({"weights": {"image_txt": 1.0}}, toy_batch(B), "'image_txt', which is no objective.*did you mean image_text"),
        ({}, without("audio"), "'text_audio' needs 'audio', which the batch lacks"),
        ({}, without("text_valid"), "'image_text' needs 'text_valid'"),
        ({}, without("index"), "needs 'index'"),
        (
            pairs(("image", "text")) | {"objectives": {"c": Contrastive(("image", "tekst"))}},
            toy_batch(B),
            "'c' reads 'tekst', which has no tower.*did you mean text",
        ),
        (
            {"objectives": {"c": Contrastive(("image", "text"))}, "weights": {}},
            toy_batch(B),
            "no objective reads audio",
        ),
    ],
)
def test_errors_name_what_is_wrong(changes: dict[str, Any], batch: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        jax.eval_shape(build(**changes).init, jax.random.key(0), batch)


def test_masks_without_a_key_are_an_error(variables: Any) -> None:
    with pytest.raises(UserError, match=r"mask image, text at random.*rngs=\{'mask': key\}"):
        build().apply(variables, toy_batch(B), train=False)


def test_cut_takes_rows_from_everywhere_and_glue_undoes_it() -> None:
    x = jnp.arange(8)
    np.testing.assert_array_equal(cut(x, 2), [[0, 2, 4, 6], [1, 3, 5, 7]])
    np.testing.assert_array_equal(glue(cut(x, 2)), x)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_frozen_tower_does_not_drop_out(microbatches):
    seen = set()

    class Watched(ToyTower):
        def tokens(self, x: Any, mask: Any = None, keep: Any = None, train: bool = False, keys: Any = None) -> Any:
            seen.add((self.modality, train))
            return super().tokens(x, mask, keep, train, keys)

    pair = {**pairs(("image", "text")), "towers": {name: Watched(name) for name in ("image", "text")}}
    pretrainer = build(**pair, microbatches=microbatches)
    variables = jax.eval_shape(pretrainer.init, jax.random.key(0), toy_batch(B))
    seen.clear()
    jax.eval_shape(lambda v: pretrainer.apply(v, toy_batch(B), train=True, still=("towers_image",)), variables)
    assert seen == {("image", False), ("text", True)}


def dropping(microbatches: int) -> Pretrainer:
    """Real towers that drop out, one of them from two views, with masking and token dropping on."""
    size: dict[str, Any] = dict(width=8, depth=2, heads=2, mlp_dim=16, dropout=0.3, embed_dim=8)
    return Pretrainer(
        towers={
            "image": flat(ViT, patch=4, size=16, pooling="mean", remat="full", **size),
            "text": flat(TextTransformer, vocab=32, length=8, **size),
        },
        objectives={
            "flip": Contrastive(("image", "text"), loss="sigmoid", masking={"image": Keep(0.5)}),
            "masked_text": MaskedText(vocab=32, rate=0.3),
        },
        microbatches=microbatches,
    )


def dropping_batch() -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        "image": random.integers(0, 256, (B, 16, 16, 3), dtype=np.uint8),
        "text": random.integers(5, 32, (B, 8), dtype=np.int32),
        "text_mask": np.arange(8) < random.integers(3, 9, (B, 1)),
        "image_valid": random.random(B) < 0.8,
        "text_valid": random.random(B) < 0.8,
        "index": np.arange(B, dtype=np.uint32),
    }


@pytest.fixture(scope="module")
def dropping_variables() -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(dropping(1).init, jax.random.key(0), dropping_batch()))
    return jax.tree.map(lambda x: 0.3 * random.normal(size=x.shape), shapes)


def dropping_gradient(microbatches: int) -> Any:
    def loss(variables: Any, dropout: Any) -> Any:
        keys = {"mask": jax.random.key(0), "dropout": dropout}
        return dropping(microbatches).apply(variables, dropping_batch(), 0, rngs=keys)

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def of(variables: Any, seed: int) -> Any:
        with jax.enable_x64(True):  # of the losses: the towers compute in fp32
            return jax.tree.map(np.asarray, gradient(variables, jax.random.key(seed)))

    return of


@pytest.fixture(scope="module")
def in_four() -> Any:
    return dropping_gradient(4)


def test_dropout_belongs_to_the_example_and_not_to_the_cut(dropping_variables: Any, in_four: Any) -> None:
    parts = in_four(dropping_variables, 1)
    assert_same(parts, dropping_gradient(1)(dropping_variables, 1), 3e-6)
    assert abs(in_four(dropping_variables, 2)[0][0] - parts[0][0]) > 1e-3  # it does drop out


def test_the_gradient_is_that_of_the_dropout_that_was_drawn(dropping_variables: Any, in_four: Any) -> None:
    """Finite differences at fixed keys: the recomputation in the backward pass drops what the first pass dropped."""
    gradient = in_four(dropping_variables, 1)[1]
    random = np.random.default_rng(2)
    for _ in range(3):
        way = jax.tree.map(lambda x: random.normal(size=x.shape), dropping_variables)

        def at(step: float, way: Any = way) -> Any:
            return in_four(jax.tree.map(lambda x, w: x + step * w, dropping_variables, way), 1)[0][0]

        h = 5e-3  # of fourth order: towers compute in fp32, which allows no small step
        slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        along = sum(jax.tree.leaves(jax.tree.map(np.vdot, gradient, way)))
        np.testing.assert_allclose(along, slope, rtol=1e-3)


def test_without_objectives_there_is_nothing_to_train():
    pretrainer = Pretrainer({"image": nn.Dense(3)}, {})
    with pytest.raises(UserError, match=r"objectives=\{\}: there is nothing to train"):
        pretrainer.init(jax.random.key(0), {"image": np.zeros((2, 4), np.float32)})
