"""MERLOT Reserve's objective equals its formulas; neither the cut nor the mesh changes it; it learns."""

from dataclasses import replace
from functools import cache
from math import log
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Pretrainer
from mmjax.runtime.mesh import ACTIVATION_RULES, state_shardings
from tests.models.towers.reserve import twin
from tests.objectives.reserve import by_hand
from tests.objectives.reserve.windows import LENGTH, SEGMENTS, SIZE, VOCAB, batch, blocks, objective, told_batch, towers
from tests.objectives.toys import assert_same

B = 8
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
LOSSES = ("imgs_to_audio", "text_to_audio", "stuff_to_span")
BATCH = {name: x + 9 if name == "index" else x for name, x in batch(B).items()}


def build(microbatches: int = 1, scaled: bool = False, dropout: float = 0.0, **fields: Any) -> Any:
    parts, own = towers(dropout=dropout, depth=1, scaled=scaled), blocks(1, dropout=dropout)
    if "audio" in fields:
        del parts["audio"]
    return Pretrainer(parts, {"reserve": objective(blocks=own, scaled=scaled, **fields)}, microbatches=microbatches)


def drawn(pretrainer: Any, given: Any = BATCH) -> Any:
    """Parameters with numbers that matter, biases too."""
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), given))
    held = jax.tree_util.tree_map_with_path(
        # Of queries and keys more, so that attention, and with it places, tells something.
        lambda path, x: jnp.float32((1.5 if "qkv" in str(path) else 0.3) * random.normal(size=x.shape)),
        shapes,
    )
    held["params"]["objectives_reserve"]["log_scale"] = jnp.float32([1.5, 2.0, 2.5])
    return held


def gradient(pretrainer: Any) -> Any:
    return jax.jit(
        jax.value_and_grad(lambda variables, given: pretrainer.apply(variables, given, rngs=KEYS), has_aux=True)
    )


@cache
def evaluated(**fields: Any) -> Any:
    """The loss and the metrics without dropout, compiled once."""
    pretrainer = build(**fields)
    return jax.jit(lambda variables, given, key: pretrainer.apply(variables, given, train=False, rngs={"mask": key}))


def apply(variables: Any, given: Any, seed: int = 5, **fields: Any) -> Any:
    loss, metrics = evaluated(**fields)(variables, given, jax.random.key(seed))
    return float(loss), {name.removeprefix("reserve/"): float(x) for name, x in metrics.items()}


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(build())


@pytest.fixture(scope="module")
def whole(variables: Any) -> Any:
    return gradient(build(dropout=0.2))(variables, BATCH)


@pytest.mark.parametrize("microbatches", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_the_cut_changes_nothing(microbatches: int, variables: Any, whole: Any) -> None:
    """Neither what is dropped out nor which spans are chosen."""
    assert_same(gradient(build(microbatches, dropout=0.2))(variables, BATCH), whole, 1e-5)


@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_a_mesh_changes_nothing(shape: tuple[int, ...], variables: Any, whole: Any) -> None:
    """Parameters lie as in training: cut over `fsdp` and `tensor`."""
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(BATCH, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    laid_out = state_shardings(jax.eval_shape(build().init, jax.random.key(0), BATCH), mesh)
    held = jax.device_put(variables, laid_out)
    if shape == (2, 2, 2):
        assert {str(x.sharding.spec) for x in jax.tree.leaves(held)} != {"PartitionSpec()"}
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build(dropout=0.2))(held, rows), whole, 1e-5)


def test_every_parameter_gets_a_gradient(whole: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(whole[1]):
        text = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), text
        # The bias of keys moves all logits alike.
        assert np.abs(leaf).max() > 0 or "bias" in text, text


def encoded(held: Any, given: Any, **fields: Any) -> Any:
    """The towers' tokens of all parts: what `test_vision` and `test_audio` hold to be right."""
    found = {}
    for name, tower in towers(depth=1, **fields).items():
        own = {"params": held["params"][f"towers_{name}"]}
        found[name] = tower.apply(own, given[name], given[f"{name}_mask"], method="tokens")[0]
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"chosen": 12},
        {"chosen": 12, "scaled": True},
        {"chosen": 6, "streams": ("text2audio",), "web_text": None},
        {"chosen": 12, "streams": ("audio2text", "matching")},
    ],
    ids=str,
)
def test_losses_are_those_of_one_example_after_the_other(fields: dict[str, Any], variables: Any) -> None:
    """All spans are compared: sequences, encoders and the comparison are the formulas', token by token."""
    scaled = fields.get("scaled", False)
    held = variables["params"]["objectives_reserve"]
    loss, metrics = apply(variables, BATCH, **fields)
    tokens = encoded(variables, BATCH, scaled=scaled)
    streams = (
        *fields.get("streams", ("text2audio", "audio2text", "matching")),
        *["web_text"] * ("web_text" not in fields),
    )
    found = by_hand.compared(
        BATCH, twin.in_float64(held), tokens["video"], tokens["audio"], (2, 3), scaled=scaled, streams=streams
    )
    total = 0.0
    for place, name in enumerate(LOSSES):
        if name not in found.pairs:
            assert f"loss/{name}" not in metrics
            continue
        scale = float(np.exp(held["log_scale"][place]))
        extra = found.extra if name == "text_to_audio" else []
        states, targets = (list(some) for some in zip(*found.pairs[name], strict=True))
        expected, hits = by_hand.info_nce(states, targets, extra, scale)
        np.testing.assert_allclose(metrics[f"loss/{name}"], expected, rtol=1e-5)
        np.testing.assert_allclose(metrics[f"accuracy/{name}"], hits, rtol=1e-5)
        np.testing.assert_allclose(metrics[f"logit_scale/{name}"], scale, rtol=1e-5)
        total += expected
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-5)


def in_numbers(found: by_hand.Found, name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    states, targets = zip(*found.pairs[name], strict=True)
    return list(states), list(targets)


def test_losses_may_be_some_and_sounds_of_what_was_removed_the_only_ones(variables: Any) -> None:
    held = variables["params"]["objectives_reserve"]
    loss, metrics = apply(variables, BATCH, losses=("text_to_audio",), extra=False)
    tokens = encoded(variables, BATCH)
    found = by_hand.compared(
        BATCH, twin.in_float64(held), tokens["video"], tokens["audio"], (2, 3), streams=("text2audio",)
    )
    expected, hits = by_hand.info_nce(*in_numbers(found, "text_to_audio"), [], float(np.exp(held["log_scale"][1])))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy/text_to_audio"], hits, rtol=1e-5)
    assert metrics["candidates/text_to_audio"] == len(found.pairs["text_to_audio"])
    assert {name for name in metrics if name.startswith("loss/")} == {"loss/text_to_audio"}
    _, told = apply(variables, BATCH, losses=("text_to_audio",))
    assert told["candidates/text_to_audio"] == len(found.pairs["text_to_audio"]) + len(found.extra)


def test_spans_of_the_same_ids_may_be_alike(variables: Any) -> None:
    """Of the batch's spans some are made the same, within an example and between two."""
    given = dict(BATCH)
    for key in ("words", "words_lengths"):
        given[key] = np.array(given[key])
    there = np.argwhere(given["words_lengths"] > 0)
    for (a, b), (c, d) in zip(there[:6], there[6:12], strict=True):
        given["words"][c, d], given["words_lengths"][c, d] = given["words"][a, b], given["words_lengths"][a, b]
    fields: dict[str, Any] = {"chosen": 12, "losses": ("stuff_to_span",)}
    held = variables["params"]["objectives_reserve"]
    tokens = encoded(variables, given)
    found = by_hand.compared(given, twin.in_float64(held), tokens["video"], tokens["audio"], (2, 3))
    assert len(set(found.ids)) < len(found.ids) - 4
    scale = float(np.exp(held["log_scale"][2]))
    for equal, (expected, hits) in {
        True: by_hand.info_nce_of_equals(*in_numbers(found, "stuff_to_span"), found.ids, scale),
        False: by_hand.info_nce_of_equals(*in_numbers(found, "stuff_to_span"), list(range(len(found.ids))), scale),
    }.items():
        loss, metrics = apply(variables, given, equal_spans=equal, **fields)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        if equal:  # two equal vectors are as near, which is no hit by rounding
            np.testing.assert_allclose(metrics["accuracy/stuff_to_span"], hits, rtol=1e-5)


@pytest.mark.parametrize("mask_each", [True, False])
def test_each_token_of_a_span_may_be_predicted_in_its_place(mask_each: bool, variables: Any) -> None:
    """Where the data has one mask for a span, its first token is."""
    given = batch(B, mask_each=mask_each)
    own = {k: v for k, v in variables["params"]["objectives_reserve"].items() if k != "span"}
    held = {"params": variables["params"] | {"objectives_reserve": own}}
    loss, metrics = apply(held, given, masked_words=True, losses=("stuff_to_span",))
    tokens = encoded(variables, given)
    found = by_hand.compared(given, twin.in_float64(own), tokens["video"], tokens["audio"], (2, 3))
    lengths = (
        given["words_lengths"][given["words_valid"]].sum()
        if mask_each
        else (given["words_lengths"] > 0)[given["words_valid"]].sum()
    )
    web = given["web_text_valid"].sum() * 6
    assert len(found.words) == lengths + web
    table = np.asarray(own["token"]["embedding"], np.float64)
    logits = np.array([state @ table.T for state, _ in found.words])
    ids = np.array([id for _, id in found.words])
    errors = (
        np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1) - logits[np.arange(len(ids)), ids]
    )
    np.testing.assert_allclose(loss, errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss/masked_words"], errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy/masked_words"], (logits.argmax(1) == ids).mean(), rtol=1e-5)
    assert "loss/stuff_to_span" not in metrics


@pytest.mark.slow  # the cut of the other objective is counted above
def test_the_cut_changes_nothing_of_masked_words() -> None:
    given, fields = batch(B, mask_each=True), {"masked_words": True, "dropout": 0.2}
    held = drawn(build(**fields), given)
    assert_same(gradient(build(4, **fields))(held, given), gradient(build(**fields))(held, given), 1e-5)


@pytest.fixture(scope="module")
def initial() -> Any:
    return nn.unbox(jax.jit(build().init)({"params": jax.random.key(0), "mask": jax.random.key(1)}, BATCH))


def test_each_loss_starts_near_the_logarithm_of_its_candidates(initial: Any) -> None:
    given = batch(B, lacking=False)
    _, metrics = apply(initial, given)
    sounds, removed = B * 12, int((given["words_text2audio_target_ptr"] >= 0).sum())
    assert removed == 3 * B
    assert metrics["loss/imgs_to_audio"] == pytest.approx(log(SEGMENTS * B), abs=0.15)
    assert metrics["loss/text_to_audio"] == pytest.approx((log(sounds) + log(removed)) / 2, abs=0.15)
    assert metrics["loss/stuff_to_span"] == pytest.approx(log(8 * B), abs=0.15)
    assert [metrics[f"logit_scale/{name}"] for name in LOSSES] == pytest.approx([np.e] * 3, rel=1e-6)
    start = nn.unbox(
        jax.jit(build(scale_init=14.0).init)({"params": jax.random.key(0), "mask": jax.random.key(1)}, given)
    )
    np.testing.assert_allclose(np.exp(start["params"]["objectives_reserve"]["log_scale"]), 14.0, rtol=1e-6)


def test_so_many_spans_are_chosen_for_each_example_and_another_key_chooses_others(initial: Any) -> None:
    given = batch(B, lacking=False)
    found = [
        apply(initial, given, seed, **fields)[1]["loss/stuff_to_span"]
        for seed, fields in ((0, {}), (0, {}), (1, {}), (0, {"chosen": 12}))
    ]
    assert found[0] == found[1] != found[2]
    spans = (given["words_lengths"] > 0).sum() + (given["web_text_lengths"] > 0).sum()
    assert spans > 9 * B
    for value, count in zip(found, (8 * B, 8 * B, 8 * B, spans), strict=True):
        assert value == pytest.approx(log(count), abs=0.03)


def test_true_rotation_and_the_released_scaling_differ(variables: Any) -> None:
    first, second = (apply(variables, BATCH, chosen=12, **more)[0] for more in ({}, {"scaled": True}))
    assert abs(first - second) > 1e-3


@pytest.fixture(scope="module")
def trained() -> Any:
    return gradient(build())


@pytest.mark.parametrize(
    "lacking", [("audio",), ("words",), ("web_text",), ("video",), ("words", "web_text"), ("audio", "video")]
)
def test_what_a_batch_lacks_is_left_out_and_the_rest_trains(
    lacking: tuple[str, ...], variables: Any, trained: Any
) -> None:
    given = dict(batch(B, lacking=False))
    random = np.random.default_rng(9)
    for name in lacking:  # whatever stands there
        given[f"{name}_valid"] = np.zeros(B, bool)
        if name in ("audio", "video"):
            given[name] = random.permuted(given[name])
    (loss, metrics), gradients = trained(variables, given)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    trains = {
        "imgs_to_audio": not {"words", "video"} & {*lacking},
        "text_to_audio": not {"words", "audio"} & {*lacking},
        "stuff_to_span": not {"words", "web_text"} <= {*lacking},
    }
    for name, there in trains.items():
        assert (metrics[f"reserve/loss/{name}"] > 0.1) == there, name
    touched = {
        name: any(np.abs(x).max() > 0 for x in jax.tree.leaves(tree)) for name, tree in gradients["params"].items()
    }
    assert touched["towers_audio"] == ("words" not in lacking and "audio" not in lacking)
    assert touched["towers_video"] == ("words" not in lacking and "video" not in lacking)
    assert touched["objectives_reserve"] == any(trains.values()) == (loss > 0)
    counted = objective().counted(given)
    assert np.asarray(counted).all() == (not {"words", "web_text"} <= {*lacking})


def test_a_missing_clip_or_frame_is_as_if_it_had_never_been(variables: Any) -> None:
    """Its content changes nothing, and neither does that of what an example lacks."""
    other = dict(BATCH)
    for name in ("video", "audio"):
        there = BATCH[f"{name}_mask"] & BATCH[f"{name}_valid"][:, None]
        assert not there.all()
        noise = np.random.default_rng(3).permuted(BATCH[name])
        other[name] = np.where(there.reshape(*there.shape, *[1] * (noise.ndim - 2)), BATCH[name], noise)
    first, second = (apply(variables, given) for given in (BATCH, other))
    assert first[0] == second[0]
    assert first[1] == second[1]


def test_an_experiment_without_sound_or_web_text_has_neither(variables: Any) -> None:
    pretrainer = build(audio=None, web_text=None)
    given = {name: x for name, x in BATCH.items() if not name.startswith(("audio", "web_text"))}
    own = {"params": {name: x for name, x in variables["params"].items() if name != "towers_audio"}}
    _, metrics = jax.jit(pretrainer.apply)(own, given)  # without a key: nothing is drawn
    assert {name for name in metrics if "loss/" in name} == {
        "reserve/loss/imgs_to_audio",
        "reserve/loss/stuff_to_span",
    }
    with pytest.raises(UserError, match="an objective draws at random and was given no key"):
        jax.eval_shape(build().apply, variables, BATCH)


def test_sequences_of_one_length_are_read_together(variables: Any) -> None:
    """One length, one pass; a stream of another length is read by itself, and means the same."""

    def passes(given: Any) -> int:
        run = lambda v: build().apply(v, given, train=False, rngs=KEYS)[0]  # noqa: E731
        return str(jax.make_jaxpr(run)(variables)).count("scan[")

    longer = {
        name: np.pad(x, ((0, 0), (0, 0), (0, 3)), constant_values=-1 if x.ndim == 3 and name[-3:] != "ing" else 0)
        if name.startswith("words_matching") and not name.endswith("frame_blocks")
        else x
        for name, x in BATCH.items()
    }
    assert passes(longer) == passes(BATCH) + 1
    np.testing.assert_allclose(apply(variables, longer)[0], apply(variables, BATCH)[0], rtol=1e-5)


@pytest.mark.slow
def test_it_learns_by_heart() -> None:
    """Initialised as Glorot's, with a larger scale: what the paper starts with is too small for a width of 32."""
    given, parts = told_batch(4), towers(depth=1, inits="xavier")
    pretrainer = Pretrainer(parts, {"reserve": objective(blocks=blocks(1, inits="xavier"), chosen=3)})
    held = nn.unbox(jax.jit(pretrainer.init)({"params": jax.random.key(0), "mask": jax.random.key(1)}, given))
    held["params"]["objectives_reserve"]["log_scale"] = jnp.full(3, 2.0)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.warmup_cosine_decay_schedule(0.0, 7e-3, 10, 120))
    )

    @jax.jit
    def step(held: Any, state: Any) -> Any:
        (_, metrics), found = jax.value_and_grad(lambda v: pretrainer.apply(v, given, rngs=KEYS), has_aux=True)(held)
        updates, state = optimizer.update(found, state)
        return optax.apply_updates(held, updates), state, metrics

    state, metrics = optimizer.init(held), {}
    for _ in range(120):
        held, state, metrics = step(held, state)
    assert all(metrics[f"reserve/accuracy/{name}"] > 0.9 for name in LOSSES)


INPUTS = {
    "video": Incoming((SEGMENTS, *SIZE, 3), "uint8"),
    "audio": Incoming((12, 1_600), "int16"),
    "words": Incoming((6, 5), "int32", ("lengths", "text2audio", "audio2text", "matching"), pieces=VOCAB - 10),
    "web_text": Incoming((LENGTH,), "int32", ("spans", "lengths", "text_ptr"), pieces=VOCAB - 10),
}


@pytest.mark.parametrize(
    ("fields", "inputs", "message"),
    [
        ({}, {"words": Incoming((6,), "int32")}, r"reads the streams of 'words'.*end it in ReserveStreams\(...\)"),
        ({}, {"web_text": Incoming((6,), "int32")}, r"reads the streams of 'web_text'.*end it in MaskSpans\(...\)"),
        ({"vocab": VOCAB - 1}, {}, r"with 10 special ids objectives.reserve.vocab=599 has no room .* set it to 600"),
        ({"grid": (3, 3)}, {}, r"grid=\(3, 3\), and a frame of towers.video has \(2, 3\) tokens: set it to that"),
        ({"blocks": blocks(width=16)}, {}, "blocks.width=16, and towers.video is 32 wide: set them alike"),
        ({"streams": ("text2audio", "audio2txt")}, {}, r"streams has 'audio2txt'.*did you mean audio2text\?"),
        ({"losses": ()}, {}, r"Reserve\(losses=\(\)\): name one at least, of imgs_to_audio, text_to_audio"),
        ({"losses": ("stuff_to_spans",)}, {}, r"losses has 'stuff_to_spans'.*did you mean stuff_to_span\?"),
        ({"scale_init": 0.0}, {}, "scale_init=0, .*the others are above 0"),
        ({"chosen": 0}, {}, r"Reserve\(chosen=0, favour=4.0, scale_init=2.71828, scale_max=100.0\): chosen is a"),
    ],
)
def test_what_does_not_fit_is_named(fields: dict[str, Any], inputs: dict[str, Incoming], message: str) -> None:
    objective().check_parts("objectives.reserve", towers(), INPUTS)
    objective(web_text=None).check_parts(
        "objectives.reserve", towers(), {k: INPUTS[k] for k in ("video", "audio", "words")}
    )
    with pytest.raises(UserError, match=message):
        objective(**fields).check_parts("objectives.reserve", towers(), INPUTS | inputs)


@pytest.mark.parametrize(("width", "uniform"), [(32, False), (1_024, True)])
def test_the_table_starts_as_in_the_released_code(width: int, uniform: bool) -> None:
    own = objective(blocks=replace(blocks(1), width=width, heads=width // 16), vocab=200)
    table = nn.unbox(own.bind({}, mutable=True, rngs={"params": jax.random.key(0)}).token(jnp.arange(200)))
    deviation = np.sqrt(2 / (200 + width)) if uniform else 0.02
    assert np.std(table) == pytest.approx(deviation, rel=0.03)
    assert (np.abs(table).max() <= np.sqrt(3) * deviation * 1.001) == uniform
