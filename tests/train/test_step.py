import dataclasses
import re
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mmjax.errors import UserError
from mmjax.experiment.definition import Spike
from mmjax.models.decoders.patches import Decoder
from mmjax.models.layers.parameters import constrain
from mmjax.models.towers.audio import AudioTransformer
from mmjax.models.towers.log_mel import LogMel
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.objectives.keys import step_key
from mmjax.objectives.masked import MaskedAudio, MaskedImage, MaskedText
from mmjax.objectives.masking import Corrupt, Keep
from mmjax.objectives.next_sentence import NextSentence
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.optim.optimizers import AdamW
from mmjax.runtime.mesh import ACTIVATION_RULES, BATCH_AXES, Mesh, put
from mmjax.train.step import TrainState, batch_hash, compile_train_step, make_train_step, with_params
from tests.flat import flat
from tests.objectives.rounds import Distilling
from tests.objectives.toys import ToyTower
from tests.objectives.toys import toy_batch as patches
from tests.states import abstract_state, init_state
from tests.toy import ToyPretrainer, toy_batch

OPTIMIZER = AdamW(1e-3, warmup_steps=2, weight_decay=0.1)
TOTAL = 20


def one_device() -> jax.sharding.Mesh:
    return Mesh().build(jax.devices()[:1])


INITIAL: dict[str, TrainState] = {}  # both spare the same compilation over and over
COMPILED: dict[str, Callable] = {}


def initial(pretrainer, optimizer, mesh, ema=None, seed=0, batch=toy_batch) -> TrainState:
    key = repr((pretrainer, optimizer, mesh, ema, seed))
    if key not in INITIAL:
        INITIAL[key] = init_state(pretrainer, optimizer, batch(0), seed=seed, mesh=mesh, ema=ema)
    return jax.tree.map(jnp.copy, INITIAL[key])  # a step donates its state


def train(steps, *, pretrainer=None, optimizer=OPTIMIZER, mesh=None, ema=None, state=None, seed=0, batch=toy_batch):
    """The state and the metrics of each step of a run, as the training loop makes it."""
    pretrainer, mesh = pretrainer or ToyPretrainer(), mesh or one_device()
    if state is None:
        state = initial(pretrainer, optimizer, mesh, ema, seed, batch)
    key = repr((pretrainer, optimizer, mesh, ema, seed))
    if key not in COMPILED:
        step = make_train_step(pretrainer, optimizer, seed=seed, total_steps=TOTAL, ema=ema)
        COMPILED[key] = compile_train_step(step, state, mesh)
    step = COMPILED[key]
    history = []
    with jax.set_mesh(mesh), jax.transfer_guard("disallow"):
        for number in range(int(jax.device_get(state.step)), steps):
            state, metrics = step(state, put(batch(number), mesh))
            history.append(jax.device_get(metrics))
    return state, history


def test_a_state_is_said_in_a_line_whatever_its_leaves_are():
    mesh, spec = one_device(), toy_batch(0)
    state = initial(ToyPretrainer(), OPTIMIZER, mesh, ema=0.9)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    said = f"TrainState(step=0, {count:,} parameters, and their moving average)"
    assert repr(state) == said
    with jax.transfer_guard("disallow"):
        assert str(state.replace(ema=None)) == f"TrainState(step=0, {count:,} parameters)"
    shapes = abstract_state(ToyPretrainer(), OPTIMIZER, spec, mesh=mesh, ema=0.9)
    assert repr(shapes) == said.replace("step=0", "step=?")
    assert repr(jax.tree.map(lambda leaf: leaf.sharding, state)).startswith("TrainState(step=?, 0 parameters")
    state.step.delete()
    assert repr(state) == repr(shapes)
    traced = []
    jax.jit(lambda state: traced.append(repr(state)))(initial(ToyPretrainer(), OPTIMIZER, mesh, ema=0.9))
    assert traced == [repr(shapes)]


def numpy_of(tree):
    return jax.tree.map(lambda leaf: np.array(leaf), tree)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, numpy_of(a), numpy_of(b))


@pytest.fixture(scope="module")
def plain():
    return train(TOTAL)


@pytest.mark.parametrize("sizes", [Mesh(data=8), Mesh(data=2, fsdp=2, tensor=2), Mesh(data=1, fsdp=4, tensor=2)])
def test_every_mesh_gives_the_losses_of_one_device(plain, sizes):
    mesh = sizes.build()
    start, alone = (initial(ToyPretrainer(), OPTIMIZER, where) for where in (mesh, one_device()))
    assert_same(start.params, alone.params)  # to the bit: the random numbers don't depend on the layout
    _, history = train(TOTAL, mesh=mesh)

    def losses(history):
        return np.array([metrics["loss"] for metrics in history])

    assert losses(plain[1])[0] != losses(plain[1])[-1]
    np.testing.assert_allclose(losses(history), losses(plain[1]), rtol=1e-5)


def test_parameters_moments_and_ema_are_sharded_alike_and_really_smaller():
    mesh = Mesh(data=1, fsdp=4, tensor=2).build()
    state, _ = train(1, mesh=mesh, ema=0.9)

    def kernel(tree):
        return tree["towers_image"]["Dense_1"]["kernel"]  # mlp by embed

    adam = next(part for part in state.opt_state if hasattr(part, "mu"))
    for leaf in map(kernel, (state.params, state.ema, adam.mu, adam.nu)):
        assert leaf.addressable_shards[0].data.size * 8 == leaf.size


def test_abstract_state_is_the_state_without_its_values():
    mesh = Mesh(data=2, fsdp=2, tensor=2).build()
    real = initial(ToyPretrainer(), OPTIMIZER, mesh, ema=0.9)
    spec = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in toy_batch(0).items()}
    abstract = abstract_state(ToyPretrainer(), OPTIMIZER, spec, mesh=mesh, ema=0.9)

    def describe(leaf):
        return (leaf.shape, leaf.dtype, leaf.sharding)

    assert jax.tree.structure(real) == jax.tree.structure(abstract)
    assert jax.tree.map(describe, real) == jax.tree.map(describe, abstract)


def test_the_compiled_step_gives_the_states_memory_back():
    mesh = one_device()
    state = initial(ToyPretrainer(), OPTIMIZER, mesh)
    train(1, mesh=mesh, state=state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_the_seed_alone_decides(plain):
    again, _ = train(TOTAL)
    assert_same(again, plain[0])
    other, _ = train(1, seed=1)
    assert not np.array_equal(
        other.params["towers_text"]["Dense_0"]["kernel"], train(1)[0].params["towers_text"]["Dense_0"]["kernel"]
    )


def test_keys_differ_by_step_and_by_name():
    keys = [step_key(0, 0, "mask"), step_key(0, 1, "mask"), step_key(0, 0, "dropout"), step_key(1, 0, "mask")]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4
    assert step_key(0, 7, "mask") == jax.jit(lambda step: step_key(0, step, "mask"))(jnp.int32(7))


def test_metrics_are_the_norms_of_what_happened():
    mesh = one_device()
    optimizer = AdamW(1e-2, schedule="constant", clip_norm=1e-3)
    before = initial(ToyPretrainer(), optimizer, mesh)
    params = numpy_of(before.params)
    after, history = train(1, optimizer=optimizer, state=before)
    metrics = history[0]
    moved = jax.tree.map(lambda a, b: np.float64(a) - b, numpy_of(after.params), params)

    def norm(tree):
        return np.sqrt(sum(np.sum(np.float64(leaf) ** 2) for leaf in jax.tree.leaves(tree)))

    for part in params:
        assert metrics[f"update_norm/{part}"] == pytest.approx(norm(moved[part]), rel=1e-3)
        assert metrics[f"param_norm/{part}"] == pytest.approx(norm(after.params[part]), rel=1e-5)
    assert metrics["param_norm"] == pytest.approx(norm(after.params), rel=1e-5)
    assert metrics["grad_norm"] > 1e-2  # before clipping
    assert metrics["grad_norm"] == pytest.approx(norm([metrics[f"grad_norm/{part}"] for part in params]), rel=1e-5)
    assert metrics["lr"] == pytest.approx(1e-2)
    assert metrics["loss"] == metrics["contrastive/loss"]
    assert metrics["guard/skipped"] == 0


def test_frozen_parameters_stay_to_the_bit_and_are_not_differentiated():
    optimizer = dataclasses.replace(OPTIMIZER, frozen=("^towers_image/",))
    mesh, pretrainer = one_device(), ToyPretrainer()
    state = initial(pretrainer, optimizer, mesh, ema=0.9)
    start = numpy_of(state.params)
    adam = next(part for part in state.opt_state if hasattr(part, "mu"))
    assert set(adam.mu) == {"towers_text", "objectives_contrastive"}

    def products(optimizer):
        """How many matrix products stand in the step."""
        state = abstract_state(pretrainer, optimizer, toy_batch(0), mesh=mesh)
        step = make_train_step(pretrainer, optimizer, seed=0, total_steps=TOTAL)
        return str(jax.make_jaxpr(step)(state, toy_batch(0))).count("dot_general")

    # With the image tower frozen: no gradient of its two kernels, nor of its hidden layer.
    assert products(OPTIMIZER) - products(optimizer) == 3
    state, history = train(5, optimizer=optimizer, state=state, ema=0.9)
    assert state.ema is not None
    assert_same(state.params["towers_image"], start["towers_image"])
    assert_same(state.ema["towers_image"], start["towers_image"])
    assert not np.array_equal(
        state.params["towers_text"]["Dense_0"]["kernel"], start["towers_text"]["Dense_0"]["kernel"]
    )
    assert "grad_norm/towers_image" not in history[0]


def test_a_step_that_is_not_finite_changes_nothing_but_the_clock():
    pretrainer = ToyPretrainer(running_mean=True, poison=3)
    state, _ = train(3, pretrainer=pretrainer, ema=0.9)
    before = numpy_of(state)
    state, (metrics,) = train(4, pretrainer=pretrainer, state=state, ema=0.9)
    for name in ("params", "opt_state", "model_state", "ema"):
        assert_same(getattr(state, name), getattr(before, name))
    assert int(state.step) == 4
    assert np.isnan(metrics["loss"])
    assert metrics["guard/skipped"] == 1
    assert metrics["update_norm"] == 0
    state, (metrics,) = train(5, pretrainer=pretrainer, state=state, ema=0.9)
    assert metrics["lr"] == pytest.approx(float(OPTIMIZER.learning_rate(4, TOTAL)))  # the step's, not the update's
    assert np.isfinite(metrics["loss"])
    assert metrics["guard/skipped"] == 1


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is():
    class Overflowing(ToyPretrainer):
        def __call__(self, batch, step=0, train=True, still=()):
            loss, metrics = super().__call__(batch, step, train, still)
            return loss + 0 * jnp.sqrt(loss - jax.lax.stop_gradient(loss)), metrics  # value 0, slope 0 * infinity

    state, (metrics,) = train(1, pretrainer=Overflowing())
    assert np.isfinite(metrics["loss"])
    assert metrics["guard/skipped"] == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(numpy_of(state.params)))


def test_ema_starts_from_the_parameters_and_follows_them():
    states = [train(steps, ema=0.75)[0] for steps in (0, 1, 2)]
    assert_same(states[0].ema, states[0].params)
    expected = numpy_of(states[0].params)
    for state in states[1:]:
        expected = jax.tree.map(lambda a, p: 0.75 * a + 0.25 * p, expected, numpy_of(state.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), numpy_of(states[2].ema), expected)
    assert train(0)[0].ema is None


def test_other_collections_are_carried():
    state, _ = train(2, pretrainer=ToyPretrainer(running_mean=True))
    text = [toy_batch(step)["text"].astype(np.float64).mean(0) for step in range(2)]
    mean = state.model_state["batch_stats"]["towers_text"]["mean"]
    np.testing.assert_allclose(mean, 0.9 * 0.1 * text[0] + 0.1 * text[1], atol=1e-6)
    assert train(0)[0].model_state == {}


def test_with_params_replaces_parameters_and_average_in_their_layout():
    mesh = Mesh(data=2, fsdp=2, tensor=2).build()
    state = initial(ToyPretrainer(), OPTIMIZER, mesh, ema=0.9)
    loaded = jax.tree.map(lambda leaf: leaf + 1, numpy_of(state.params))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.params)
    state = with_params(state, loaded)
    assert jax.tree.map(lambda leaf: leaf.sharding, state.params) == shardings
    assert_same(state.params, loaded)
    copy = numpy_of(loaded)
    train(1, mesh=mesh, state=state, ema=0.9)  # donates the state, and must not touch what was loaded
    assert_same(loaded, copy)

    wrong = {**loaded, "objectives_contrastive": {"log_scale": np.zeros(2, np.float32)}}
    fresh = initial(ToyPretrainer(), OPTIMIZER, mesh, ema=0.9)
    with pytest.raises(UserError, match=r"objectives_contrastive/log_scale is float32\[\], but float32\[2\]"):
        with_params(fresh, wrong)


def real_pretrainer() -> Pretrainer:
    """Three towers, both contrastive losses and all masked ones; a picture's view serves two objectives, a text's
    three."""
    size: dict[str, Any] = dict(width=8, depth=1, heads=2, mlp_dim=16)
    tower: dict[str, Any] = dict(**size, embed_dim=8)
    return Pretrainer(
        towers={
            "image": flat(ViT, patch=4, size=16, pooling="mean", **tower),
            "text": flat(TextTransformer, vocab=32, length=8, **tower),
            "audio": flat(
                AudioTransformer, spectrogram=LogMel(mels=16), patch=(4, 16), samples=2_000, pooling="mean", **tower
            ),
        },
        objectives={
            "image_text": Contrastive(("image", "text"), masking={"image": Keep(0.25)}),
            "text_audio": Contrastive(("text", "audio"), loss="sigmoid"),
            "masked_image": MaskedImage(decoder=flat(Decoder, **size), keep=0.25),
            "masked_text": MaskedText(vocab=32, rate=0.3),
            "tied_text": MaskedText(vocab=32, rate=0.3, tied=True),
            "next": NextSentence(Corrupt(vocab=32, rate=0.3)),
            "masked_audio": MaskedAudio(decoder=flat(Decoder, **size), keep=0.5),
        },
        weights={"masked_image": 0.5},
    )


def real_batch(step: int, size: int = 8) -> dict[str, np.ndarray]:
    """Noise of the right types; some rows lack a modality, and texts and sounds differ in length."""
    rng = np.random.default_rng(step)
    batch = {
        "image": rng.integers(0, 256, (size, 16, 16, 3), dtype=np.uint8),
        "text": rng.integers(5, 32, (size, 8), dtype=np.int32),
        "text_mask": np.arange(8) < rng.integers(3, 9, (size, 1)),
        "text_next": rng.random(size) < 0.5,
        "audio": rng.integers(-9000, 9000, (size, 2_000), dtype=np.int16),
        "audio_mask": np.arange(2_000) < rng.integers(1_000, 2_001, (size, 1)),
        "index": np.arange(size, dtype=np.uint32),
        "id": rng.integers(0, 2**32, (size, 2), dtype=np.uint32),
    }
    return batch | {f"{modality}_valid": rng.random(size) < 0.8 for modality in ("image", "text", "audio")}


def drawn_state(pretrainer: Pretrainer, mesh: jax.sharding.Mesh) -> TrainState:
    """A first state by numpy, the same on every mesh: `init_state`, tested above, takes as long to compile again."""
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        value = np.zeros(leaf.shape, leaf.dtype)
        if path[0].name == "params":
            value += (path[-1].key == "scale") + 0.2 * rng.standard_normal(leaf.shape).astype(leaf.dtype)
        return jax.device_put(value, leaf.sharding, may_alias=False)

    return jax.tree_util.tree_map_with_path(draw, abstract_state(pretrainer, OPTIMIZER, real_batch(0), mesh=mesh))


@pytest.mark.parametrize(
    "sizes", [Mesh(data=2, fsdp=2, tensor=2), pytest.param(Mesh(data=1, fsdp=4, tensor=2), marks=pytest.mark.slow)]
)
def test_towers_and_objectives_give_the_losses_of_one_device_on_meshes_of_all_axes(sizes):
    pretrainer = real_pretrainer()
    reference, losses = (
        train(TOTAL, pretrainer=pretrainer, mesh=mesh, state=drawn_state(pretrainer, mesh), batch=real_batch)[1]
        for mesh in (one_device(), sizes.build())
    )
    parts = [name for name in reference[0] if name == "loss" or name.endswith("/loss")]
    assert len(parts) == 8
    reference, losses = ([[metrics[part] for part in parts] for metrics in run] for run in (reference, losses))
    assert np.min(reference) > 0
    np.testing.assert_allclose(losses, reference, rtol=1e-5)


def test_the_parameters_of_towers_are_cut_by_the_rules():
    """Over `fsdp` and `tensor` both where a parameter has a width and hidden units, heads or a vocabulary."""
    pretrainer, mesh = real_pretrainer(), Mesh(data=1, fsdp=4, tensor=2).build()
    params = drawn_state(pretrainer, mesh).params
    block = params["towers_image"]["transformer"]["blocks"]
    in_eight = [block["mlp"]["in"]["kernel"], block["attention"]["out"]["kernel"]]
    in_eight.append(params["towers_text"]["token"]["embedding"])
    for leaf in in_eight:
        assert {shard.data.size * 8 for shard in leaf.addressable_shards} == {leaf.size}
    for leaf, parts in ((block["mlp"]["in"]["bias"], 2), (block["mlp"]["out"]["bias"], 4)):
        assert {shard.data.size * parts for shard in leaf.addressable_shards} == {leaf.size}


def test_activations_are_cut_by_the_rules():
    mesh = Mesh(data=2, fsdp=2, tensor=2).build()
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):

        def hidden(x):
            return constrain(x, "batch", "length", "mlp")

        x = jax.ShapeDtypeStruct((8, 3, 10), jnp.float32)
        assert jax.jit(hidden).lower(x).compile().output_shardings.spec == PartitionSpec(BATCH_AXES, None, "tensor")
        odd = jax.ShapeDtypeStruct((8, 3, 5), jnp.float32)  # 5 units can't be cut in two: they stay whole
        assert jax.jit(hidden).lower(odd).compile().output_shardings.spec == PartitionSpec(BATCH_AXES)


def test_the_compiled_step_passes_columns_round_and_holds_no_matrix_of_all_pairs():
    """Of both losses, round a ring of two axes. 44 is no other size here; a dense step shows that it would be seen."""
    size, mesh = 44, Mesh(data=2, fsdp=2, tensor=2).build()
    real = real_pretrainer()

    def text(method: Literal["auto", "dense"]) -> str:
        pair = ("image", "text")
        objectives = {loss: Contrastive(pair, loss=loss, method=method) for loss in ("softmax", "sigmoid")}
        pretrainer = Pretrainer({name: real.towers[name] for name in pair}, objectives)
        spec = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in real_batch(0, size).items()}
        with jax.set_mesh(mesh):
            state = abstract_state(pretrainer, OPTIMIZER, spec, mesh=mesh)
            step = make_train_step(pretrainer, OPTIMIZER, seed=0, total_steps=TOTAL)
            return compile_train_step(step, state, mesh).lower(state, spec).compile().as_text()

    every_pair = re.compile(r"\[(44|11|22),44\]|\[44,(11|22)\]")
    by_ring = text("auto")
    assert "collective-permute" in by_ring
    assert not every_pair.search(by_ring)
    assert every_pair.search(text("dense"))


def test_a_spike_changes_nothing_but_the_clock_and_without_the_rule_it_does():
    pretrainer, mesh = ToyPretrainer(), one_device()
    for spike in (Spike(deviations=4, window=4), None):
        step = jax.jit(make_train_step(pretrainer, OPTIMIZER, seed=0, total_steps=TOTAL, spike=spike))
        state = init_state(pretrainer, OPTIMIZER, toy_batch(0), seed=0, mesh=mesh, spike=spike)
        for number in range(4):
            state, metrics = step(state, toy_batch(number))
        before, wild = numpy_of(state.params), toy_batch(4)
        state, metrics = step(state, {**wild, "image": 1e3 * wild["image"]})
        assert np.isfinite(metrics["loss"])
        assert metrics["guard/skipped"] == (spike is not None)
        assert metrics.get("guard/spikes", 0) == (spike is not None)
        same = [
            np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, numpy_of(state.params))), strict=True)
        ]
        assert all(same) == (spike is not None)


def test_the_hash_of_a_batch_goes_by_its_examples_and_their_rows():
    rng = np.random.default_rng(0)
    ids, index = rng.integers(0, 2**32, (16, 2), np.uint32), np.arange(16, dtype=np.uint32)
    whole, order = int(batch_hash(jnp.asarray(ids), jnp.asarray(index))), rng.permutation(16)
    assert 0 < whole < 2**24
    assert int(batch_hash(jnp.asarray(ids[order]), jnp.asarray(index[order]))) == whole  # as a woven mesh holds it
    flips = [np.array([flip, *[[0, 0]] * 15], np.uint32) for flip in ([1, 0], [0, 1])]
    others = [ids[::-1], *(ids ^ flip for flip in flips), ids[:, ::-1]]
    assert whole not in [int(batch_hash(jnp.asarray(other), jnp.asarray(index))) for other in others]


def test_a_teacher_is_the_average_as_it_is_before_the_step():
    pretrainer = Pretrainer({"image": ToyTower("image")}, {"distil": Distilling()})
    mesh, batch = one_device(), patches(4)
    state = init_state(pretrainer, OPTIMIZER, batch, seed=3, mesh=mesh, ema=0.5)
    step = jax.jit(make_train_step(pretrainer, OPTIMIZER, seed=3, total_steps=TOTAL, ema=0.5))
    for _ in range(3):
        before, (state, found) = state, step(state, batch)
    rngs = {name: step_key(3, 2, name) for name in ("mask", "dropout")}
    averages: list[Any] = [before.ema, before.params]
    loss, other = (
        pretrainer.apply({"params": before.params, "ema": average}, batch, 2, rngs=rngs)[0] for average in averages
    )
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    assert abs(other - loss) > 1e-5
    moved = jax.tree.map(lambda a, p: a + 0.5 * (p - a), before.ema, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), state.ema, moved)
