"""Self-critical training: its gradient equals the one that is enumerated, and no cut, mesh or stop changes a step."""

import functools
import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.data import Folder, KeepCaptions, Lowercase, Mixture, SentencePiece, TokenizeReferences, Vector
from mmjax.data.tokenizers.files import load_tokenizers
from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.cider_d import NgramFrequencies, cider_d
from mmjax.experiment import Experiment, Load, experiment
from mmjax.experiment.graph import build as built
from mmjax.experiment.load import load_experiment
from mmjax.models import DecoderBlocks, Given, LinearProjector, RecurrentDecoder, TextDecoder
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Pretrainer, SelfCritical
from mmjax.objectives.cider_reward import FREQUENCIES, FrequencyTable, cider_rewards, counted_of, counted_table
from mmjax.objectives.contract import Context, View
from mmjax.optim import AdamW
from mmjax.runtime.mesh import ACTIVATION_RULES, Mesh
from mmjax.train.initialise import initialised, sources, tokenizers
from mmjax.train.loop import train
from tests.objectives.toys import SIZES, ToyTower, assert_same, toy_batch

B, VOCAB, MOST = 8, 4, 3
ONE, OTHER, END, BEGIN = range(VOCAB)
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}
DECODERS: dict[str, Any] = {
    "recurrent": RecurrentDecoder(
        vocab=VOCAB, length=8, width=6, embed_width=6, prefix={"image": LinearProjector()}, dropout=0.5
    ),
    "text": TextDecoder(
        vocab=VOCAB,
        length=20,
        blocks=DecoderBlocks(width=8, depth=2, heads=2, dropout=0.5),
        cross="within",
        context={"audio": None},
        prefix={"image": LinearProjector()},
    ),
}


def objective(name: str = "recurrent", **fields: Any) -> SelfCritical:
    reads = ("image", "audio") if name == "text" else ("image",)
    return SelfCritical(DECODERS[name], reads, **{"samples": 3, "most": MOST, "ngrams": 64, **fields})


def build(name: str = "recurrent", microbatches: int = 1, **fields: Any) -> Any:
    part = objective(name, **fields)
    return Pretrainer({read: ToyTower(read) for read in part.reads}, {"scst": part}, microbatches=microbatches)


def batch(size: int = B, references: int = 2, length: int = 6) -> dict[str, np.ndarray]:
    """Pictures, and texts of two words; some examples lack one of both, and some have but one reference."""
    random, given = np.random.default_rng(2), toy_batch(size)
    ids = random.integers(0, 2, (size, references, length)).astype(np.int32)
    lengths = random.integers(3, length + 1, (size, references)).astype(np.int32)
    lengths[::3, 1:] = 0
    ids[:, :, 0] = BEGIN
    np.put_along_axis(ids, np.maximum(lengths - 1, 0)[..., None], END, axis=2)
    return {
        **{k: v for k, v in given.items() if k in ("index", "text_valid") or k.startswith(("image", "audio"))},
        "text": ids,
        "text_lengths": lengths,
    }


def references_of(given: Any) -> list[list[list[int]]]:
    return [counted_of(row, "text") for row in rows_of(given)]


def rows_of(given: Any) -> list[dict[str, Any]]:
    names = ("text", "text_lengths")
    return [{name: given[name][row] for name in names} for row in range(len(given["text"]))]


def drawn(pretrainer: Any, given: Any) -> Any:
    """Parameters at random, and the frequencies of the batch's references."""
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), given))
    params = jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes["params"])
    part = pretrainer.objectives["scst"]
    table = part.counted_variables(rows_of(given), "x")[FREQUENCIES]
    return {"params": params, FREQUENCIES: {"objectives_scst": jax.tree.map(jnp.asarray, table)}}


@functools.cache
def gradient(name: str = "recurrent", microbatches: int = 1) -> Any:
    pretrainer = build(name, microbatches)

    def loss(params: Any, variables: Any, given: Any) -> Any:
        return pretrainer.apply({**variables, "params": params}, given, rngs=KEYS)

    found = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda variables, given: found(variables["params"], variables, given)


# -- the reward


def padded(texts: list[list[int]], length: int) -> tuple[Any, Any]:
    ids = np.full((len(texts), length), 77, np.int32)  # what lies behind a text doesn't count
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    return jnp.asarray(ids), jnp.array([len(text) for text in texts], jnp.int32)


def test_the_reward_is_cider_d_of_the_ids_and_references_have_more_than_shuffled_ones() -> None:
    random = np.random.default_rng(1)

    def text() -> list[int]:
        return [*random.integers(3, 9, random.integers(1, 9)).tolist(), END]

    references = [[text() for _ in range(random.integers(1, 4))] for _ in range(12)]
    table = jax.tree.map(jnp.asarray, counted_table(iter(references), 300, "x"))
    frequencies = NgramFrequencies.of(references)
    rewards = jax.jit(cider_rewards)
    for given in references[:6]:
        texts = [text(), [END], [3, 3, 3, 3, 3, 3, END], given[0], [*random.permutation(given[0][:-1]).tolist(), END]]
        found = rewards(*padded(texts, 10), *padded([*given, *[[]] * (3 - len(given))], 12), table)
        np.testing.assert_allclose(found, cider_d(texts, [given] * len(texts), frequencies), atol=2e-6)
        assert found[3] >= found[4]
    assert found[3] > found[4]  # this one isn't its own shuffle
    assert not rewards(*padded(texts, 10), *padded([[]] * 3, 12), table).any()


def test_more_ngrams_than_have_room_or_no_references_are_told() -> None:
    with pytest.raises(UserError, match=r"o.ngrams=2: 3 n-grams are in .* two or more .* set o.ngrams=3 or more"):
        counted_table([[[5, 6]], [[5, 6]]], 2, "o.ngrams")
    with pytest.raises(UserError, match="no example of the training split has references"):
        counted_table([], 2, "o.ngrams")
    assert counted_table([[[5, 6], [5]], [[6, 5]]], 9, "o").counts.tolist() == [2, 2] + [0] * 7


# -- the gradient


class _Whole(nn.Module):
    """The objective alone, of tokens that are given."""

    part: SelfCritical

    def __call__(self, tokens: Any, given: Any, key: Any) -> Any:
        seen = SimpleNamespace(tokens=tokens, token_mask=jnp.ones(tokens.shape[:2], bool))
        return self.part.per_example({View("image"): seen}, given, Context(True, key, "x", given["index"]))


@pytest.mark.parametrize("baseline", ["greedy", "others"])
def test_the_gradient_of_many_samples_is_that_over_all_texts(baseline: Any) -> None:
    """Either baseline leaves the mean what it is without one: here of many examples, which are two again and again."""
    copies, samples = 5_000, 2
    given = {name: x[:2] for name, x in batch().items()}
    references = references_of(given)
    given = {name: jnp.asarray(np.repeat(x, copies, axis=0)) for name, x in given.items()}
    given |= dict.fromkeys(("image_valid", "text_valid"), jnp.ones(2 * copies, bool))
    given["index"] = jnp.arange(2 * copies)
    part = objective("recurrent", samples=samples, baseline=baseline)
    module, tokens = _Whole(part), jnp.asarray(np.random.default_rng(4).normal(size=(2, 3, 8)), jnp.float32)
    shapes = nn.unbox(
        jax.eval_shape(module.init, jax.random.key(0), tokens, {k: v[:2] for k, v in given.items()}, KEYS["mask"])
    )
    random = np.random.default_rng(5)
    params = jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes["params"])
    everywhere = [*references, [[OTHER, OTHER, END]], [[ONE, END]]]
    table = {"part": jax.tree.map(jnp.asarray, counted_table(everywhere, 64, "x")._asdict())}

    def drawn_mean(params: Any) -> Any:
        seen = jnp.repeat(tokens, copies, axis=0)
        found: Any = module.apply({"params": params, FREQUENCIES: table}, seen, given, jax.random.key(9))
        return jnp.sum(found.total) / (copies * samples)

    texts = [t for n in range(1, MOST + 1) for t in itertools.product(range(VOCAB), repeat=n)]
    texts = [list(t) for t in texts if END not in t[:-1] and (t[-1] == END or len(t) == MOST)]
    frequencies = NgramFrequencies.of(everywhere)
    rewards = np.stack([cider_d(texts, [one] * len(texts), frequencies) for one in references])
    ids, lengths = padded(texts, MOST)
    words = jnp.arange(MOST) < lengths[:, None]
    ids = jnp.where(words, ids, 0)

    def enumerated_mean(params: Any) -> Any:
        own, total = {"params": params["part"]["decoder"]}, 0.0
        before = jnp.concatenate([jnp.full((len(ids), 1), BEGIN), ids[:, :-1]], axis=1)
        for row in range(2):
            views = {"image": (jnp.broadcast_to(tokens[row], (len(ids), 3, 8)), jnp.ones((len(ids), 3), bool))}
            states = part.decoder.apply(own, before, words, views)
            each = jax.nn.log_softmax(part.decoder.apply(own, states, method="logits"))
            logs = jnp.sum(jnp.where(words, jnp.take_along_axis(each, ids[..., None], axis=-1)[..., 0], 0), axis=1)
            total -= jnp.sum(jnp.exp(logs) * rewards[row])  # the mean reward, negated: no baseline at all
        return total

    expected, found = (jax.tree.leaves(jax.jit(jax.grad(f))(params)) for f in (enumerated_mean, drawn_mean))
    off = sum(float(jnp.sum((a - b) ** 2)) for a, b in zip(expected, found, strict=True))
    size = sum(float(jnp.sum(a**2)) for a in expected)
    assert size > 1e-3
    assert (off / size) ** 0.5 < 0.06


def test_nothing_is_lost_without_references_and_rewards_differ_from_the_baseline() -> None:
    given = batch()
    variables = drawn(build(), given)
    (_, metrics), grads = gradient()(variables, given)
    assert metrics["scst/reward"] != metrics["scst/baseline"]
    assert 1 < metrics["scst/words"] <= MOST
    assert any(np.abs(x).max() > 1e-4 for x in jax.tree.leaves(grads["towers_image"]))
    (loss, _), grads = gradient()(variables, {**given, "text_valid": np.zeros(B, bool)})
    assert loss == 0
    assert not any(x.any() for x in jax.tree.leaves(grads))


def test_no_dropout_of_the_decoder_acts() -> None:
    given = batch()
    variables = drawn(build(), given)
    loss, _ = jax.jit(lambda given: build().apply(variables, given, train=False, rngs=KEYS))(given)
    np.testing.assert_allclose(loss, gradient()(variables, given)[0][0], rtol=1e-5)


@pytest.mark.parametrize("name", [pytest.param(x, marks=[pytest.mark.slow] * (x == "text")) for x in DECODERS])
def test_no_cut_no_mesh_and_no_order_of_the_rows_changes_loss_or_gradient(name: str) -> None:
    given, order = batch(), np.random.default_rng(7).permutation(B)
    variables, find = drawn(build(name), given), gradient(name)
    expected = find(variables, given)
    assert abs(expected[0][0]) > 1e-3
    assert_same(find(variables, {k: v[order] for k, v in given.items()}), expected, 1e-5)
    if name == "text":
        assert_same(gradient(name, 2)(variables, given), expected, 1e-5)
    if name == "recurrent":
        mesh = Mesh(data=2).build(jax.devices()[:2])
        held = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
        rows = jax.device_put(given, NamedSharding(mesh, PartitionSpec("data")))
        with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
            assert_same(find(held, rows), expected, 1e-5)


def test_a_missing_picture_or_reference_counts_nothing_whatever_stands_there() -> None:
    given = batch()
    variables, find = drawn(build(), given), gradient()
    junk = {k: v.copy() for k, v in given.items()}
    junk["image"][~given["image_valid"]] = np.nan
    junk["text"][~given["text_valid"]], junk["text_lengths"][~given["text_valid"]] = VOCAB + 7, 6
    assert_same(find(variables, junk), find(variables, given), 1e-7)
    rows = given["image_valid"] & given["text_valid"]
    assert rows.sum() < B
    alone = [{**given, "text_valid": np.arange(B) == row} for row in np.flatnonzero(rows)]
    rewards = [find(variables, one)[0][1]["scst/reward"] for one in alone]
    np.testing.assert_allclose(find(variables, given)[0][1]["scst/reward"], np.mean(rewards), rtol=1e-5)


# -- a run


@experiment
def tiny() -> Experiment:
    decoder = RecurrentDecoder(vocab=24, length=8, width=8, embed_width=8, prefix={"thing": LinearProjector()})
    words = TokenizeReferences(SentencePiece(24, model_type="char"), 8, most=2)
    return Experiment(
        towers={"thing": Given(embed_dim=4)},
        objectives={"scst": SelfCritical(decoder, ("thing",), samples=2, most=6, ngrams=100)},
        data=Mixture(
            {"shapes": 1.0},
            transforms={"thing": (Vector(4),), "text": (KeepCaptions(), Lowercase(), words)},
            sources={"shapes": Folder("", shares={"train": 1.0})},
        ),
        optimizer=AdamW(peak_lr=1e-2, warmup_steps=1),
        batch_size=8,
        steps=4,
        save_every=2,
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    random, table = np.random.default_rng(3), tmp_path_factory.mktemp("data") / "t.parquet"
    texts = [[f"a b {'cdefgh'[i % 6]}", f"{'cdefgh'[i % 6]} A b", "  "] for i in range(12)]
    columns = {"id": list(map(str, range(12))), "thing": random.normal(size=(12, 4)).tolist(), "text": texts}
    pyarrow.parquet.write_table(pyarrow.table(columns), table)
    return load_experiment(f"{__file__}:tiny", [f"data.sources.shapes.table={table}"])


@pytest.fixture(scope="module")
def run(config: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    workdir = tmp_path_factory.mktemp("run") / "run"
    return workdir, jax.device_get(train(config, workdir))


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(config: Any, run: tuple[Path, Any]) -> None:
    workdir, whole = run
    shutil.rmtree(workdir / "checkpoints" / "4")
    again = jax.device_get(train(config, workdir))
    assert again.step == 4
    jax.tree.map(np.testing.assert_array_equal, again, whole)


def test_a_run_counts_its_own_training_split_and_takes_the_ids_of_the_decoder_that_it_starts_from(
    config: Any, run: tuple[Path, Any]
) -> None:
    workdir, whole = run
    table = FrequencyTable(**whole.model_state[FREQUENCIES]["objectives_scst"])
    assert table.images == 12
    assert table.counts.max() == 12  # what begins a word, and what ends a text
    assert table.ngrams[0].tolist()[1:] == [-1, -1, -1]
    again = built(config)
    object.__setattr__(again, "init", {"objectives.scst": Load(str(workdir))})
    found, said = sources(again, lambda text: None), []
    assert tokenizers(again, found, said.append) == load_tokenizers(workdir / "tokenizers")
    assert said == [f"init objectives.scst from {workdir}: its tokenizer is taken too"]
    zeros = jax.tree.map(np.zeros_like, {"params": whole.params, **whole.model_state})
    started = initialised(zeros, again, found, lambda text: None)
    assert not started[FREQUENCIES]["objectives_scst"]["counts"].any()
    mine, theirs = started["params"]["objectives_scst"], whole.params["objectives_scst"]
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)


# -- what doesn't fit


@pytest.mark.parametrize(
    ("fields", "given", "message"),
    [
        ({"baseline": "mean"}, {}, "baseline='mean'"),
        ({"baseline": "others", "samples": 1}, {}, "samples=1 with baseline='others'.*draw 2 or more"),
        ({"samples": 0}, {}, "o.samples=0 must be at least 1"),
        ({"most": 9}, {}, "o.most=9 words are more than the 8 of o.decoder.length"),
        ({"decoder": Given(embed_dim=3)}, {}, "decoder is a Given, which doesn't write"),
        ({"text": "words"}, {}, "'words'.*chains of data.transforms"),
        ({}, {"labels": ()}, r"int32\[R, L\] with their lengths.*TokenizeReferences"),
        ({}, {"shape": (6,)}, r"gives int32\[6\] for 'text'"),
        ({}, {"pieces": 9}, "up to 9 pieces.*vocab=9"),
        ({"reads": ("audio",)}, {}, r"reads=\('audio',\) and o.decoder reads image"),
    ],
)
def test_what_does_not_fit_is_told(fields: Any, given: Any, message: str) -> None:
    incoming = Incoming(**{"shape": (2, 6), "dtype": "int32", "labels": ("lengths",), **given})
    with pytest.raises(UserError, match=message):
        objective().clone(**fields).check_parts("o", {}, {"text": incoming, "image": Incoming((12, 5), "float32")})
    objective().check_parts("o", {}, {"text": Incoming((2, 6), "int32", ("lengths",)), "image": Incoming((1,), "x")})
    assert SIZES["image"] == 12
