"""Word-patch alignment: the plan is IPOT's, padding and ends take no part, and the cut and the mesh change nothing."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy.optimize import linear_sum_assignment

from mmjax.errors import UserError
from mmjax.models import Blocks, Merged, TextTransformer, ViT
from mmjax.objectives import Pretrainer, WordPatchAlignment
from mmjax.objectives.contract import named_key
from mmjax.objectives.word_patch import inner_tokens, transport_distance, transport_plan
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.toys import WIDTH, ToyTower, assert_same, stems, toy_batch

B, BETA, STEPS = 16, 0.5, 50
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
FUSION = Merged(blocks=Blocks(width=WIDTH, depth=1, heads=2, dropout=0.2), pooling="first", embed_dim=5)
ALIGN = WordPatchAlignment("both", negatives="random", prefix=1, half_right=True, weight=0.7)


def ipot(cost: np.ndarray, beta: float = BETA, steps: int = STEPS) -> np.ndarray:
    """The plan of one pair, element by element, in float64."""
    m, n = cost.shape
    plan, rows, columns = np.ones((m, n)), np.full(m, 1 / m), np.zeros(n)
    for _ in range(steps):
        for i in range(m):
            for j in range(n):
                plan[i, j] *= np.exp(-cost[i, j] / beta)
        for j in range(n):
            columns[j] = 1 / n / sum(plan[i, j] * rows[i] for i in range(m))
        for i in range(m):
            rows[i] = 1 / m / sum(plan[i, j] * columns[j] for j in range(n))
        for i in range(m):
            for j in range(n):
                plan[i, j] *= rows[i] * columns[j]
    return plan


def cosines(words: np.ndarray, patches: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(words, axis=1)[:, None] * np.linalg.norm(patches, axis=1)
    return 1 - words @ patches.T / norms


def pairs() -> Any:
    """Words and patches of six pairs, and which are real; those of the last two are missing."""
    random = np.random.default_rng(0)
    words, patches = random.normal(size=(6, 5, 4)), random.normal(size=(6, 7, 4))
    rows, columns = random.random((6, 5)) < 0.6, random.random((6, 7)) < 0.7
    rows[4], columns[5] = False, False
    rows[0], columns[0] = True, True
    assert rows[:4].any(axis=1).all()
    assert columns[:4].any(axis=1).all()
    return words.astype(np.float32), rows, patches.astype(np.float32), columns


@pytest.mark.parametrize(("beta", "steps"), [(BETA, STEPS), (0.2, 7)])
def test_the_plan_is_that_of_a_loop_over_words_and_patches(beta: float, steps: int) -> None:
    words, rows, patches, columns = pairs()
    cost = np.stack([cosines(*each) for each in zip(words, patches, strict=True)]).astype(np.float32)
    plan = np.asarray(jax.jit(partial(transport_plan, beta=beta, steps=steps))(cost, rows, columns))
    distance = jax.jit(partial(transport_distance, beta=beta, steps=steps))(words, rows, patches, columns)
    for pair in range(6):
        real = np.ix_(rows[pair], columns[pair])
        masked = ~(rows[pair][:, None] & columns[pair])
        np.testing.assert_array_equal(plan[pair][masked], 0)
        if 0 in cost[pair][real].shape:
            assert distance[pair] == plan[pair].sum() == 0
            continue
        want = ipot(cost[pair][real].astype(np.float64), beta, steps)
        np.testing.assert_allclose(plan[pair][real], want, rtol=2e-4, atol=1e-7)
        np.testing.assert_allclose(distance[pair], (want * cost[pair][real]).sum(), rtol=1e-5)


def test_the_plan_moves_equal_weights_and_costs_least_in_the_end() -> None:
    """Against the exact assignment, which is the cheapest plan between as many words as patches."""
    random = np.random.default_rng(1)
    cost = np.stack([cosines(random.normal(size=(6, 4)), random.normal(size=(6, 4))) for _ in range(3)])
    there = np.ones((3, 6), bool)
    for steps, off, dearer in ((STEPS, 0.02, 0.05), (5_000, 2e-4, 1e-3)):
        plan = np.asarray(jax.jit(transport_plan, static_argnums=(3, 4))(np.float32(cost), there, there, BETA, steps))
        np.testing.assert_allclose(plan.sum(axis=2), 1 / 6, rtol=1e-5)
        np.testing.assert_allclose(plan.sum(axis=1), 1 / 6, atol=off)
        for one, mine in zip(cost, plan, strict=True):
            cheapest = one[linear_sum_assignment(one)].mean()
            assert abs((one * mine).sum() - cheapest) < dearer


def test_padding_takes_no_part_whatever_it_holds() -> None:
    words, rows, patches, columns = pairs()
    spoilt = np.where(rows[..., None], words, np.nan), rows, np.where(columns[..., None], patches, np.inf), columns
    far = jax.jit(partial(transport_distance, beta=BETA, steps=STEPS))
    for pair in range(4):
        alone: Any = words[pair][rows[pair]][None], patches[pair][columns[pair]][None]
        ones: Any = tuple(np.ones(x.shape[:2], bool) for x in alone)
        want = transport_distance(alone[0], ones[0], alone[1], ones[1], BETA, STEPS)
        np.testing.assert_allclose(far(*spoilt)[pair], want[0], rtol=1e-5)
    gradients = jax.jit(jax.grad(lambda w, p: far(w, rows, p, columns).sum(), (0, 1)))(spoilt[0], spoilt[2])
    for gradient, real in zip(gradients, (rows, columns), strict=True):
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(np.asarray(gradient)[~real], 0)


def test_the_gradient_goes_through_the_cost_alone() -> None:
    words, rows, patches, columns = (x[:4] for x in pairs())
    cost: Any = np.stack([cosines(*each) for each in zip(words, patches, strict=True)]).astype(np.float32)
    plan = transport_plan(cost, rows, columns, BETA, STEPS)

    def given(words: Any) -> Any:
        """The cost under a plan that doesn't change."""
        norms = jnp.linalg.norm(words, axis=2)[:, :, None] * jnp.linalg.norm(patches, axis=2)[:, None]
        return jnp.sum(plan * (1 - jnp.einsum("pmd,pnd->pmn", words, patches) / norms))

    got = jax.grad(lambda x: transport_distance(x, rows, patches, columns, BETA, STEPS).sum())(words)
    np.testing.assert_allclose(got, jax.grad(given)(words), rtol=1e-4, atol=1e-6)


def test_the_ends_of_a_text_are_left_out() -> None:
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    inner = [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(inner_tokens(jnp.asarray(mask)), np.array(inner, bool))


def batch() -> Any:
    return {name: x for name, x in toy_batch(B).items() if "audio" not in name}


def build(microbatches: int = 1) -> Any:
    towers = {name: ToyTower(name) for name in ("image", "text")}
    return Pretrainer(towers, {"align": ALIGN}, microbatches=microbatches, fusions={"both": FUSION})


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


@pytest.mark.parametrize("microbatches", [2, 4])
def test_the_cut_changes_nothing(microbatches: int, variables: Any, whole: Any) -> None:
    assert_same(gradient(build(microbatches))(variables, batch()), whole, 1e-5)


@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_a_mesh_changes_nothing(shape: tuple[int, ...], variables: Any, whole: Any) -> None:
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build())(replicated, rows), whole, 1e-5)


def test_views_are_encoded_once() -> None:
    assert stems(build(), batch()) == 2


def test_the_loss_is_that_of_its_pairs_one_by_one(variables: Any) -> None:
    """Towers, fusion, head and plan by hand, for each pair that `pairs` names."""
    params, given = variables["params"], batch()
    loss, metrics = build().apply(variables, given, train=False, rngs={"mask": KEYS["mask"]})
    key = build().apply({}, method=lambda self: self.make_rng("mask"), rngs=KEYS)
    zeros = (jnp.zeros((B, 1)), jnp.zeros((B, 1)))
    rows = np.asarray(ALIGN.pairs(zeros, given, named_key(key, "pairs align")))

    @jax.jit
    def met(words: Any, mask: Any, patches: Any) -> Any:
        towers = {name: (ToyTower(name), {"params": params[f"towers_{name}"]}) for name in ("text", "image")}
        tokens = {
            "text": towers["text"][0].apply(towers["text"][1], words[None], mask[None], method="tokens"),
            "image": towers["image"][0].apply(towers["image"][1], patches[None], method="tokens"),
        }
        fused, seen = FUSION.apply({"params": params["fusions_both"]}, tokens)  # pyright: ignore
        head = params["objectives_align"]["match"]
        return fused["text"][0][0], fused["image"][0][0], (seen @ head["kernel"] + head["bias"])[0]

    entropies, far = [], {True: [], False: []}
    for text, image in rows:
        if image < 0 or not (given["image_valid"][image] and given["text_valid"][text]):
            continue
        one = met(given["text"][text], given["text_mask"][text], given["image"][image])
        words, patches, logits = (np.asarray(x, np.float64) for x in one)
        entropies.append(np.log(np.exp(logits).sum()) - logits[int(image == text)])
        words = words[np.flatnonzero(given["text_mask"][text])[1:-1]]
        cost = cosines(words, patches[1:]) if len(words) else np.zeros((0, 1))
        far[bool(image == text)].append((ipot(cost) * cost).sum() if len(words) else 0.0)
    count = len(far[True]) + len(far[False])
    matching, alignment = np.mean(entropies), (sum(far[True]) - sum(far[False])) / count
    np.testing.assert_allclose(metrics["align/matching_loss"], matching, rtol=1e-5)
    np.testing.assert_allclose(loss, matching + ALIGN.weight * alignment, rtol=1e-5)
    for name, together in (("right", True), ("wrong", False)):
        np.testing.assert_allclose(metrics[f"align/distance_{name}"], np.mean(far[together]), rtol=1e-4)
    assert min(map(len, far.values())) > B // 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"pair": ("image", "text")},
            r"o.pair=\('image', 'text'\) must be the input of words .* a ViT, reads no words",
        ),
        ({"prefix": 0}, r"o.prefix=0, and the tower of 'image' has 1 tokens before its patches: set prefix=1"),
        ({"beta": 0.0}, r"o.beta=0.0 and steps=50 of the transport plan: beta is above 0"),
        ({"within": 1}, r"o.within=1 leaves no wrong partner"),
    ],
)
def test_what_does_not_fit_is_refused(fields: Any, message: str) -> None:
    none = Blocks(width=8, depth=0, heads=2)
    towers = {
        "image": ViT(patch=4, size=8, cls=True, pooling="mean", blocks=none),
        "text": TextTransformer(vocab=9, length=4, blocks=none),
    }
    with pytest.raises(UserError, match=message):
        WordPatchAlignment("both", **fields).check_parts("o", towers, {})
    WordPatchAlignment("both").check_parts("o", towers, {})
