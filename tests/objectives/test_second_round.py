"""Pairs that are chosen from the whole batch: the dense loss in value and gradient, for any cut and on a mesh."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models.layers.dropout import drop
from mmjax.objectives.contract import named_key, present
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.objectives.numerics import unit
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.rounds import CAPTION, RATE, Distilling, Fusing, Matching, ToyFusion
from tests.objectives.toys import EMBED, SIZES, VOCAB, ToyTower, assert_same, stems, toy_batch

B = 16
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
OBJECTIVES = {
    "match": Matching(),
    "fuse": Fusing(),
    "distil": Distilling(),
    "captions": Contrastive(("text", "caption_2"), towers={"caption_2": "text"}, method="dense"),
}


def build(microbatches: int = 1, **changes: Any) -> Pretrainer:
    fields: dict[str, Any] = {
        "towers": {name: ToyTower(name) for name in ("image", "text")},
        "fusions": {"both": ToyFusion()},
        "objectives": OBJECTIVES,
    }
    fields |= {"microbatches": microbatches, **changes}
    return Pretrainer(**fields)


def batch() -> dict[str, np.ndarray]:
    """With another caption, and rows whose index isn't their place; two rows lack their picture or their text."""
    random, found = np.random.default_rng(3), toy_batch(B)
    found["caption_2"] = random.integers(5, VOCAB, (B, SIZES["text"]), np.int32)
    found["caption_2_mask"] = np.arange(SIZES["text"]) < random.integers(2, SIZES["text"] + 1, (B, 1))
    found["caption_2_valid"] = np.arange(B) != 7
    return {name: x for name, x in found.items() if "audio" not in name} | {"index": found["index"] + 9}


@pytest.fixture(scope="module")
def variables() -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(build().init, jax.random.key(0), batch()))["params"]
    one, other = (jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes) for _ in range(2))
    return {"params": one, "ema": other}


def gradient(pretrainer: Pretrainer) -> Any:
    return jax.jit(
        jax.value_and_grad(lambda variables, batch: pretrainer.apply(variables, batch, rngs=KEYS), has_aux=True)
    )


@pytest.fixture(scope="module")
def whole(variables: Any) -> Any:
    return gradient(build())(variables, batch())


def test_the_cut_changes_nothing(variables: Any, whole: Any) -> None:
    """Of pairs, fused tokens, teachers, shared towers, and what towers, fusions and objectives drop out."""
    assert_same(gradient(build(4))(variables, batch()), whole)


def test_a_mesh_and_two_microbatches_change_nothing(variables: Any, whole: Any) -> None:
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    rows = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build(2))(replicated, rows), whole)


def test_every_part_gets_a_gradient_and_the_average_none(whole: Any) -> None:
    (_, metrics), gradients = whole
    assert set(gradients["params"]) == {
        "towers_image", "towers_text", "fusions_both", "objectives_match", "objectives_fuse", "objectives_captions",
    }  # fmt: skip
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients["params"]):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradients["ema"]))
    assert metrics["match/pairs"] == 3 * B - 4  # what a row lacks spoils a right pair and a wrong one


@pytest.mark.parametrize("microbatches", [1, 2])
def test_each_view_is_encoded_once(microbatches: int) -> None:
    """The picture whole, and some of it by student and teacher; two texts: whoever reads, keeps or fuses them."""
    assert stems(build(microbatches), batch()) == 5
    two = {name: OBJECTIVES[name] for name in ("match", "fuse")}
    assert stems(build(microbatches, objectives=two), batch()) == 2


def by_hand(params: Any, batch: Any, key: Any) -> Any:
    """Matching's loss on the whole batch at once, from towers and fusion that are called here; and the rows."""
    given, tokens, embedded = present(batch), {}, {}
    for name in ("image", "text"):
        tower, own = ToyTower(name), {"params": params[f"towers_{name}"]}
        tokens[name] = tower.apply(own, given[name], given.get(f"{name}_mask"), method="tokens")
        embedded[name] = unit(tower.apply(own, *tokens[name], method="pool"))  # pyright: ignore
    rows = Matching().pairs((embedded["image"], embedded["text"]), batch, named_key(key, "pairs match"))
    places = {"text": rows[:, 0], "image": rows[:, 1]}
    index, own = batch["index"], named_key(key, "per_pair match")
    of_pair = lambda text, image: jax.random.fold_in(jax.random.fold_in(own, index[text]), index[image])  # noqa: E731
    keys = jax.vmap(of_pair)(places["text"], places["image"])
    met = {name: tuple(x[places[name]] for x in tokens[name]) for name in ("image", "text")}
    seen: Any = ToyFusion().apply({"params": params["fusions_both"]}, met, train=True, keys=keys)[1]
    head = params["objectives_match"]["match"]
    logits = (drop(seen, RATE, keys, 1) @ head["kernel"] + head["bias"])[:, 0]
    there = batch["text_valid"][places["text"]] & batch["image_valid"][places["image"]]
    losses = optax.sigmoid_binary_cross_entropy(logits, places["text"] == places["image"])
    return jnp.where(there, losses, 0).sum() / there.sum(), rows


def test_it_is_the_dense_loss(variables: Any, whole: Any) -> None:
    key = build().apply({}, method=lambda self: self.make_rng("mask"), rngs=KEYS)
    dense = jax.jit(jax.value_and_grad(by_hand, has_aux=True))
    alone = build(objectives={"match": Matching()}).apply
    loss_of = lambda params: alone({"params": params}, batch(), rngs=KEYS)[0]  # noqa: E731
    params = {
        name: x for name, x in variables["params"].items() if name.split("_")[1] in ("image", "text", "both", "match")
    }
    given = {name: jnp.asarray(x) for name, x in batch().items()}
    (expected, rows), expected_gradient = dense(params, given, key)
    loss, found = jax.jit(jax.value_and_grad(loss_of))(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(whole[0][1]["match/loss"], expected, rtol=1e-6)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(expected_gradient)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * norm), found, expected_gradient)
    assert (rows[B:, 0] != rows[B:, 1]).all()  # no negative is a partner
    assert len(np.unique(rows[B : 2 * B, 0])) > 2


def test_pairs_that_the_parts_do_not_divide_are_all_there_and_no_more(variables: Any) -> None:
    losses = []
    for microbatches in (1, 4):
        pretrainer = build(microbatches, objectives={"match": Matching(most=B + 3)})
        losses.append(jax.jit(pretrainer.apply)(variables, batch(), rngs=KEYS))
    (expected, one), (found, other) = losses
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert one["match/pairs"] == other["match/pairs"] > B - 3


class Wrong(Matching):
    def pairs(self, outputs: Any, batch: Any, key: Any) -> Any:
        return super().pairs(outputs, batch, key)[:, 0]


class Keeping(Matching):
    def kept(self) -> Any:
        return (CAPTION,)


@pytest.mark.parametrize(
    ("objective", "rngs", "message"),
    [
        (Wrong(), KEYS, r"objectives.match.pairs gives int32\[48\]; it gives row numbers \[pairs, 2\]"),
        (Keeping(), KEYS, r"objective 'match' keeps View\(input='caption_2'.* none of its views"),
        (Matching(fusion="bath"), KEYS, "'match' reads the fusion 'bath', .* the fusions are both; did you mean both?"),
        (Matching(), {}, r"'match' chooses its pairs at random and was given no key: pass rngs=\{'mask': key\}"),
    ],
)
def test_errors_name_what_is_wrong(objective: Any, rngs: Any, message: str, variables: Any) -> None:
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: build(objectives={"match": objective}).apply(variables, batch(), train=False, rngs=rngs))


def test_embeddings_of_an_input_come_from_the_tower_that_its_view_names(variables: Any) -> None:
    embed: Any = jax.jit(partial(build().apply, method="embed"))
    found = embed(variables, batch())
    assert list(build().inputs()) == ["image", "text", "caption_2"]
    assert found.keys() == build().inputs().keys()
    assert found["caption_2"].shape == (B, EMBED)
    as_text = {"text": batch()["caption_2"], "text_mask": batch()["caption_2_mask"]}
    expected = embed(variables, as_text)
    np.testing.assert_array_equal(found["caption_2"], expected["text"])
