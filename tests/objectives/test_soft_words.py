"""Masked words with a teacher's soft targets: towers, fusion and head by hand, of parameters and of their average."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models import Blocks, Cross, TextTransformer
from mmjax.objectives import Fused, MaskedText, Pretrainer, View
from mmjax.objectives.contract import present
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.rounds import Fusing, ToyFusion
from tests.objectives.toys import VOCAB, WIDTH, ToyTower, assert_same, stems, toy_batch

B, ALPHA = 8, 0.4
READER = Cross(reader="text", blocks=Blocks(width=WIDTH, depth=1, heads=2))
KEYS = {"mask": jax.random.key(5)}
BATCH: Any = {name: x for name, x in toy_batch(B).items() if "audio" not in name}


def build(microbatches: int = 1, **fields: Any) -> Any:
    towers = {name: ToyTower(name) for name in ("image", "text")}
    more: dict[str, Any] = {"alpha": ALPHA, "fusion": "reader", "beside": ("image",), **fields}
    words = MaskedText(vocab=VOCAB, rate=0.5, **more)
    return Pretrainer(towers, {"words": words}, microbatches=microbatches, fusions={"reader": READER})


@pytest.fixture(scope="module")
def held() -> Any:
    """Parameters, and an average that isn't they."""
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(build().init, jax.random.key(0), BATCH))["params"]
    return {name: jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)
            for name in ("params", "ema")}  # fmt: skip


def gradient(pretrainer: Any, step: int = 0) -> Any:
    return jax.jit(jax.value_and_grad(lambda held, batch: pretrainer.apply(held, batch, step, rngs=KEYS), has_aux=True))


@pytest.fixture(scope="module")
def whole(held: Any) -> Any:
    return gradient(build())(held, BATCH)


def logits_of(params: Any, corrupted: Any, mask: Any, given: Any) -> Any:
    """Of every place of every row, by the modules alone."""
    tokens = {}
    for name, x, there in (("text", corrupted, mask), ("image", given["image"], None)):
        tokens[name] = ToyTower(name).apply({"params": params[f"towers_{name}"]}, x, there, method="tokens")
        tokens[name] = tokens[name][0], tokens[name][1] & given[f"{name}_valid"][:, None]
    fused, _ = READER.apply({"params": params["fusions_reader"]}, tokens)  # pyright: ignore
    head = params["objectives_words"]
    x = nn.gelu(fused["text"][0] @ head["dense"]["kernel"] + head["dense"]["bias"], approximate=False)
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * head["norm"]["scale"] + head["norm"]["bias"]
    return x @ head["words"]["kernel"] + head["words"]["bias"]


def test_loss_and_gradient_are_those_of_the_formula(held: Any, whole: Any) -> None:
    given = present(BATCH)
    ids, mask = jnp.asarray(given["text"]), jnp.asarray(given["text_mask"])
    key = build().apply({}, method=lambda self: self.make_rng("mask"), rngs=KEYS)
    corrupt = MaskedText(vocab=VOCAB, rate=0.5).corrupt
    corrupted, chosen = corrupt.draw(View("text", corrupt).key(key), jnp.asarray(given["index"]), ids, mask)
    chosen &= given["text_valid"][:, None]

    def by_hand(held: Any) -> Any:
        student, teacher = (logits_of(held[name], corrupted, mask, given) for name in ("params", "ema"))
        log_p, t = jax.nn.log_softmax(student), jax.nn.softmax(jax.lax.stop_gradient(teacher))
        hard = -jnp.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]
        each = (1 - ALPHA) * hard + ALPHA * -(t * log_p).sum(-1)
        return jnp.where(chosen, each, 0).sum() / chosen.sum()

    loss, gradients = jax.jit(jax.value_and_grad(by_hand))(held)
    np.testing.assert_allclose(whole[0][0], loss, rtol=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(gradients)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * norm), whole[1], gradients)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(whole[1]["ema"]))


def test_the_cut_changes_nothing_and_each_view_is_encoded_once(held: Any, whole: Any) -> None:
    assert_same(gradient(build(4))(held, BATCH), whole, 1e-5)
    assert stems(build(), BATCH) == 4
    assert stems(build(alpha=0.0), BATCH) == 2


def test_a_mesh_changes_nothing(held: Any, whole: Any) -> None:
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(BATCH, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(held, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build())(replicated, rows), whole, 1e-5)


def test_the_teacher_s_part_rises_and_its_dropout_is_off(held: Any, whole: Any) -> None:
    run = jax.jit(lambda step: build(ramp_steps=4).apply(held, BATCH, step, rngs=KEYS)[0])
    losses = [run(step) for step in (0, 2, 4, 9)]
    plain = jax.jit(lambda params: build(alpha=0.0).apply({"params": params}, BATCH, rngs=KEYS)[0])(held["params"])
    np.testing.assert_allclose(losses, [plain, (plain + whole[0][0]) / 2, *[whole[0][0]] * 2], rtol=1e-5)
    towers = {name: ToyTower(name) for name in ("image", "text")}
    encoded = []

    class Spying(MaskedText):
        def per_example(self, encoded_: Any, batch: Any, context: Any) -> Any:
            encoded.append([encoded_[view].parts[0].tokens for view in self.views()])
            return super().per_example(encoded_, batch, context)

    fields: Any = {"vocab": VOCAB, "rate": 0.5, "alpha": 1.0, "fusion": "both", "beside": ("image",)}
    spying = Pretrainer(towers, {"words": Spying(**fields)}, fusions={"both": ToyFusion(rate=0.9)})
    shapes = nn.unbox(jax.eval_shape(spying.init, jax.random.key(0), BATCH))["params"]
    params = jax.tree.map(lambda x: jnp.full(x.shape, 0.1, x.dtype), shapes)
    (student, teacher), (other, same) = (
        jax.jit(lambda key: (spying.apply({"params": params, "ema": params}, BATCH, rngs=KEYS | {"dropout": key}),
                             encoded[-1])[1])(jax.random.key(key))
        for key in (1, 2)
    )  # fmt: skip
    assert not np.allclose(student, other)
    np.testing.assert_array_equal(teacher, same)


def test_a_tied_head_of_the_teacher_has_the_teacher_s_table() -> None:
    """Its logits are those that a model with the average's parameters gives."""
    logits = []

    class Listening(MaskedText):
        def predicted(self, view: Any, positions: Any) -> Any:
            logits.append(super().predicted(view, positions))
            return logits[-1]

    tower = TextTransformer(vocab=VOCAB, length=8, blocks=Blocks(width=WIDTH, depth=1, heads=2), embed_dim=4)
    plain, soft = (
        Pretrainer({"text": tower}, {"words": Listening(vocab=VOCAB, rate=0.5, tied=True, alpha=alpha)})
        for alpha in (0.0, 1.0)
    )
    shapes = nn.unbox(jax.eval_shape(plain.init, jax.random.key(0), BATCH))["params"]
    random = np.random.default_rng(1)
    params, ema = (
        jax.tree.map(lambda x: jnp.float32(random.normal(size=x.shape)), shapes) for _ in ("params", "average")
    )

    def heard(pretrainer: Any, **variables: Any) -> Any:
        logits.clear()
        pretrainer.apply(variables, BATCH, rngs=KEYS)
        return list(logits)

    student, teacher = jax.jit(lambda params, ema: heard(soft, params=params, ema=ema))(params, ema)
    for found, held in ((student, params), (teacher, ema)):
        (expected,) = jax.jit(lambda params: heard(plain, params=params))(held)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(student, teacher)


def test_what_does_not_fit_is_refused(held: Any) -> None:
    towers = {name: ToyTower(name) for name in ("image", "text")}
    for fields, message in (
        ({"alpha": 1.2}, "o.alpha=1.2 must lie from 0 to 1"),
        ({"ramp_steps": -1}, "ramp_steps=-1"),
    ):
        with pytest.raises(UserError, match=message):
            MaskedText(vocab=9, **fields).check_parts("o", towers, {})  # pyright: ignore
    with pytest.raises(UserError, match="is a teacher's, and there is no moving average"):
        jax.eval_shape(lambda: build().apply({"params": held["params"]}, BATCH, rngs=KEYS))

    class Mixed(Fusing):
        def views(self) -> Any:
            return (Fused("both", (View("image"), View("text", teacher=True))),)

    with pytest.raises(UserError, match="fuses image, text, of which a teacher encodes text alone"):
        jax.eval_shape(
            Pretrainer(towers, {"fuse": Mixed()}, fusions={"both": ToyFusion()}).init, jax.random.key(0), BATCH
        )
