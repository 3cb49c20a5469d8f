"""An answer written of a question that has seen the picture: its loss by hand, for any cut and mesh, what it reads."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.errors import UserError
from mmjax.models import Blocks, Cross, DecoderBlocks, Merged, TextDecoder
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Caption, Pretrainer, SelfCritical
from mmjax.objectives.contract import present, usable
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.objectives.toys import VOCAB, WIDTH, ToyTower, assert_same, stems, toy_batch

B, L = 16, 6
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
READ = {"cross": ("text",), "merged": ("text", "image")}  # by the decoder


def answering(fusion: str = "cross", dropout: float = 0.2, **fields: Any) -> Caption:
    blocks = DecoderBlocks(width=WIDTH, depth=2, heads=2, dropout=dropout)
    decoder = TextDecoder(vocab=VOCAB, length=L, blocks=blocks, cross="within", context=dict.fromkeys(READ[fusion]))
    return Caption(decoder, **{"text": "answer", "reads": ("image", "text"), "fusion": fusion, **fields})


def fusion_of(objective: Caption) -> Any:
    blocks = Blocks(width=WIDTH, depth=1, heads=2, dropout=objective.decoder.blocks.dropout)
    return Cross(reader="text", blocks=blocks) if objective.fusion == "cross" else Merged(blocks=blocks)


def build(objective: Caption, microbatches: int = 1) -> Any:
    towers = {name: ToyTower(name) for name in ("image", "text")}
    fusions: Any = {objective.fusion: fusion_of(objective)}
    return Pretrainer(towers, {"answer": objective}, microbatches=microbatches, fusions=fusions)


def batch() -> Any:
    random = np.random.default_rng(4)
    given = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    given["text_mask"] = np.arange(given["text"].shape[1]) < random.choice([3, 7], (B, 1))
    given["answer_mask"] = np.arange(L) < random.integers(2, L + 1, (B, 1))
    given["answer"] = np.where(given["answer_mask"], random.integers(5, VOCAB, (B, L)), 0).astype(np.int32)
    given["answer_valid"] = np.arange(B) != 7
    return given


def drawn(pretrainer: Any) -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), batch()))
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


def gradient(pretrainer: Any, variables: Any, given: Any) -> Any:
    run = jax.value_and_grad(lambda v, rows: pretrainer.apply(v, rows, rngs=KEYS), has_aux=True)
    return jax.jit(run)(variables, given)


@pytest.fixture(scope="module", params=READ)
def whole(request: Any) -> Any:
    objective = answering(request.param)
    variables = drawn(build(objective))
    return objective, variables, gradient(build(objective), variables, batch())


def test_it_is_the_cross_entropy_of_the_answer_s_words_after_the_fusion(whole: Any) -> None:
    """Towers, fusion and decoder one example at a time, without padding; what an example lacks was never there."""
    objective, variables, _ = whole
    params, given = variables["params"], present(batch())
    fusion, decoder = fusion_of(objective), objective.decoder
    own = {"params": params["objectives_answer"]["decoder"]}

    @jax.jit
    def logits_of(tokens: Any, ids: Any) -> Any:  # of all places: none sees a later word
        fused, _ = fusion.apply({"params": params[f"fusions_{objective.fusion}"]}, tokens)
        states = decoder.apply(own, ids, None, {name: fused[name] for name in READ[objective.fusion]})
        return decoder.apply(own, states, method="logits")[0]

    @functools.partial(jax.jit, static_argnums=0)
    def tokens_of(name: str, x: Any, mask: Any) -> Any:
        return ToyTower(name).apply({"params": params[f"towers_{name}"]}, x, mask, method="tokens")

    loss, metrics = build(objective).apply(variables, batch(), train=False)
    total, hits, count = 0.0, 0, 0
    for row in np.flatnonzero(usable(objective, given)):
        tokens = {}
        for name in objective.reads:
            mask = given[f"{name}_mask"][row : row + 1] if name == "text" else None
            x, real = tokens_of(name, given[name][row : row + 1], mask)
            kept = np.flatnonzero(np.asarray(real[0]) & given[f"{name}_valid"][row])
            tokens[name] = x[:, kept], real[:, kept]
        ids = given["answer"][row][given["answer_mask"][row]]
        logits = np.asarray(logits_of(tokens, given["answer"][row : row + 1, :-1])[: len(ids) - 1], np.float64)
        said = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        total -= said[np.arange(len(ids) - 1), ids[1:]].sum()
        hits, count = hits + (said.argmax(axis=-1) == ids[1:]).sum(), count + len(ids) - 1
    assert count > B
    np.testing.assert_allclose(loss, total / count, rtol=1e-5)
    np.testing.assert_allclose(metrics["answer/accuracy"], hits / count, rtol=1e-6)


@pytest.mark.parametrize("microbatches", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_the_cut_changes_nothing_and_each_view_is_encoded_once(microbatches: int, whole: Any) -> None:
    objective, variables, expected = whole
    assert_same(gradient(build(objective, microbatches), variables, batch()), expected, 1e-5)
    assert stems(build(answering(objective.fusion, dropout=0.0)), batch()) == 2


def test_a_mesh_changes_nothing(whole: Any) -> None:
    objective, variables, expected = whole
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    held = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build(objective), held, rows), expected, 1e-5)


def test_an_answer_counts_where_there_is_what_the_decoder_reads() -> None:
    given = batch() | {"image_valid": np.arange(B) > 4, "text_valid": np.arange(B) > 2}
    there = given["answer_valid"]
    np.testing.assert_array_equal(usable(answering(), given), there & given["text_valid"])
    np.testing.assert_array_equal(usable(answering("merged"), given), there & (np.arange(B) > 2))
    np.testing.assert_array_equal(usable(answering(alone=True), given), there)


def test_what_is_read_to_write_is_what_the_fusion_made(whole: Any) -> None:
    objective, variables, _ = whole
    given = {name: x for name, x in batch().items() if not name.startswith("answer")}
    found = build(objective).apply(variables, given, "answer", method="views_to_write")
    assert {*found} == {*READ[objective.fusion]}
    dark = build(objective).apply(variables, given | {"image": 0 * given["image"]}, "answer", method="views_to_write")
    both = given["image_valid"] & given["text_valid"]
    change = np.abs(found["text"][0] - dark["text"][0]).max(axis=(1, 2))
    assert (change[both] > 1e-3).all()  # the question's tokens have seen the picture
    assert (change[~given["image_valid"]] == 0).all()
    np.testing.assert_array_equal(np.any(found["text"][1], axis=1), given["text_valid"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "text"}, r"o.reads=\('image', 'text'\) has 'text', the words of which it predicts"),
        ({"reads": ("image", "audio")}, "by the fusion 'cross' and o.decoder reads text .*: let it read one of those"),
        ({"fusion": None}, r"o.reads=\('image', 'text'\) and o.decoder reads text .*: name the same in both"),
    ],
)
def test_what_does_not_fit_is_refused(fields: Any, message: str) -> None:
    texts = {name: Incoming((L,), "int32", (), None, VOCAB) for name in ("text", "answer")}
    with pytest.raises(UserError, match=message):
        answering().clone(**fields).check_parts("o", {}, texts)
    answering().check_parts("o", {}, texts)


def test_a_reward_of_texts_reads_a_fusion_too() -> None:
    objective = SelfCritical(answering().decoder, ("image", "text"), text="answer", fusion="cross", most=L)
    references = {"answer": Incoming((2, L), "int32", ("lengths",), None, VOCAB)}
    objective.check_parts("o", {}, references)
    assert objective.views() == answering().views()
    inserted = answering().decoder.clone(context={}, cross=None, inserted={"text": None})
    with pytest.raises(UserError, match=r"o.decoder.inserted=\['text'\]: texts that are drawn have no places"):
        objective.clone(decoder=inserted).check_parts("o", {}, references)
