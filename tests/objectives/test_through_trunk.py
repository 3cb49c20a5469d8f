"""Towers and a fusion of one multiway trunk: every view is encoded once, and neither cut nor mesh changes anything."""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.experiment.load import load_experiment
from mmjax.experiment.resume import unresumable
from mmjax.models import Blocks, JointDecoder, Merged, MultiwayTrunk, TextTransformer, ThroughTrunk, ViT
from mmjax.objectives import Contrastive, MaskedText, MaskedTogether, Matching, Pretrainer
from mmjax.objectives.contract import View
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.toys import STEM, assert_same, stems

B, D, LENGTH, VOCAB = 16, 8, 6, 24
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
SMALL: Any = {"width": D, "heads": 2, "mlp_dim": STEM, "remat": None, "dropout": 0.2}
WAYS = ("image", "text")
TRUNKS: dict[str, Any] = {
    "vlmo": MultiwayTrunk(blocks=Blocks(depth=2, layer_scale=0.1, **SMALL), ways=WAYS, joint=1, key_bias=False),
    "beit3": MultiwayTrunk(blocks=Blocks(depth=1, **SMALL), ways=WAYS, apart="all", sub_norm=True, kinds=False),
}
WORDS = MaskedText(vocab=VOCAB, rate=0.4, fusion="both", beside=("image",))


def build(kind: str, microbatches: int = 1, objectives: Any = None, dropout: float = 0.2) -> Any:
    trunk = TRUNKS[kind]
    trunk = trunk.clone(blocks=replace(trunk.blocks, dropout=dropout))
    towers = {
        "image": ViT(trunk=trunk, way="image", patch=4, size=8, cls=True, pooling="cls", embed_dim=4),
        "text": TextTransformer(trunk=trunk, way="text", vocab=VOCAB, length=LENGTH, pooling="cls", embed_dim=4),
    }
    objectives = objectives or {
        "contrast": Contrastive(("image", "text"), method="dense"),
        "match": Matching("both"),
        "words": WORDS,
    }
    fusion = ThroughTrunk(trunk=trunk, first="text", embed_dim=D, projection_tanh=True)
    return Pretrainer(towers, objectives, microbatches=microbatches, fusions={"both": fusion})


def batch() -> Any:
    """Two rows lack an input, and texts are of all lengths."""
    random = np.random.default_rng(0)
    mask = np.arange(LENGTH) < random.integers(2, LENGTH + 1, (B, 1))
    ids = np.where(mask, random.integers(5, VOCAB, (B, LENGTH)), 0).astype(np.int32)
    ids[:, 0] = 1
    return {
        "image": random.integers(0, 256, (B, 8, 8, 3), np.uint8),
        "image_valid": np.arange(B) != 1,
        "text": ids,
        "text_mask": mask,
        "text_valid": np.arange(B) != 2,
        "index": np.arange(B, dtype=np.uint32) + 9,
    }


def drawn(pretrainer: Any, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), batch()))
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


def gradient(pretrainer: Any) -> Any:
    return jax.jit(
        jax.value_and_grad(lambda variables, batch: pretrainer.apply(variables, batch, rngs=KEYS), has_aux=True)
    )


@pytest.fixture(scope="module", params=TRUNKS)
def whole(request: Any) -> Any:
    variables = drawn(build(request.param))
    return request.param, variables, gradient(build(request.param))(variables, batch())


def test_the_cut_changes_nothing(whole: Any) -> None:
    kind, variables, expected = whole
    microbatches = {"vlmo": 2, "beit3": 4}[kind]
    assert_same(gradient(build(kind, microbatches))(variables, batch()), expected, 1e-5)


def test_a_mesh_changes_nothing(whole: Any) -> None:
    kind, variables, expected = whole
    shape = {"vlmo": (2, 2, 2), "beit3": (8, 1, 1)}[kind]
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build(kind))(replicated, rows), expected, 1e-5)


def test_the_trunk_is_there_once_and_every_parameter_learns(whole: Any) -> None:
    kind, variables, (_, gradients) = whole
    held = [name for name, part in variables["params"].items() if "trunk" in part]
    assert held == ["towers_image"]
    ways = {"layers", "norm"} | ({"joint"} if kind == "vlmo" else {"norm_image", "norm_text"})
    assert set(variables["params"]["towers_image"]["trunk"]) <= ways
    assert set(variables["params"]["fusions_both"]) == {"projection"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        text = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), text
        assert np.abs(leaf).max() > 0 or "bias" in text, text


def test_views_go_through_the_trunk_once() -> None:
    """Products of the MLPs' first matrices, of which each pass has one for each way that it has, in each of the two
    groups of layers: picture 2, text 2; in the joint layers of a pass of both there is one, so both passes have 3."""
    assert stems(build("vlmo", dropout=0.0), batch()) == 2 + 2 + 3 + 3
    only = {"words": WORDS}
    assert stems(build("vlmo", objectives=only, dropout=0.0), batch()) == 3  # hidden words aren't encoded alone
    assert stems(build("beit3", dropout=0.0), batch()) == 1 + 1 + 2 + 2


def test_pairs_are_read_as_one_by_one() -> None:
    """The fronts are made by hand, and each pair goes through the trunk alone, without its padding."""
    objective: Any = Matching("both", negatives="random")
    pretrainer = build("vlmo", objectives={"match": objective})
    variables, given = drawn(pretrainer), batch()
    towers = {name: tower.clone(parent=None) for name, tower in pretrainer.towers.items()}
    params, fronts = variables["params"], {}
    trunk = {"trunk": params["towers_image"]["trunk"]}
    for name, tower in towers.items():
        own = {"params": params[f"towers_{name}"] | trunk}
        front = jax.jit(lambda own, x, mask, tower=tower: tower.apply(own, x, mask, method="front"))
        fronts[name] = front(own, given[name], given.get(f"{name}_mask"))
    tokens = pretrainer.apply(variables, given, "match", method="kept_tokens")
    for (found, mask), name in zip(tokens, WAYS, strict=True):
        there = given[f"{name}_valid"]  # ids of a text that isn't there are zeros
        np.testing.assert_allclose(found[there], fronts[name][0][there], rtol=0, atol=1e-6)
        assert not mask[~there].any()
    rows = [(i, j) for i in (0, 3, 4) for j in (0, 5)]
    fusion, head = params["fusions_both"]["projection"], params["objectives_match"]["match"]
    expected = []
    for image, text in rows:
        parts = [
            np.asarray(fronts[n][0][r])[np.asarray(fronts[n][1][r])] for n, r in (("image", image), ("text", text))
        ]
        x = jnp.concatenate(parts)[None]
        ways = tuple((name, len(part)) for name, part in zip(WAYS, parts, strict=True))
        out, _ = TRUNKS["vlmo"].apply({"params": trunk["trunk"]}, x, jnp.ones(x.shape[:2], bool), ways=ways)
        pooled = jnp.tanh(out[0, len(parts[0])] @ fusion["kernel"] + fusion["bias"])
        expected.append(pooled @ head["kernel"] + head["bias"])
    pairs = tuple((x[np.array([r[i] for r in rows])], m[np.array([r[i] for r in rows])])
                  for i, (x, m) in enumerate(tokens))  # fmt: skip
    found: Any = pretrainer.apply(variables, pairs, "match", method="matched")
    np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=1e-4)
    predicted: Any = pretrainer.apply(variables, given, "match", method="predict")
    np.testing.assert_allclose(predicted[0], found[0], rtol=0, atol=1e-4)


def test_a_text_without_its_picture_is_read_as_alone() -> None:
    """BEiT-3's ways have nothing in common: hidden words of a text alone have the same loss through the fusion."""
    fused = build("beit3", objectives={"words": WORDS})
    alone = build("beit3", objectives={"words": MaskedText(vocab=VOCAB, rate=0.4), "see": Contrastive(WAYS)})
    variables = drawn(fused)
    given = batch() | {"image_valid": np.zeros(B, bool)}
    towers = {"image": alone.towers["image"], "text": alone.towers["text"]}
    only = Pretrainer(towers, alone.objectives, fusions={})
    params = {name: part for name, part in variables["params"].items() if not name.startswith("fusions")}
    held = nn.unbox(jax.eval_shape(only.init, jax.random.key(0), given))["params"]
    params = {name: params.get(name, jax.tree.map(lambda x: jnp.zeros(x.shape), held[name])) for name in held}
    for name in ("towers_image", "towers_text"):
        params[name] = jax.tree.map(lambda x: jnp.zeros(x.shape), held[name]) | params[name]
    rngs = {"mask": KEYS["mask"]}
    through: Any = fused.apply(variables, given, train=False, rngs=rngs)[1]["words/loss"]
    whole: Any = only.apply({"params": params}, given, train=False, rngs=rngs)[1]["words/loss"]
    np.testing.assert_allclose(through, whole, rtol=1e-5)
    assert through != fused.apply(variables, batch(), train=False, rngs=rngs)[1]["words/loss"]


def test_towers_of_another_trunk_are_an_error() -> None:
    found = build("vlmo")
    other = found.clone(fusions={"both": ThroughTrunk(trunk=TRUNKS["beit3"])}, parent=None)
    with pytest.raises(UserError, match=r"'match' reads 'image' by the fusion 'both', .* doesn't hold that trunk"):
        jax.eval_shape(other.clone(objectives={"match": Matching("both")}).init, jax.random.key(0), batch())
    two = found.clone(
        fusions={"both": found.fusions["both"], "tokens": Merged(blocks=TRUNKS["vlmo"].blocks)},
        objectives={"match": Reading("both")},
        parent=None,
    )
    with pytest.raises(UserError, match="reads the fusions both, tokens, of which only some go through"):
        jax.eval_shape(two.init, jax.random.key(0), batch())


class Reading(Matching):
    """One that reads a fusion of tokens too."""

    def fusions(self) -> tuple[str, ...]:
        return ("both", "tokens")


def test_one_sequence_of_a_multiway_trunk_is_a_fusion_s() -> None:
    joint: Any = JointDecoder(blocks=Blocks(width=D, depth=1, heads=2))
    found = build("beit3", objectives={"masked": MaskedTogether(vocab=VOCAB, decoder=joint)})
    with pytest.raises(UserError, match="hold a MultiwayTrunk, through which a ThroughTrunk fusion goes"):
        jax.eval_shape(found.clone(fusions={}, parent=None).init, jax.random.key(0), batch())


def test_a_view_has_no_front_without_such_a_trunk() -> None:
    found = build("beit3", objectives={"match": Matching("both")})
    plain = ViT(blocks=Blocks(depth=1, **SMALL), patch=4, size=8, pooling="mean")
    other = found.clone(towers={**found.towers, "image": plain}, parent=None)
    with pytest.raises(UserError, match=r"towers.image doesn't hold that trunk"):
        jax.eval_shape(other.init, jax.random.key(0), batch())
    assert View("image").by == "image"


def test_a_run_goes_on_with_another_remat_of_the_trunk() -> None:
    """Towers and fusion name it, each by its own path."""
    name = "experiments/beit3.py:tiny"
    before = load_experiment(name)
    assert unresumable(before, load_experiment(name, ["towers.image.trunk.blocks.remat=full"])) == []
    assert len(unresumable(before, load_experiment(name, ["towers.image.trunk.blocks.heads=2"]))) == 3
