from typing import Any

import fiddle as fdl
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from jax.sharding import PartitionSpec

from mmjax.data import Decode, Folder, Mixture, Resize, SentencePiece, Tokenize
from mmjax.errors import UserError
from mmjax.experiment import Experiment, experiment
from mmjax.experiment.diff import diff
from mmjax.experiment.graph import complete
from mmjax.experiment.record import dumps, loads
from mmjax.models.layers.dropout import drop
from mmjax.models.towers.bare import Incoming
from mmjax.models.towers.convolutional import Convolutional
from mmjax.models.towers.recurrent import Recurrent
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.objectives.masked import MaskedText
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.optim.optimizers import AdamW
from tests.models import oracle
from tests.objectives.toys import assert_same

SMALL: dict[str, Any] = {"vocab": 30, "length": 8, "width": 6, "depth": 2}
IDS: Any = np.array([[1, 7, 9, 2, 0, 0], [1, 3, 3, 8, 4, 2], [0, 5, 0, 6, 11, 0]], np.int32)
MASK = np.array([[1, 1, 1, 1, 0, 0], [1] * 6, [0, 1, 0, 1, 1, 0]], bool)  # the last is padded everywhere
GATES = {"lstm": "ifgo", "gru": "rzn"}


def tower_of(cell: Any, **fields: Any) -> Recurrent:
    return Recurrent(**(SMALL | {"cell": cell} | fields))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def read(p, cell, words):
    """The state after each of one example's words `[n i]`, by the equations of each cell."""
    size = p["hi" if cell == "lstm" else "hr"]["kernel"].shape[1]
    h, memory, found = np.zeros(size), np.zeros(size), []
    for x in words:
        of = {gate: (oracle.dense(p[f"i{gate}"], x), oracle.dense(p[f"h{gate}"], h)) for gate in GATES[cell]}
        if cell == "lstm":
            memory = sigmoid(sum(of["f"])) * memory + sigmoid(sum(of["i"])) * np.tanh(sum(of["g"]))
            h = sigmoid(sum(of["o"])) * np.tanh(memory)
        else:
            z = sigmoid(sum(of["z"]))
            h = (1 - z) * np.tanh(of["n"][0] + sigmoid(sum(of["r"])) * of["n"][1]) + z * h
        found.append(h)
    return np.stack(found)


def reference(p, cell, words):
    """The states of all directions, layer by layer."""
    layer = 0
    while f"layers_{layer}" in p:
        held = p[f"layers_{layer}"]
        found = [read(held["forward"], cell, words)]
        if "backward" in held:
            found.append(read(held["backward"], cell, words[::-1])[::-1])
        words, layer = np.concatenate(found, axis=1), layer + 1
    return words


@pytest.mark.parametrize(
    ("cell", "bidirectional", "pooling"),
    [("lstm", True, "last"), ("lstm", False, "mean"), ("gru", False, "last"), ("gru", True, "max")],
)
def test_it_equals_float64_numpy_on_the_real_words_alone(cell, bidirectional, pooling):
    tower = tower_of(cell, bidirectional=bidirectional, pooling=pooling, embed_dim=5)
    params = oracle.params_of(tower, IDS)
    p = oracle.as64(params)["params"]
    tokens, real = oracle.apply(tower, params, IDS, MASK, method="tokens")
    got = oracle.apply(tower, params, IDS, MASK)
    np.testing.assert_array_equal(real, MASK)
    for row in range(3):
        states = reference(p, cell, p["token"]["embedding"][IDS[row][MASK[row]]])
        np.testing.assert_allclose(tokens[row][MASK[row]], states, atol=2e-6)
        pooled = {"last": np.r_[states[-1, :3], states[0, 3:]], "mean": states.mean(0), "max": states.max(0)}[pooling]
        pooled = states[-1] if pooling == "last" and not bidirectional else pooled
        np.testing.assert_allclose(got[row], pooled @ p["projection"]["kernel"], atol=2e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_it_equals_pytorch_on_packed_sequences(cell):
    torch = pytest.importorskip("torch")
    tower = tower_of(cell, bidirectional=True)
    lengths, rng = [4, 6, 1], np.random.default_rng(1)
    params = oracle.params_of(tower, IDS)
    theirs = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](6, 3, 2, bidirectional=True, batch_first=True)
    for layer in range(2):
        for name, suffix in {"forward": "", "backward": "_reverse"}.items():
            held = params["params"][f"layers_{layer}"][name]
            into = np.concatenate([held[f"i{gate}"]["kernel"] for gate in GATES[cell]], axis=1).T
            on = np.concatenate([held[f"h{gate}"]["kernel"] for gate in GATES[cell]], axis=1).T
            biases = [[held[f"{side}{g}"].get("bias", np.zeros(3)) for g in GATES[cell]] for side in "ih"]
            apart = rng.normal(size=len(into)) * (1 if cell == "lstm" else np.r_[np.ones(6), np.zeros(3)])
            values = [into, on, np.concatenate(biases[0]) + apart, np.concatenate(biases[1]) - apart]
            for key, value in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), values, strict=True):
                getattr(theirs, f"{key}_l{layer}{suffix}").data = torch.tensor(value, dtype=torch.float32)
    words = torch.tensor(params["params"]["token"]["embedding"][IDS])
    with torch.no_grad():
        pack = torch.nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        packed, state = theirs(pack)
        want = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)[0].numpy()
    last = (state[0] if cell == "lstm" else state)[-2:].numpy()  # of the last layer, each direction's
    mask = np.arange(6) < np.array(lengths)[:, None]
    tokens, _ = oracle.apply(tower, params, IDS, mask, method="tokens")
    np.testing.assert_allclose(tokens[mask], want[mask], atol=1e-6)
    embedding = oracle.apply(tower, params, IDS, mask)
    np.testing.assert_allclose(embedding, np.concatenate(list(last), axis=-1), atol=1e-6)


def test_padding_changes_nothing():
    tower = tower_of("lstm", bidirectional=True)
    params = oracle.params_of(tower, IDS)
    alone, _ = oracle.apply(tower, params, IDS[:1, :4], method="tokens")
    want = oracle.apply(tower, params, IDS[:1, :4])
    for mask in (MASK[:1], np.pad(MASK[:1, :4], ((0, 0), (2, 0)))):  # after it, and before it
        padded = np.full((1, 6), 29, np.int32)  # whatever stands there
        padded[mask] = IDS[0, :4]
        tokens, real = oracle.apply(tower, params, padded, mask, method="tokens")
        np.testing.assert_allclose(tokens[real], alone[0], atol=1e-6)
        np.testing.assert_allclose(oracle.apply(tower, params, padded, mask), want, atol=1e-6)


def test_an_example_of_nothing_is_zeros_and_has_a_gradient():
    tower = tower_of("lstm", bidirectional=True)
    params = oracle.params_of(tower, IDS)
    nothing = np.zeros_like(MASK)
    assert not oracle.apply(tower, params, IDS, nothing).any()
    gradient = jax.jit(jax.grad(lambda p: jnp.sum((oracle.applied(tower, p, IDS, nothing) + 1) ** 2)))(params)
    assert not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(gradient))


def test_kept_words_are_read_in_the_order_given_as_if_they_were_all():
    tower = tower_of("gru", bidirectional=True)
    params = oracle.params_of(tower, IDS)
    keep = np.array([[3, 0, -1, 5], [5, 1, 2, -1], [0, 3, 2, 1]])
    tokens, real = oracle.apply(tower, params, IDS, MASK, keep=keep, method="tokens")
    np.testing.assert_array_equal(real, [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1]])
    for row in range(3):
        alone, _ = oracle.apply(tower, params, IDS[row][keep[row][real[row]]][None], method="tokens")
        np.testing.assert_allclose(tokens[row][real[row]], alone[0], atol=1e-6)


def test_dropout_is_between_layers_by_each_examples_key():
    tower, lower = tower_of("lstm", dropout=0.5), tower_of("lstm", depth=1)
    params = oracle.params_of(tower, IDS)
    held = params["params"]
    keys = jax.random.split(jax.random.key(3), 3)
    tokens, _ = oracle.apply(tower, params, IDS, method="tokens", train=True, keys=keys)
    first = {"token": held["token"], "layers_0": held["layers_0"]}
    between, _ = oracle.apply(lower, {"params": first}, IDS, method="tokens")
    dropped = np.asarray(drop(between, 0.5, keys, 1))
    assert 0.2 < (dropped == 0).mean() < 0.8
    for row in range(3):
        want = read(oracle.as64(held)["layers_1"]["forward"], "lstm", dropped[row])
        np.testing.assert_allclose(tokens[row], want, atol=2e-6)
    still, _ = oracle.apply(tower, params, IDS, method="tokens", keys=keys)
    assert np.abs(still - tokens).max() > 1e-3


@pytest.mark.parametrize(("cell", "gates", "biases"), [("lstm", 4, 4), ("gru", 3, 4)])
@pytest.mark.parametrize("directions", [1, 2])
def test_parameters(cell, gates, biases, directions):
    tower = Recurrent(cell=cell, vocab=1000, length=9, width=64, depth=3, bidirectional=directions == 2, embed_dim=32)
    shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), IDS))
    half = 64 // directions
    layer = directions * (gates * (64 * half + half * half) + biases * half)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 1000 * 64 + 3 * layer + 64 * 32


def test_initial_values_and_logical_axes():
    tower = Recurrent(vocab=500, length=9, width=64, bidirectional=True, embed_dim=32)
    assert (tower.embedding_size, tower.vocabulary, tower.prefix, tower.grid(IDS)) == (32, 500, 0, (6,))
    made = jax.jit(lambda: tower.init(jax.random.key(0), IDS))
    specs = nn.get_partition_spec(jax.eval_shape(made))["params"]
    assert specs["layers_0"]["backward"]["ii"]["kernel"] == PartitionSpec("embed", None)
    assert specs["layers_0"]["forward"]["hf"]["kernel"] == PartitionSpec("embed", None)
    assert specs["token"]["embedding"] == PartitionSpec("vocab", "embed")
    assert specs["projection"]["kernel"] == PartitionSpec("embed", "joint")
    p = meta.unbox(made())["params"]
    assert np.std(p["token"]["embedding"]) == pytest.approx(1, rel=0.02)
    assert np.std(p["layers_0"]["forward"]["ii"]["kernel"]) == pytest.approx(64**-0.5, rel=0.05)
    square = np.asarray(p["layers_0"]["backward"]["ho"]["kernel"])
    np.testing.assert_allclose(square @ square.T, np.eye(32), atol=1e-5)


def test_a_bfloat16_tower_holds_its_states_in_float32():
    params = oracle.params_of(tower_of("lstm"), IDS)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    exact = oracle.apply(tower_of("lstm"), params, IDS, MASK)
    short = tower_of("lstm", dtype="bfloat16")
    tokens, _ = oracle.apply(short, params, IDS, MASK, method="tokens")
    assert tokens.dtype == jnp.bfloat16
    embedding = oracle.apply(short, params, IDS, MASK)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, exact, atol=0.02)
    jaxpr = str(jax.make_jaxpr(lambda: short.apply(params, IDS, MASK))())
    assert "f32[3,6]" in jaxpr  # what the loop carries


@pytest.mark.parametrize(
    ("fields", "ids", "message"),
    [
        ({"cell": "rnn"}, IDS, "cell='rnn' is not one of lstm, gru"),
        ({"pooling": "cls"}, IDS, "pooling='cls' is not one of last, mean, max"),
        ({"width": 7, "bidirectional": True}, IDS, "width=7 is odd, .* take 8"),
        ({"depth": 0}, IDS, "width=6 and depth=0 must both be at least 1"),
        ({"dropout": 0.1, "depth": 1}, IDS, "dropout=0.1 acts between layers, and depth=1"),
        ({"dropout": 1.0}, IDS, "dropout=1.0 is not a rate"),
        ({}, np.zeros((1, 9), np.int32), "texts of 9 tokens are longer than length=8"),
    ],
)
def test_errors_say_what_would_do(fields, ids, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: Recurrent(**(SMALL | fields)).init(jax.random.key(0), ids))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            Incoming((9,), "int32"),
            r"texts of 9 tokens, longer than the 8 of towers.text.length: set towers.text.length=9",
        ),
        (Incoming((8,), "int32", pieces=31), "up to 31 pieces .* towers.text.vocab=30 has no"),
        (Incoming((8,), "int16"), "towers.text reads token ids"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(given, message):
    Recurrent(**SMALL).check_input("towers.text", Incoming((8,), "int32", pieces=30))
    with pytest.raises(UserError, match=message):
        Recurrent(**SMALL).check_input("towers.text", given)


# --- with a convolutional tower of pictures, in an experiment ---


@experiment
def pair() -> Experiment:
    return Experiment(
        towers={
            "image": Convolutional(channels=(4, 8), groups=2, embed_dim=8),
            "text": Recurrent(vocab=64, length=8, width=8, depth=2, embed_dim=8, dropout=0.2),
        },
        objectives={"pair": Contrastive(("image", "text"))},
        data=Mixture(
            {"shapes": 1.0},
            sources={"shapes": Folder("shapes.csv")},
            transforms={
                "image": (Decode(), Resize(16)),
                "text": (Tokenize(SentencePiece(vocab_size=64), length=8),),
            },
        ),
        optimizer=AdamW(peak_lr=1e-2),
        batch_size=8,
        steps=2,
    )


def test_an_experiments_record_gives_the_same_towers_again():
    config: fdl.Config[Any] = pair.as_buildable()  # pyright: ignore[reportFunctionMemberAccess]
    text = dumps(config)
    assert '"@call": "models:Recurrent"' in text
    assert '"@call": "models:Convolutional"' in text
    again = loads(text)
    assert diff(again, complete(config)) == []
    assert fdl.build(again).towers == pair().towers


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, 256, (8, 9, 12, 3), dtype=np.uint8),
        "text": rng.integers(5, 64, (8, 8), dtype=np.int32),
        "text_mask": np.arange(8) < rng.integers(0, 9, (8, 1)),
        "image_valid": rng.random(8) < 0.8,
        "text_valid": rng.random(8) < 0.8,
        "index": np.arange(8, dtype=np.uint32),
    }


@pytest.fixture(scope="module")
def variables(batch):
    return oracle.params_of(Pretrainer(pair().towers, pair().objectives), batch)


def loss_and_gradient(variables, batch, microbatches):
    pretrainer = Pretrainer(pair().towers, pair().objectives, microbatches=microbatches)
    keys = {"dropout": jax.random.key(1)}
    found = jax.jit(jax.value_and_grad(lambda v: pretrainer.apply(v, batch, 0, rngs=keys), has_aux=True))
    with jax.enable_x64(True):  # of the losses: the towers compute in fp32
        return jax.tree.map(np.asarray, found(variables))


@pytest.fixture(scope="module")
def whole(variables, batch):
    return loss_and_gradient(variables, batch, 1)


@pytest.mark.parametrize("microbatches", [2, 4])
def test_microbatches_change_neither_loss_nor_gradient(variables, batch, whole, microbatches):
    (loss, _), gradients = whole
    assert np.isfinite(loss)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert leaf.any(), path
    assert_same(loss_and_gradient(variables, batch, microbatches), whole, 1e-6)


def test_a_masked_language_head_can_be_tied_to_its_table(batch):
    text = tower_of("gru", vocab=64, width=8, bidirectional=True)
    pretrainer = Pretrainer({"text": text}, {"words": MaskedText(vocab=64, tied=True)})
    rngs = {name: jax.random.key(0) for name in ("params", "mask")}

    def made() -> Any:
        loss, variables = pretrainer.init_with_output(rngs, batch)
        return loss[0], meta.unbox(variables)["params"]["objectives_words"]

    loss, head = jax.eval_shape(made)
    assert loss.shape == ()
    assert {name: leaf.shape for name, leaf in head.items() if not isinstance(leaf, dict)} == {"bias": (64,)}
    assert "words" not in head  # a matrix of its own
