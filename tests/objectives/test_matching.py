"""Matching: negatives follow their distribution and are never right; the cut and the mesh change nothing."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import stats

from mmjax.errors import UserError
from mmjax.models import Blocks, Cross, Merged
from mmjax.objectives import Matching, Pretrainer
from mmjax.objectives.contract import named_key
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.objectives.matching import drawn_columns, same_rows
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.toys import VOCAB, WIDTH, ToyTower, assert_same, stems, toy_batch

B = 16
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
BLOCKS = Blocks(width=WIDTH, depth=1, heads=2, dropout=0.2)
FUSIONS = {"read": Cross(reader="text", blocks=BLOCKS), "both": Merged(blocks=BLOCKS, embed_dim=5, drop_inputs=0.2)}
OBJECTIVES: dict[str, Any] = {
    "contrast": Contrastive(("image", "text"), method="dense"),
    "match": Matching("read"),
    "easy": Matching("both", negatives="random", within=8),
}


def batch() -> Any:
    """Rows 3 and 8 have one caption, rows 2 and 11 are of one example; two rows lack a part."""
    found = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    for name in ("text", "text_mask"):
        found[name][8] = found[name][3]
    found["id"] = np.stack([np.arange(B), np.ones(B)], axis=1).astype(np.uint32)
    found["id"][11] = found["id"][2]
    return found | {"index": found["index"] + 9}


def build(microbatches: int = 1, objectives: Any = OBJECTIVES) -> Any:
    read = {one.fusion for one in objectives.values() if isinstance(one, Matching)}
    return Pretrainer(
        {name: ToyTower(name) for name in ("image", "text")},
        objectives,
        microbatches=microbatches,
        fusions={name: FUSIONS[name] for name in FUSIONS if name in read},
    )


@pytest.fixture(scope="module")
def variables() -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(build().init, jax.random.key(0), batch()))
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


def gradient(pretrainer: Any) -> Any:
    return jax.jit(
        jax.value_and_grad(lambda variables, batch: pretrainer.apply(variables, batch, rngs=KEYS), has_aux=True)
    )


@pytest.fixture(scope="module")
def whole(variables: Any) -> Any:
    return gradient(build())(variables, batch())


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


def test_every_parameter_gets_a_gradient_and_the_views_are_encoded_once(whole: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(whole[1]):
        text = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), text
        # The bias of keys moves all logits alike.
        assert np.abs(leaf).max() > 0 or "bias" in text, text
    assert stems(build(), batch()) == 2


def embeddings(variables: Any) -> tuple[Any, Any]:
    found = build().apply(variables, batch(), method="embed")
    return found["image"], found["text"]


def test_the_loss_is_that_of_its_pairs_one_by_one(variables: Any) -> None:
    """The towers, the fusion and the head are called by hand for each pair that `pairs` names."""
    objective = OBJECTIVES["match"]
    alone = build(objectives={"match": objective})
    params = variables["params"]
    held = {name: params[name] for name in ("towers_image", "towers_text", "fusions_read", "objectives_match")}
    loss, metrics = alone.apply({"params": held}, batch(), train=False, rngs={"mask": KEYS["mask"]})
    key = alone.apply({}, method=lambda self: self.make_rng("mask"), rngs=KEYS)
    given = batch()
    rows = np.asarray(objective.pairs(embeddings(variables), given, named_key(key, "pairs match")))
    losses, hits = [], []
    for image, text in rows:
        if image < 0 or text < 0 or not (given["image_valid"][image] and given["text_valid"][text]):
            continue
        tokens = {}
        for name, row in (("image", image), ("text", text)):
            mask = given.get(f"{name}_mask")
            own = {"params": params[f"towers_{name}"]}
            one = (given[name][row : row + 1], None if mask is None else mask[row : row + 1])
            tokens[name] = ToyTower(name).apply(own, *one, method="tokens")
        _, seen = FUSIONS["read"].apply({"params": params["fusions_read"]}, tokens)  # pyright: ignore
        head = params["objectives_match"]["match"]
        logits = seen @ head["kernel"] + head["bias"]
        losses.append(optax.softmax_cross_entropy_with_integer_labels(logits[0], int(image == text)))
        hits.append((logits[0, 1] > logits[0, 0]) == (image == text))
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics["match/accuracy"], np.mean(hits), rtol=1e-6)
    assert metrics["match/pairs"] == len(losses) == 3 * B - 4  # what a row lacks spoils a right pair and a wrong one


def right(given: Any) -> np.ndarray:
    """Which rows are right for each other, pair by pair."""
    texts = [tuple(row[mask]) for row, mask in zip(given["text"], given["text_mask"], strict=True)]
    ids = [tuple(row) for row in given["id"]]
    return np.array([[i == j or texts[i] == texts[j] or ids[i] == ids[j] for j in range(B)] for i in range(B)])


@pytest.mark.parametrize("objective", [Matching("read"), Matching("read", within=4), OBJECTIVES["easy"]])
def test_negatives_follow_their_distribution_and_are_never_right(objective: Any, variables: Any) -> None:
    """10,000 draws for each row, against the softmax of the similarities over the rows that are left: chi-squared."""
    given, draws = batch(), 10_000
    image, text = embeddings(variables)
    images, texts = np.asarray(image, np.float64), np.asarray(text, np.float64)
    pairs = jax.jit(jax.vmap(lambda key: objective.pairs((image, text), given, key)))
    rows = np.asarray(pairs(jax.random.split(jax.random.key(1), draws)))
    assert rows.shape == (draws, 3 * B, 2)
    np.testing.assert_array_equal(rows[0, :B], np.stack([np.arange(B)] * 2, axis=1))
    valid = given["image_valid"][:, None] & given["text_valid"][None]
    near = np.arange(B) // (objective.within or B)
    allowed = valid & ~right(given) & (near[:, None] == near)
    logits = images @ texts.T / objective.temperature if objective.negatives == "hard" else np.zeros((B, B))
    smallest = []
    for first, column, mine, scores in ((B, 1, allowed, logits), (2 * B, 0, allowed.T, logits.T)):
        for row in range(B):
            np.testing.assert_array_equal(rows[:, first + row, 1 - column], row)
            found = np.bincount(rows[:, first + row, column] + 1, minlength=B + 1)
            if not mine[row].any():
                assert found[0] == draws
                continue
            assert found[1:][~mine[row]].sum() == found[0] == 0
            share = np.exp(scores[row] - scores[row].max()) * mine[row]
            expected = draws * share / share.sum()
            often = expected >= 5
            observed = np.append(found[1:][often], found[1:][~often].sum())
            wanted = np.append(expected[often], expected[~often].sum())
            observed, wanted = observed[wanted > 0], wanted[wanted > 0]
            if len(wanted) > 1:
                smallest.append(stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue)
    assert min(smallest) > 1e-3 / len(smallest)
    assert len(smallest) > B


def test_a_row_without_a_wrong_partner_draws_none() -> None:
    allowed = jnp.array([[False, False], [True, False]])
    np.testing.assert_array_equal(drawn_columns(jax.random.key(0), jnp.zeros((2, 2)), allowed), [-1, 0])


def test_equal_rows_have_equal_numbers() -> None:
    random = np.random.default_rng(0)
    rows = random.integers(-1, 2, (60, 4)).astype(np.int32)
    numbers = np.asarray(same_rows(jnp.asarray(rows)))
    np.testing.assert_array_equal(numbers[:, None] == numbers, (rows[:, None] == rows).all(axis=2))


@pytest.mark.slow
def test_it_learns_to_tell_right_from_wrong() -> None:
    """Texts that name their picture: two towers' embeddings aside, the fusion alone must find it out."""
    random = np.random.default_rng(0)
    given = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    codes = random.permutation(VOCAB - 5)[:B] + 5
    given["text"] = np.where(given["text_mask"], codes[:, None], 0).astype(np.int32)
    given["image"] = np.broadcast_to(random.normal(size=(B, 1, 5)), given["image"].shape).astype(np.float32)
    given |= {f"{name}_valid": np.ones(B, bool) for name in ("image", "text")}
    pretrainer = build(objectives={"contrast": OBJECTIVES["contrast"], "match": OBJECTIVES["match"]})
    params = nn.unbox(jax.jit(pretrainer.init)({"params": jax.random.key(0), "mask": jax.random.key(1)}, given))
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(state: Any, key: Any) -> Any:
        params, held = state
        loss = lambda params: pretrainer.apply(params, given, train=False, rngs={"mask": key})  # noqa: E731
        (_, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, held = optimizer.update(gradients, held)
        return (optax.apply_updates(params, updates), held), metrics

    state, first = step((params, optimizer.init(params)), jax.random.key(2))
    found: dict[str, list[float]] = {"match/accuracy": [], "match/accuracy_right": [], "match/accuracy_wrong": []}
    for number in range(800):
        state, metrics = step(state, jax.random.fold_in(jax.random.key(3), number))
        for name, values in found.items():
            values.append(float(metrics[name]))
    assert first["match/accuracy"] < 0.8  # two in three are wrong
    assert min(np.mean(values[-20:]) for values in found.values()) > 0.85


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Matching("read", negatives="near"), r"objectives.m.negatives='near'"),  # pyright: ignore
        (Matching("read", temperature=0.0), r"objectives.m.temperature=0.0 must be above 0"),
        (Matching("read", within=1), r"objectives.m.within=1 leaves no wrong partner"),
    ],
)
def test_fields_out_of_their_range_are_refused(objective: Matching, message: str) -> None:
    towers = {name: ToyTower(name) for name in ("image", "text")}
    with pytest.raises(UserError, match=message):
        objective.check_parts("objectives.m", towers, {})


def test_a_fusion_of_embeddings_or_of_one_input_is_refused() -> None:
    class Embeddings(nn.Module):
        reads = "embeddings"

        def __call__(self, tokens: Any, train: bool = False, keys: Any = None) -> Any:
            raise AssertionError

    towers = {name: ToyTower(name) for name in ("image", "text")}
    wrong = Pretrainer(towers, {"match": Matching("read")}, fusions={"read": Embeddings()})
    with pytest.raises(UserError, match="'read' is a Embeddings, which reads embeddings, and here tokens"):
        jax.eval_shape(wrong.init, jax.random.key(0), batch())


def test_half_right_makes_one_pair_an_example_of_which_half_are_right(variables: Any) -> None:
    """4,000 draws: exactly half of the rows meet their own picture, the others every wrong one as often."""
    objective = Matching("read", pair=("text", "image"), negatives="random", half_right=True)
    given, draws = batch(), 4_000
    image, text = embeddings(variables)
    pairs = jax.jit(jax.vmap(lambda key: objective.pairs((text, image), given, key)))
    rows = np.asarray(pairs(jax.random.split(jax.random.key(1), draws)))
    assert rows.shape == (draws, B, 2)
    np.testing.assert_array_equal(rows[..., 0], np.broadcast_to(np.arange(B), (draws, B)))
    own = rows[..., 1] == np.arange(B)
    np.testing.assert_array_equal(own.sum(axis=1), B // 2)
    assert np.abs(own.mean(axis=0) - 0.5).max() < 5 * 0.5 / draws**0.5
    allowed = given["text_valid"][:, None] & given["image_valid"] & ~right(given)
    for row in range(B):
        found = np.bincount(rows[~own[:, row], row, 1] + 1, minlength=B + 1)
        if allowed[row].any():
            assert found[0] == found[1:][~allowed[row]].sum() == 0
            assert stats.chisquare(found[1:][allowed[row]]).pvalue > 1e-3 / B
        else:
            assert found[1:].sum() == 0
