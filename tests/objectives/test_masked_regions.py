"""Masked regions: each loss by hand, region by region, as the papers' code has it; the cut and the mesh change
nothing."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models import Blocks, CoAttention, Regions, ViT
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import MaskedRegions, Pretrainer, View
from mmjax.objectives.contract import present
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.models import oracle
from tests.objectives.toys import WIDTH, ToyTower, assert_same, toy_batch

B, N, F, C = 16, 7, 5, 6
POST: dict[str, Any] = {"width": WIDTH, "heads": 2, "norm": "post", "norm_eps": 1e-12}
TOWER = Regions(features=F, blocks=Blocks(**POST, depth=0), joined="sum", area=True, whole=True)
STREAM = Blocks(**POST, depth=1, dropout=0.1, remat=None)
FUSION = CoAttention(streams={"text": STREAM, "regions": STREAM}, heads=2, shared=True, mlp=False, pooled="text")
BESIDE: dict[str, Any] = {"fusion": "both", "beside": ("text",)}
VILBERT = MaskedRegions(classes={"detected": C}, rate=0.4, **BESIDE)
LXMERT = MaskedRegions(
    features=True,
    classes={"objects": C, "kinds": 3, "detected": C},
    rate=0.4,
    zeroed=0.8,
    other=0.1,
    everywhere=True,
    **BESIDE,
)
ALONE = MaskedRegions(features=True, classes={"objects": C}, rate=0.4)  # without a fusion, of chosen regions alone
OBJECTIVES: dict[str, Any] = {"vilbert": VILBERT, "lxmert": LXMERT, "alone": ALONE}
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}


def batch() -> Any:
    """Regions of all numbers with their labels; rows 1 and 3 lack an input."""
    random = np.random.default_rng(1)
    found = {name: x for name, x in toy_batch(B).items() if "audio" not in name and "image" not in name}
    corners = np.sort(random.uniform(size=(B, N, 2, 2)), axis=2).reshape(B, N, 4)
    mask = np.arange(N) < random.integers(1, N + 1, (B, 1))
    shares = random.uniform(size=(B, N, C)) * (random.uniform(size=(B, N, C)) < 0.6)
    shares[..., 0] += 0.1
    found["regions"] = np.concatenate([2 * random.normal(size=(B, N, F)), corners], axis=2).astype(np.float32)
    found["regions_mask"] = mask
    found["regions_detected"] = np.where(mask[..., None], shares / shares.sum(axis=2, keepdims=True), 0)
    found["regions_objects"] = np.where(mask, random.integers(-1, C, (B, N)), -1).astype(np.int32)
    found["regions_objects_confidence"] = random.uniform(size=(B, N))
    found["regions_kinds"] = np.where(mask, random.integers(0, 3, (B, N)), -1).astype(np.int32)
    found["regions_valid"] = np.arange(B) != 1
    found["index"] += 3
    return {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in found.items()}


def build(microbatches: int = 1, **objectives: Any) -> Any:
    objectives = objectives or {"lxmert": LXMERT}
    fused = any(objective.fusion for objective in objectives.values())
    towers = {"regions": TOWER} | ({"text": ToyTower("text")} if fused else {})
    fusions = {"both": FUSION} if fused else {}
    return Pretrainer(towers, objectives, microbatches=microbatches, fusions=fusions)


def drawn(pretrainer: Any) -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), batch()))
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(build())


def gradient(pretrainer: Any) -> Any:
    return jax.jit(
        jax.value_and_grad(lambda variables, batch: pretrainer.apply(variables, batch, rngs=KEYS), has_aux=True)
    )


@pytest.fixture(scope="module")
def uncut() -> Any:
    return gradient(build())


@pytest.fixture(scope="module")
def whole(uncut: Any, variables: Any) -> Any:
    return uncut(variables, batch())


@pytest.mark.parametrize("microbatches", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_the_cut_changes_nothing(microbatches: int, variables: Any, whole: Any) -> None:
    assert_same(gradient(build(microbatches))(variables, batch()), whole, 1e-5)


@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_a_mesh_changes_nothing(shape: tuple[int, ...], variables: Any, whole: Any) -> None:
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build())(replicated, rows), whole, 1e-5)


def test_every_parameter_gets_a_gradient_and_what_a_row_lacks_has_no_effect(
    uncut: Any, variables: Any, whole: Any
) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(whole[1]):
        text = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), text
        # The bias of keys moves all logits alike, and nobody reads the words after their last block or the embedding.
        unread = any(part in text for part in ("bias", "block_1", "head", "norm_1"))
        assert np.abs(leaf).max() > 0 or unread, text
    spoilt = batch()
    for name in ("regions", "regions_detected", "regions_objects_confidence"):
        spoilt[name][1] = np.nan
    assert_same(uncut(variables, spoilt), whole, 1e-6)


@jax.jit
def fused(params: Any, tokens: Any) -> Any:
    return FUSION.apply({"params": params}, tokens)


def smooth_l1(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_losses_region_by_region(name: str) -> None:
    """Towers and fusion row by row, the head and all sums in float64 numpy."""
    objective, given = OBJECTIVES[name], present(batch())
    pretrainer = build(**{name: objective})
    variables = drawn(pretrainer)
    params = variables["params"]
    _, metrics = jax.jit(lambda v, batch: pretrainer.apply(v, batch, train=False, rngs=KEYS))(variables, batch())
    key = pretrainer.apply({}, method=lambda self: self.make_rng("mask"), rngs=KEYS)
    mask: Any = np.asarray(given["regions_mask"])
    rows: Any = np.asarray(given["regions"])
    masking = objective.corrupt
    seen, chosen = masking.draw(View("regions", masking).key(key), given["index"], rows[..., :F], mask)
    chosen = np.asarray(chosen)
    head = oracle.as64(params[f"objectives_{name}"])
    found: dict[str, list[float]] = {target: [] for target in ("features", *objective.classes)}
    hits: dict[str, list[bool]] = {target: [] for target in objective.classes}
    regions = 0
    for row in np.flatnonzero(given["regions_valid"]):
        own = slice(row, row + 1)
        x = np.concatenate([np.asarray(seen[own]), rows[own][..., F:]], axis=2)
        tokens = {"regions": TOWER.apply({"params": params["towers_regions"]}, x, mask[own], method="tokens")}
        if objective.fusion:
            one = (given["text"][own], given["text_mask"][own])
            words: Any = ToyTower("text").apply({"params": params["towers_text"]}, *one, method="tokens")
            y, real = words
            tokens["text"] = (y, real & bool(given["text_valid"][row]))
            tokens, _ = fused(params["fusions_both"], tokens)
        states = np.asarray(tokens["regions"][0][0, 1:], np.float64)
        for place in np.flatnonzero(mask[row]):
            regions += 1
            x = oracle.ACTIVATIONS["gelu"](oracle.dense(head["dense"], states[place]))
            x = oracle.layer_norm(head["norm"], x)
            if objective.features and chosen[row, place]:
                found["features"].append(smooth_l1(oracle.dense(head["features"], x) - rows[row, place, :F]).mean())
            for target in objective.classes:
                logs = log_softmax(oracle.dense(head[target], x))
                label: Any = np.float64(given[f"regions_{target}"][row, place])
                if label.ndim:
                    loss = sum(p * (np.log(p) - log) for p, log in zip(label, logs, strict=True) if p > 0)
                    hit = np.argmax(logs) == np.argmax(label)
                elif label < 0:
                    continue
                else:
                    sure = given.get(f"regions_{target}_confidence")
                    loss = -logs[int(label)] * (1 if sure is None else sure[row, place])
                    hit = np.argmax(logs) == label
                if chosen[row, place]:
                    hits[target].append(hit)
                if chosen[row, place] or objective.everywhere:
                    found[target].append(loss)
    total = 0.0
    for target, losses in found.items():
        if target == "features" and not objective.features:
            continue
        count = objective.rate * regions if objective.everywhere else len(losses)
        assert len(losses) > 10
        np.testing.assert_allclose(metrics[f"{name}/loss/{target}"], sum(losses) / count, rtol=2e-5)
        total += sum(losses) / count
        if target != "features":
            np.testing.assert_allclose(metrics[f"{name}/accuracy/{target}"], np.mean(hits[target]), rtol=1e-5)
    np.testing.assert_allclose(metrics[f"{name}/loss"], total, rtol=2e-5)


TOWERS: dict[str, Any] = {"regions": TOWER}
GIVEN = {"regions": Incoming((N, F + 4), "float32", ("objects", "objects_confidence"))}


@pytest.mark.parametrize(
    ("objective", "towers", "message"),
    [
        (MaskedRegions(features=True, fusion="both"), TOWERS, r"o has fusion='both' and beside=\(\): set both"),
        (MaskedRegions(), TOWERS, "o predicts nothing: set features=True"),
        (MaskedRegions(classes={"features": 3}), TOWERS, "o.classes has 'features'"),
        (MaskedRegions(classes={"kinds": 3}), TOWERS, "o learns 'kinds' .* gives objects, objects_confidence: let"),
        (
            MaskedRegions(features=True),
            {"regions": ViT(patch=2, size=4, blocks=STREAM, pooling="mean")},
            "towers.regions is a ViT, which takes no others in their place",
        ),
    ],
)
def test_what_doesn_t_fit_is_refused(objective: MaskedRegions, towers: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        objective.check_parts("o", towers, GIVEN)
    MaskedRegions(features=True, classes={"objects": C}).check_parts("o", TOWERS, GIVEN)
