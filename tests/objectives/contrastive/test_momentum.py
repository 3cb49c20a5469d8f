"""Momentum contrast: the loss beside a PyTorch twin, the queue beside a list, the teacher beside the paper's order."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.evaluate.split_losses import HeldOut
from mmjax.objectives import MomentumContrastive, Pretrainer
from mmjax.objectives.contrastive.key_queue import QUEUE, enqueued, random_queue
from mmjax.objectives.contrastive.momentum import Candidates, QueriesAndKeys, distilled_loss
from mmjax.objectives.contrastive.objective import softmax_loss
from mmjax.optim.optimizers import AdamW
from mmjax.runtime.checkpoints import Checkpointer
from mmjax.runtime.mesh import ACTIVATION_RULES, Mesh, put
from mmjax.train.step import compile_train_step, make_train_step
from tests.objectives.toys import EMBED, ToyTower, assert_same, stems, toy_batch
from tests.states import abstract_state, init_state

B, Q, DECAY, STEPS = 8, 16, 0.75, 6
PAIR = ("image", "text")
RNGS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
SOFT: dict[str, Any] = {"queue": Q, "alpha": 0.4, "ramp_steps": 4}
OPTIMIZER = AdamW(3e-2, warmup_steps=0, schedule="constant", weight_decay=0.0)


def batch(step: int = 0, size: int = B) -> Any:
    """Two rows lack an input; another two are of one example."""
    found = {name: x for name, x in toy_batch(size, seed=step).items() if "audio" not in name}
    found["id"] = np.stack([np.arange(size) + step * 5, np.ones(size)], axis=1).astype(np.uint32)
    found["id"][6] = found["id"][3]
    return found


def build(microbatches: int = 1, **fields: Any) -> Pretrainer:
    towers = {name: ToyTower(name) for name in PAIR}
    return Pretrainer(towers, {"pair": MomentumContrastive(PAIR, **{**SOFT, **fields})}, microbatches=microbatches)


# --- the loss ---


def twin(
    queries: torch.Tensor,
    teacher: Any,
    asks: Any,
    keys: Any,
    counts: Any,
    positive: Any,
    temperature: Any,
    alpha: float,
) -> torch.Tensor:
    """One direction, query by query."""
    losses = []
    for i in range(len(queries)):
        partners = [j for j in range(len(keys)) if counts[j] and positive[i][j]]
        if not asks[i] or not partners:
            continue
        among = [j for j in range(len(keys)) if counts[j]]
        logits = torch.stack([queries[i] @ keys[j] for j in among]) / temperature
        told = torch.softmax(torch.stack([teacher[i] @ keys[j] for j in among]) / temperature.detach(), dim=0)
        target = torch.tensor([alpha * p + (1 - alpha) * (j in partners) / len(partners)
                               for p, j in zip(told.tolist(), among, strict=True)], dtype=torch.float64)  # fmt: skip
        assert abs(target.sum() - 1) < 1e-12
        losses.append(-(target * torch.log_softmax(logits, dim=0)).sum())
    return torch.stack(losses).mean()


def units(random: Any, *shape: int) -> np.ndarray:
    x = random.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_direction_s_loss_and_gradient_are_those_of_the_twin(alpha: float) -> None:
    random = np.random.default_rng(1)
    q, u, k, old = units(random, 5, 4), units(random, 5, 4), units(random, 5, 4), units(random, 6, 4)
    asks, valid, counts = (np.array(x, bool) for x in ([1, 1, 0, 1, 1], [1, 1, 1, 0, 1], [1, 1, 1, 0, 1, 1]))
    positive, queued = np.eye(5, dtype=bool), np.zeros((5, 6), bool)
    positive[4, 0] = queued[0, 2] = queued[1, 3] = True  # further partners; one of them isn't there

    def loss_of(q: Any, temperature: Any) -> Any:
        some = [Candidates(jnp.asarray(k), valid, positive), Candidates(jnp.asarray(old), counts, queued)]  # pyright: ignore
        return distilled_loss(q, jnp.asarray(u), asks, some, 1 / temperature, jnp.full(5, alpha)).loss  # pyright: ignore

    with jax.enable_x64(True):
        found, gradients = jax.value_and_grad(loss_of, (0, 1))(jnp.asarray(q), jnp.asarray(0.2))
    queries, temperature = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (q, 0.2))
    both = np.concatenate([k, old]), np.concatenate([valid, counts]), np.concatenate([positive, queued], axis=1)
    keys, there, partners = (torch.tensor(x) for x in both)
    expected = twin(queries, torch.tensor(u), asks, keys, there, partners, temperature, alpha)
    expected.backward()
    np.testing.assert_allclose(found, expected.item(), rtol=1e-10)
    for got, wanted in zip(gradients, (queries.grad, temperature.grad), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)  # pyright: ignore


def apply_loss(objective: MomentumContrastive, outputs: QueriesAndKeys, batch: Any, temperature: float = 0.1) -> Any:
    run = jax.jit(lambda params: objective.apply({"params": params}, outputs, batch, method="batch_loss"))
    return run({"temperature": jnp.float32(temperature)})


@pytest.mark.parametrize("partners", ["row", "id"])
def test_without_queue_and_teacher_s_part_it_is_contrastive_with_the_teacher_s_keys(partners: Any) -> None:
    random, given = np.random.default_rng(2), batch()
    vectors = [jnp.float32(units(random, B, EMBED)) for _ in range(4)]
    outputs = QueriesAndKeys(tuple(vectors[:2]), tuple(vectors[2:]), jnp.zeros(B))  # pyright: ignore
    loss, metrics = apply_loss(MomentumContrastive(PAIR, queue=0, alpha=0.0, partners=partners), outputs, given)
    group = np.unique(given["id"], axis=0, return_inverse=True)[1].reshape(-1) if partners == "id" else np.arange(B)
    image, text = (given[f"{name}_valid"] for name in PAIR)
    more: Any = {"a_group": group, "b_group": group}
    _, forward = softmax_loss(vectors[0], vectors[3], jnp.float32(10), image, text, **more)
    _, backward = softmax_loss(vectors[1], vectors[2], jnp.float32(10), text, image, **more)
    np.testing.assert_allclose(metrics["loss_forward"], forward["loss_forward"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss_backward"], backward["loss_forward"], rtol=1e-5)
    np.testing.assert_allclose(loss, (metrics["loss_forward"] + metrics["loss_backward"]) / 2, rtol=1e-6)
    assert metrics["candidates"] == B - 1


def test_the_temperature_is_clipped_and_can_come_back() -> None:
    vectors = [jnp.float32(units(np.random.default_rng(3), B, EMBED)) for _ in range(4)]
    outputs = QueriesAndKeys(tuple(vectors[:2]), tuple(vectors[2:]), jnp.zeros(B))  # pyright: ignore
    objective = MomentumContrastive(PAIR, queue=0)
    run = jax.jit(lambda temperature: objective.apply(
        {"params": {"temperature": temperature}}, outputs, batch(), method="batch_loss"))  # fmt: skip
    slope = jax.jit(jax.grad(lambda temperature: run(temperature)[0]))
    for beyond, limit in ((0.9, 0.5), (1e-5, 1e-3)):
        np.testing.assert_allclose(run(beyond)[1]["logit_scale"], 1 / limit)
        np.testing.assert_allclose(run(beyond)[0], run(limit)[0], rtol=1e-6)
    assert slope(1e-5) <= 0  # descent may raise it, and doesn't lower it further
    assert slope(0.9) >= 0


# --- the queue ---


def test_first_in_first_out() -> None:
    """Beside a list, of several batches, until each place was taken twice; a key that isn't there keeps its place."""
    random = np.random.default_rng(0)
    queue: Any = random_queue(jax.random.key(0), PAIR, 12, jnp.zeros((4, 3)), with_ids=True)
    for name in PAIR:
        np.testing.assert_allclose(np.linalg.norm(queue[f"{name}_keys"], axis=1), 1, rtol=1e-5)
    assert not np.allclose(queue["image_keys"], queue["text_keys"])
    assert not queue["known"].any()
    first = {name: list(np.asarray(queue[name])) for name in queue if name != "next"}
    for step in range(6):
        keys = {name: jnp.float32(random.normal(size=(4, 3))) for name in PAIR}
        valid = {name: jnp.asarray(random.random(4) < 0.7) for name in PAIR}
        id = jnp.asarray(random.integers(0, 99, (4, 2)), jnp.uint32)
        queue = jax.jit(enqueued)(queue, keys, valid, id)
        new = {f"{name}_keys": x for name, x in keys.items()} | {f"{name}_valid": x for name, x in valid.items()}
        for name, x in (new | {"id": id, "known": np.ones(4, bool)}).items():
            first[name] = first[name][4:] + list(np.asarray(x))
            oldest = int(queue["next"])
            np.testing.assert_array_equal(np.roll(np.asarray(queue[name]), -oldest, axis=0), np.stack(first[name]))
        assert oldest == 4 * (step + 1) % 12


def test_a_batch_that_does_not_divide_the_queue_is_refused() -> None:
    message = r"MomentumContrastive\(queue=20\) with a batch of 8, which doesn't divide it.*: queue=16 or 24 would do"
    keys = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    with pytest.raises(UserError, match=message):
        jax.eval_shape(build(queue=20).init, keys, batch())
    pretrainer = build(queue=24)
    held = nn.unbox(jax.eval_shape(pretrainer.init, keys, batch()))

    def apply(mutable: Any) -> None:
        run = lambda held: pretrainer.apply(  # noqa: E731
            {**held, "ema": held["params"]}, batch(size=16), rngs=RNGS, mutable=mutable
        )
        jax.eval_shape(run, held)

    with pytest.raises(UserError, match="with a batch of 16, which"):
        apply([QUEUE])
    apply(False)  # what doesn't train may be of any size


def init(pretrainer: Pretrainer, seed: int = 0) -> Any:
    keys = {"params": jax.random.key(seed), "mask": jax.random.key(1)}
    return nn.unbox(jax.jit(pretrainer.init)(keys, batch()))


# --- in training ---


def one_device() -> jax.sharding.Mesh:
    return Mesh().build(jax.devices()[:1])


COMPILED: dict[str, Any] = {}  # spares the same compilation over and over


class Run:
    """The states before each step, and its metrics, of a few steps as the training loop takes them."""

    def __init__(self, pretrainer: Pretrainer, mesh: jax.sharding.Mesh, batches: Any = batch, state: Any = None):
        parts = pretrainer, OPTIMIZER, batches(0)
        state = init_state(*parts, seed=0, mesh=mesh, ema=DECAY) if state is None else state
        if (key := repr((pretrainer, mesh))) not in COMPILED:
            step = make_train_step(pretrainer, OPTIMIZER, seed=0, total_steps=100, ema=DECAY)
            COMPILED[key] = compile_train_step(step, abstract_state(*parts, mesh=mesh, ema=DECAY), mesh)
        compiled = COMPILED[key]
        self.states, self.metrics = [state], []
        with jax.set_mesh(mesh):
            for number in range(int(state.step), STEPS):
                given = put(batches(number), mesh)
                state, found = compiled(jax.tree.map(jnp.copy, state), given)
                self.states.append(state)
                self.metrics.append(jax.device_get(found))


@pytest.fixture(scope="module")
def by_id() -> Run:
    return Run(build(partners="id"), one_device())


def test_steps_are_those_of_the_paper_one_by_one(by_id: Run) -> None:
    """The teacher follows the parameters before its own pass, as in the paper's order; the loss reads the queue before
    the batch comes into it; the teacher's part rises with the step."""
    momentum = jax.tree.map(lambda x: np.asarray(x, np.float64), by_id.states[0].params)
    queue = {name: list(np.asarray(x)) for name, x in by_id.states[0].model_state[QUEUE]["objectives_pair"].items()
             if name != "next"}  # fmt: skip
    pretrainer = build(partners="id")
    for step, metrics in enumerate(by_id.metrics):
        params = by_id.states[step].params
        momentum = jax.tree.map(lambda m, p: DECAY * m + (1 - DECAY) * np.asarray(p, np.float64), momentum, params)
        jax.tree.map(
            lambda a, m: np.testing.assert_allclose(a, m, rtol=1e-5, atol=1e-7), by_id.states[step].ema, momentum
        )
        given = batch(step)
        student, teacher = (
            pretrainer.apply({"params": jax.tree.map(jnp.float32, by)}, given, method="embed")
            for by in (params, momentum)
        )
        losses = []
        for one, other in (PAIR, PAIR[::-1]):
            keys = np.concatenate([np.asarray(teacher[other]), np.stack(queue[f"{other}_keys"])])  # pyright: ignore
            there = np.concatenate([given[f"{other}_valid"], np.stack(queue[f"{other}_valid"])])
            ids = [tuple(row) for row in given["id"]]
            others = ids + [
                tuple(row) if known else None for row, known in zip(queue["id"], queue["known"], strict=True)
            ]
            positive = [[a == b for b in others] for a in ids]
            losses.append(twin(
                *(torch.tensor(np.asarray(x[one], np.float64)) for x in (student, teacher)),  # pyright: ignore
                given[f"{one}_valid"], torch.tensor(keys, dtype=torch.float64), there, positive,
                torch.tensor(float(params["objectives_pair"]["temperature"])), 0.4 * min(1, step / 4),
            ).item())  # fmt: skip
        np.testing.assert_allclose(metrics["pair/loss_forward"], losses[0], rtol=1e-4)
        np.testing.assert_allclose(metrics["pair/loss_backward"], losses[1], rtol=1e-4)
        np.testing.assert_allclose(metrics["pair/alpha"], 0.4 * min(1, step / 4), rtol=1e-6)
        new = {"id": given["id"], "known": np.ones(B, bool)}
        for name in PAIR:
            new |= {f"{name}_keys": teacher[name], f"{name}_valid": given[f"{name}_valid"]}  # pyright: ignore
        after = by_id.states[step + 1].model_state[QUEUE]["objectives_pair"]
        queue = {name: queue[name][B:] + list(np.asarray(x)) for name, x in new.items()}
        for name, kept in queue.items():
            found = np.roll(np.asarray(after[name]), -int(after["next"]), axis=0)
            rows = np.stack(queue[name.replace("_keys", "_valid")]) if name.endswith("_keys") else np.full(Q, True)
            np.testing.assert_allclose(found[rows], np.stack(kept)[rows], rtol=1e-4, atol=1e-6)
    assert by_id.metrics[0]["pair/loss"] != by_id.metrics[-1]["pair/loss"]
    first, last = (by_id.states[at].params["objectives_pair"]["temperature"] for at in (0, -1))
    assert abs(last - first) > 1e-3


@pytest.fixture(scope="module")
def held() -> Any:
    """Parameters, an average that isn't they, and a queue that has keys of a batch."""
    pretrainer = build(partners="id")
    random = np.random.default_rng(0)
    found = init(pretrainer)
    noisy = jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), found["params"])
    found = {**found, "params": {**noisy, "objectives_pair": {"temperature": jnp.float32(0.2)}}}
    ema = jax.tree.map(lambda x: x + jnp.float32(0.1 * random.normal(size=x.shape)), found["params"])
    _, moved = pretrainer.apply({**found, "ema": ema}, batch(1), rngs=RNGS, mutable=[QUEUE])
    return {**found, **moved, "ema": ema}  # pyright: ignore


def gradient(pretrainer: Pretrainer) -> Any:
    """Loss and metrics with the queue after them, and the gradient by parameters and average."""

    def loss_of(by: Any, queue: Any, batch: Any) -> Any:
        (loss, metrics), after = pretrainer.apply({**by, QUEUE: queue}, batch, 3, rngs=RNGS, mutable=[QUEUE])
        flat = {f"after {name}": x for name, x in after[QUEUE]["objectives_pair"].items()}  # pyright: ignore
        return loss, metrics | flat

    return jax.jit(jax.value_and_grad(loss_of, has_aux=True))


def of(held: Any) -> tuple[Any, Any]:
    return {name: held[name] for name in ("params", "ema")}, held[QUEUE]


@pytest.fixture(scope="module")
def whole(held: Any) -> Any:
    return gradient(build(partners="id"))(*of(held), batch(2))


@pytest.mark.parametrize("microbatches", [2, 4])
def test_the_cut_changes_nothing(microbatches: int, held: Any, whole: Any) -> None:
    assert_same(gradient(build(microbatches, partners="id"))(*of(held), batch(2)), whole, 1e-5)


@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_a_mesh_changes_nothing(shape: tuple[int, ...], held: Any, whole: Any) -> None:
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(batch(2), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(of(held), NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build(partners="id"))(*replicated, rows), whole, 1e-5)


def test_the_student_alone_has_a_gradient_and_each_view_is_encoded_once(whole: Any) -> None:
    for name, zero in (("params", False), ("ema", True)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(whole[1][name]):
            assert np.isfinite(leaf).all()
            assert (np.abs(leaf).max() == 0) == zero, jax.tree_util.keystr(path)
    assert stems(build(queue=0), batch()) == 4  # the student's two, and the teacher's


def test_a_row_that_lacks_an_input_is_no_query_and_no_candidate(held: Any) -> None:
    given = batch(2)
    spoilt = {name: x.copy() for name, x in given.items()}
    lacking = ~given["image_valid"]
    spoilt["image"][lacking] = np.nan
    spoilt["text"][~given["text_valid"]] = 7
    run = gradient(build())
    variables, queue = of(held)
    queue = {
        "objectives_pair": {name: x for name, x in queue["objectives_pair"].items() if name not in ("id", "known")}
    }
    assert_same(run(variables, queue, spoilt), run(variables, queue, given), 1e-6)


def test_a_skipped_step_leaves_the_queue(by_id: Run) -> None:
    def poisoned(step: int) -> Any:
        found = batch(step)
        if step == 3:
            found["image"][4] = np.nan
        return found

    run = Run(build(partners="id"), one_device(), poisoned)
    assert run.metrics[3]["guard/skipped"] == 1
    assert run.metrics[3]["pair/nonfinite/image"] == 1
    for name in ("params", "ema", "model_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(run.states[4], name), getattr(run.states[3], name))
        jax.tree.map(np.testing.assert_array_equal, getattr(run.states[3], name), getattr(by_id.states[3], name))
    after = run.states[5].model_state[QUEUE]["objectives_pair"]
    assert int(after["next"]) == 4 * B % Q
    assert np.isfinite(after["image_keys"]).all()
    np.testing.assert_allclose(run.metrics[4]["pair/alpha"], 0.4)  # the step's, though an update was skipped


@pytest.mark.parametrize("sizes", [Mesh(data=1), Mesh(data=2, fsdp=2, tensor=2)])
def test_a_run_that_is_cut_ends_as_the_whole_one_to_the_bit(sizes: Mesh, tmp_path: Any) -> None:
    mesh = sizes.build(jax.devices()[: 8 if sizes.fsdp > 1 else 1])
    pretrainer = build(partners="id")
    whole = Run(pretrainer, mesh)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(3, whole.states[3])
    with Checkpointer(tmp_path) as checkpoints:
        restored = checkpoints.restore(abstract_state(pretrainer, OPTIMIZER, batch(), mesh=mesh, ema=DECAY))
    again = Run(pretrainer, mesh, state=restored)
    jax.tree.map(np.testing.assert_array_equal, again.states[-1], whole.states[-1])
    for found, wanted in zip(again.metrics, whole.metrics[3:], strict=True):
        assert found == wanted
    assert again.metrics[-1]["guard/skipped"] == 0


def test_evaluation_reads_the_queue_and_leaves_it(held: Any) -> None:
    """What is judged is one set of parameters, student and teacher; without a queue the keys are the batch's."""
    pretrainer = build(partners="id")
    held_out = HeldOut(pretrainer, None, one_device(), B)  # pyright: ignore
    judged = {"params": held["params"], QUEUE: held[QUEUE]}
    rngs = {"mask": RNGS["mask"]}
    expected, _ = pretrainer.apply({**judged, "ema": held["params"]}, batch(), 9, train=False, rngs=rngs)  # pyright: ignore
    numbers, _ = held_out._losses(judged, batch(), 9, 0, 0)
    np.testing.assert_allclose(numbers["loss"], expected, rtol=1e-5)
    there = np.mean([held[QUEUE]["objectives_pair"][f"{name}_valid"].sum() for name in PAIR])
    assert numbers["pair/candidates"] == B - 1 + there
    alone, _ = held_out._losses({"params": held["params"]}, batch(), 9, 0, 0)
    assert alone["pair/candidates"] == B - 1
    assert alone["loss"] < numbers["loss"]


def test_the_first_queue_is_the_seed_s(by_id: Run) -> None:
    first = by_id.states[0].model_state[QUEUE]["objectives_pair"]
    again, other = (init(build(partners="id"), seed)[QUEUE]["objectives_pair"] for seed in (0, 1))
    assert first["image_keys"].shape == (Q, EMBED)
    assert not np.array_equal(again["image_keys"], other["image_keys"])
    np.testing.assert_array_equal(
        again["image_keys"], init(build(partners="id"))[QUEUE]["objectives_pair"]["image_keys"]
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pair": ("text", "text")}, r"has pair=\('text', 'text'\): a pair is two different inputs"),
        ({"towers": {"txt": "text"}}, r"has towers=\{'txt': ...\}.*did you mean text"),
        ({"partners": "ids"}, r"partners='ids' is not one of row, id"),
        ({"queue": -1}, r"queue=-1 must be at least 0"),
        ({"ramp_steps": -1}, r"ramp_steps=-1 must be at least 0"),
        ({"alpha": 1.5}, r"alpha=1.5 must lie from 0 to 1"),
        ({"temperature_init": 0.7}, r"temperature_init=0.7 must lie within temperature_min=0.001"),
        ({"temperature_min": 0.0}, r"temperature_min=0.0 and temperature_max=0.5, and those above 0"),
    ],
)
def test_fields_out_of_their_range_are_refused(fields: Any, message: str) -> None:
    objective, towers = MomentumContrastive(**{"pair": PAIR, **fields}), {name: ToyTower(name) for name in PAIR}
    with pytest.raises(UserError, match=rf"objectives.m.*{message}"):
        objective.check_parts("objectives.m", towers, {})


def test_ids_are_asked_for() -> None:
    given = {name: x for name, x in batch().items() if name != "id"}
    with pytest.raises(UserError, match=r"MomentumContrastive\(partners='id'\) needs 'id', which the batch lacks"):
        jax.eval_shape(build(partners="id").init, jax.random.key(0), given)
