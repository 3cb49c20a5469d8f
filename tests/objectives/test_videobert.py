"""VideoBERT's parts together: words and visual words in one BERT, by hand, for any cut, and on a corpus of recipes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.models import Blocks, Merged, TextTransformer
from mmjax.objectives import Corrupt, MaskedText, Matching, Pretrainer, View
from mmjax.objectives.contract import named_key
from mmjax.runtime.mesh import ACTIVATION_RULES
from tests.models.fusion.test_tokens import at, gelu, norm, own_block
from tests.objectives.toys import assert_same

B, WIDTH, EPS = 16, 16, 1e-12
LENGTHS = {"text": 7, "video": 8}  # with [CLS], and with [>] and [SEP]
IDS: dict[str, dict[str, int]] = {
    "text": {"vocab": 24, "mask_id": 4, "first_id": 5},
    "video": {"vocab": 33, "mask_id": 2, "first_id": 3},
}
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
ROWS = {"text": [3, 7], "video": [1, 7, 12]}  # those that lack it


def blocks(depth: int, width: int = WIDTH, **more: Any) -> Blocks:
    return Blocks(width=width, depth=depth, heads=4, norm="post", norm_eps=EPS, remat=None, **more)


def build(ids: Any = IDS, rate: float = 0.4, depth: int = 2, microbatches: int = 1, **more: Any) -> Any:
    """As experiments/videobert.py puts them together."""
    towers = {
        name: TextTransformer(vocab=own["vocab"], length=16, positions="none", pooling="mean", blocks=blocks(0, **more))
        for name, own in ids.items()
    }
    hidden = tuple(View(name, Corrupt(rate=rate, **own)) for name, own in ids.items())
    both: dict[str, Any] = {"fusion": "stream", "beside": hidden, "tied": True, "norm_eps": EPS, "rate": rate}
    objectives = {
        "words": MaskedText(**both, **ids["text"]),
        "seen": MaskedText(**both, **ids["video"], modality="video"),
        "align": Matching("stream", pair=("text", "video"), negatives="random", half_right=True),
    }
    placed: dict[str, Any] = {"positions": 20, "pre_norm": True, "embed_dim": WIDTH, "projection_tanh": True}
    stream = Merged(blocks=blocks(depth, **more), pooling="first", **placed)
    return Pretrainer(towers, objectives, fusions={"stream": stream}, microbatches=microbatches)


def batch(seed: int = 0) -> Any:
    """Sentences of all lengths, some alone; ids of padding and of what isn't there are any."""
    random = np.random.default_rng(seed)
    found: dict[str, Any] = {"index": np.arange(B, dtype=np.uint32)}
    for name, length in LENGTHS.items():
        real = random.integers(3, length + 1, B)
        found[name] = random.integers(IDS[name]["first_id"], IDS[name]["vocab"], (B, length), dtype=np.int32)
        found[name][:, 0] = {"text": 1, "video": 0}[name]
        found[f"{name}_mask"] = np.arange(length) < real[:, None]
        found[f"{name}_valid"] = ~np.isin(np.arange(B), ROWS[name])
    found["video"][np.arange(B), found["video_mask"].sum(axis=1) - 1] = 1
    return found


@pytest.fixture(scope="module")
def variables() -> Any:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(build().init, jax.random.key(0), batch()))
    return jax.tree.map(lambda x: jnp.float32(0.4 * random.normal(size=x.shape)), shapes)


def gradient(pretrainer: Any) -> Any:
    return jax.jit(
        jax.value_and_grad(lambda variables, batch: pretrainer.apply(variables, batch, rngs=KEYS), has_aux=True)
    )


@pytest.fixture(scope="module")
def whole(variables: Any) -> Any:
    return gradient(build(dropout=0.2))(variables, batch())


@pytest.mark.parametrize("microbatches", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_the_cut_changes_nothing(microbatches: int, variables: Any, whole: Any) -> None:
    assert_same(gradient(build(dropout=0.2, microbatches=microbatches))(variables, batch()), whole, 1e-5)


@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_a_mesh_changes_nothing(shape: tuple[int, ...], variables: Any, whole: Any) -> None:
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rows = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    replicated = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        assert_same(gradient(build(dropout=0.2))(replicated, rows), whole, 1e-5)


def encoded(params: Any, sentences: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The states of one example's ids, by input, and the pooler's; in float64, without padding or what isn't there."""
    held = params["fusions_stream"]
    parts = [params[f"towers_{name}"]["token"]["embedding"][ids] + held[f"kind_{name}"]
             for name, ids in sentences.items()]  # fmt: skip
    x = np.concatenate(parts)
    x = norm(x + held["position"][: len(x)], held["norm_pre"], EPS)
    for layer in range(2):
        x = own_block(x, at(held["transformer"]["blocks"], layer), blocks(2))
    ends = np.cumsum([len(ids) for ids in sentences.values()])
    pooled = np.tanh(x[0] @ held["projection"]["kernel"] + held["projection"]["bias"])
    return dict(zip(sentences, np.split(x, ends[:-1]), strict=True)), pooled


def entropy(logits: np.ndarray, target: int) -> float:
    top = logits.max()
    return float(top + np.log(np.exp(logits - top).sum()) - logits[target])


def test_the_losses_are_those_of_one_example_after_the_other(variables: Any) -> None:
    """A BERT by hand over `[CLS] words [>] visual words [SEP]`: what an example lacks, and padding, was never there."""
    given, pretrainer = batch(), build()
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    loss, metrics = jax.jit(lambda: pretrainer.apply(variables, given, rngs={"mask": KEYS["mask"]}))()
    key = pretrainer.apply({}, method=lambda self: self.make_rng("mask"), rngs=KEYS)
    read, chosen = {}, {}
    for name, objective in (("text", "words"), ("video", "seen")):
        corrupt = pretrainer.objectives[objective].corrupt
        ids, mask = jnp.asarray(given[name]), jnp.asarray(given[f"{name}_mask"])
        read[name], chosen[name] = map(
            np.asarray, corrupt.draw(View(name, corrupt).key(key), given["index"], ids, mask)
        )

    def sentence(of: Any, name: str, row: int) -> dict[str, np.ndarray]:
        return {name: of[name][row][given[f"{name}_mask"][row]]} if given[f"{name}_valid"][row] else {}

    found: dict[str, list[float]] = {"words": [], "seen": []}
    for row in range(B):
        sentences = sentence(read, "text", row) | sentence(read, "video", row)
        states = encoded(params, sentences)[0] if sentences else {}
        for name, x in states.items():
            objective = {"text": "words", "video": "seen"}[name]
            held = params[f"objectives_{objective}"]
            for place in np.flatnonzero(chosen[name][row]):
                y = gelu(x[place] @ held["dense"]["kernel"] + held["dense"]["bias"])
                y = norm(y, held["norm"], EPS)
                logits = params[f"towers_{name}"]["token"]["embedding"] @ y + held["bias"]
                found[objective].append(entropy(logits, given[name][row, place]))
    align = pretrainer.objectives["align"]
    unread = (jnp.zeros((B, 1)), jnp.zeros((B, 1)))
    pairs = np.asarray(align.pairs(unread, given, named_key(key, "pairs align")))
    found["align"] = []
    for text, video in pairs:
        sentences = sentence(given, "text", text) | sentence(given, "video", video) if video >= 0 else {}
        if len(sentences) == 2:
            head = params["objectives_align"]["match"]
            logits = encoded(params, sentences)[1] @ head["kernel"] + head["bias"]
            found["align"].append(entropy(logits, int(text == video)))
    assert min(map(len, found.values())) >= B // 2
    for name, losses in found.items():
        np.testing.assert_allclose(metrics[f"{name}/loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(loss, sum(np.mean(losses) for losses in found.values()), rtol=1e-5)


def test_what_an_example_lacks_has_no_effect_on_it(variables: Any) -> None:
    """Also ids that no vocabulary has, in the places of what isn't there."""
    other = batch(seed=1)
    given = batch()
    spoilt = {name: given[name] for name in given}
    for name, rows in ROWS.items():
        spoilt[name] = given[name].copy()
        spoilt[name][rows] = 10**6
        spoilt[f"{name}_mask"] = given[f"{name}_mask"].copy()
        spoilt[f"{name}_mask"][rows] = other[f"{name}_mask"][rows]
    run = jax.jit(lambda batch: build().apply(variables, batch, rngs={"mask": KEYS["mask"]}))
    loss, metrics = run(given)
    again, others = run(spoilt)
    np.testing.assert_allclose(again, loss, rtol=1e-6)
    for name in metrics:
        np.testing.assert_allclose(others[name], metrics[name], rtol=1e-6, err_msg=name)


SYMBOLS, STEPS_OF_RECIPE, RECIPES = 12, 3, 64
RECIPE_IDS = {
    "text": {"vocab": 5 + SYMBOLS, "mask_id": 4, "first_id": 5},
    "video": {"vocab": 3 + SYMBOLS, "mask_id": 2, "first_id": 3},
}


def recipes(seed: int, lacking: tuple[str, ...] = ()) -> Any:
    """Sentences of independent words, each said while its own cluster is seen."""
    symbols = np.random.default_rng(seed).integers(0, SYMBOLS, (RECIPES, STEPS_OF_RECIPE), dtype=np.int32)
    first, last = np.zeros_like(symbols[:, :1]), np.ones_like(symbols[:, :1])
    found = {"text": np.concatenate([first + 1, 5 + symbols * 7 % SYMBOLS], axis=1)}
    found["video"] = np.concatenate([first, 3 + symbols, last], axis=1)
    there = {f"{name}_valid": np.full(RECIPES, name not in lacking) for name in found}
    return {**found, **there, "index": np.arange(RECIPES, dtype=np.uint32)}


def test_words_are_filled_in_by_what_is_seen() -> None:
    """On recipes in which nothing tells a word but its visual word, which is itself hidden in one of three: about 3 of
    4 can be found, and 1 of 12 without the video."""
    steps = 120
    pretrainer = build(RECIPE_IDS, rate=0.15, depth=1, width=32)
    rngs = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    state = nn.unbox(jax.jit(pretrainer.init)(rngs, recipes(0)))
    adam = optax.adam(optax.linear_onecycle_schedule(steps, 8e-3))
    moments = adam.init(state)

    @jax.jit
    def step(state: Any, moments: Any, batch: Any, key: Any) -> Any:
        run = jax.value_and_grad(lambda state: pretrainer.apply(state, batch, rngs={"mask": key}), has_aux=True)
        (_, metrics), grads = run(state)
        updates, moments = adam.update(grads, moments, state)
        return optax.apply_updates(state, updates), moments, metrics

    _, _, first = step(state, moments, recipes(1), jax.random.key(0))
    for name, choices in (("words", RECIPE_IDS["text"]["vocab"]), ("seen", RECIPE_IDS["video"]["vocab"]), ("align", 2)):
        assert first[f"{name}/loss"] == pytest.approx(np.log(choices), abs=0.25), name
    for number in range(steps):
        state, moments, _ = step(state, moments, recipes(number), jax.random.key(number))

    def judged(*lacking: str) -> dict[str, float]:
        """Over eight batches that were never seen; the same words are hidden with the video as without."""
        every = [step(state, moments, recipes(10_000 + i, lacking), jax.random.key(i))[2] for i in range(8)]
        return {name: float(np.mean([one[name] for one in every])) for name in every[0]}

    both, alone = judged(), judged("video")
    assert both["words/accuracy"] > 0.6
    assert both["seen/accuracy"] > 0.6
    assert both["align/accuracy"] > 0.85
    assert alone["words/accuracy"] < 0.2
    assert alone["align/pairs"] == 0
