"""The recurrent decoder: float64 loops over one example after the other, PyTorch's LSTM, and step by step the same."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mmjax.errors import UserError
from mmjax.models import LinearProjector, RecurrentDecoder
from mmjax.models.layers.dropout import drop
from tests.models import oracle

SMALL: dict[str, Any] = {"vocab": 11, "length": 9, "width": 6, "embed_width": 4, "attention_width": 5}
B, L, C, E = 4, 5, 3, 7  # examples, words, tokens, their width
SHOWN: dict[str, Any] = {"prefix": {"image": LinearProjector()}}
ATTENDING: dict[str, Any] = {"context": {"image": None}}
DECODERS: dict[str, dict[str, Any]] = {
    "shown": {**SHOWN, "layers": 2, "forget_bias": 1.0},
    "attending": {**ATTENDING, "start_layers": 3},
    "attending, deep": {**ATTENDING, "layers": 2, "gate": False, "forget_bias": 0.5},
    "both": {"context": {"image": LinearProjector()}, "prefix": {"audio": LinearProjector()}},
    "blind": {"layers": 2},
}
RANDOM = np.random.default_rng(0)
IDS: Any = RANDOM.integers(0, 11, (B, L), dtype=np.int32)
MASK: Any = np.arange(L) < np.array([5, 3, 4, 1])[:, None]
REAL: Any = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 1]], bool)  # the third has no picture
TOKENS: Any = {name: RANDOM.normal(size=(B, C, E)).astype(np.float32) for name in ("image", "audio")}


def decoder_of(name: str, **fields: Any) -> RecurrentDecoder:
    return RecurrentDecoder(**(SMALL | DECODERS[name] | fields))


def views_of(decoder: RecurrentDecoder) -> Any:
    return {name: (TOKENS[name], REAL) for name in {*decoder.context, *decoder.prefix}}


def everything(decoder: Any, *args: Any, **told: Any) -> Any:
    seen = decoder.attending(*args, **told)
    return *seen, decoder.logits(seen.states)


def as_any(function: Any) -> Any:
    """Linen's types say that a method may give variables besides."""
    return function


def compiled(decoder: Any, method: Any = "__call__", **fixed: Any) -> Any:
    """A method of the decoder, which can't be hashed, compiled: a function of parameters and arrays."""

    def run(params: Any, *args: Any, **told: Any) -> Any:
        return decoder.apply(params, *args, **told, **fixed, method=method)

    run = jax.jit(run)
    return lambda *args, **told: jax.tree.map(np.asarray, run(*args, **told))


def params_of(decoder: Any) -> Any:
    shapes = jax.eval_shape(
        lambda: nn.unbox(decoder.init(jax.random.key(0), IDS, MASK, views_of(decoder), method=everything))
    )
    random = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: (0.7 * random.standard_normal(leaf.shape)).astype(np.float32), shapes)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def written(decoder: RecurrentDecoder, p: Any, words: Any, views: Any, dropped: Any = lambda x, rate, place: x) -> Any:
    """Of one example, its real words and real tokens alone: states, weights and logits, by the papers' formulas.

    dropped: takes the whole sequence `[1 + n, ...]`, as the dropout of a row does.
    """
    layers, width, ahead = range(decoder.layers), decoder.width, len(decoder.prefix)
    memory, output = np.zeros((decoder.layers, width)), np.zeros((decoder.layers, width))
    scene = None
    for name, projector in decoder.context.items():
        scene = views[name] if projector is None else oracle.dense(p[f"context_{name}"]["dense"], views[name])
        x = scene.mean(axis=0) if len(scene) else np.zeros(scene.shape[1])
        for place in range(decoder.start_layers - 1):
            x = np.maximum(oracle.dense(p[f"start_hidden_{place}"], x), 0)
            x = dropped(x, decoder.dropout, decoder.layers + 2 + place)
        for layer in layers:
            memory[layer] = np.tanh(oracle.dense(p[f"start_memory_{layer}"], x))
            output[layer] = np.tanh(oracle.dense(p[f"start_output_{layer}"], x))
    read = [p["token"]["embedding"][word] for word in words]
    embedded = np.stack(read)
    for name in reversed(list(decoder.prefix)):
        mean = views[name].mean(axis=0) if len(views[name]) else np.zeros(E)
        read.insert(0, oracle.dense(p[f"prefix_{name}"]["dense"], mean))
    inputs = dropped(np.stack(read), decoder.input_dropout, 0)
    weights, sought = [], []
    for layer in layers:
        held, found = p[f"stack_{layer}"], []
        for x in inputs:
            gates = oracle.dense(held["of_input"], x) + oracle.dense(held["of_state"], output[layer])
            if layer == 0 and scene is not None:
                a = p["attention"]
                logits = []
                for token in scene:
                    hidden = oracle.dense(a["of_tokens"], token) + oracle.dense(a["of_state"], output[0])
                    logits.append(np.tanh(hidden) @ a["score"][0])
                alpha = oracle.softmax(np.array(logits)) if logits else np.zeros(0)
                z = sum((w * token for w, token in zip(alpha, scene, strict=True)), np.zeros(scene.shape[1]))
                if decoder.gate:
                    z = z * sigmoid(oracle.dense(a["beta"], output[0]))
                gates = gates + oracle.dense(held["of_seen"], z)
                weights.append(alpha)
                sought.append(z)
            i, f, g, o = np.split(gates, 4)
            memory[layer] = sigmoid(f + decoder.forget_bias) * memory[layer] + sigmoid(i) * np.tanh(g)
            output[layer] = sigmoid(o) * np.tanh(memory[layer])
            found.append(output[layer].copy())
        inputs = dropped(np.stack(found), decoder.dropout, 1 + layer)
    states = inputs[ahead:]
    if scene is not None:
        parts = oracle.dense(p["of_output"], states), embedded, oracle.dense(p["of_attended"], np.stack(sought)[ahead:])
        states = dropped(np.tanh(sum(parts)), decoder.dropout, decoder.layers + 1)
        weights = weights[ahead:]
    return states, weights, states @ p["head"].T + p["bias"]


@pytest.mark.parametrize("name", DECODERS)
def test_it_equals_float64_numpy_on_what_is_real_alone(name: str) -> None:
    decoder = decoder_of(name)
    params = params_of(decoder)
    p = oracle.as64(params)["params"]
    spoilt = {n: (np.where(REAL[..., None], x, np.nan), REAL) for n, (x, _) in views_of(decoder).items()}
    states, weights, real, logits = compiled(decoder, everything)(params, IDS, MASK, spoilt)
    assert real.shape == weights.shape[:1] + weights.shape[2:]
    for row in range(B):
        words = IDS[row][MASK[row]]
        views = {n: x[row][REAL[row]].astype(np.float64) for n, x in TOKENS.items()}
        want = written(decoder, p, words, views)
        np.testing.assert_allclose(states[row][MASK[row]], want[0], atol=2e-6)
        np.testing.assert_allclose(logits[row][MASK[row]], want[2], atol=1e-5)
        if decoder.context:
            np.testing.assert_array_equal(real[row], REAL[row])
            np.testing.assert_allclose(weights[row][MASK[row]][:, REAL[row]], np.array(want[1]), atol=1e-6)
            np.testing.assert_array_equal(weights[row][:, ~REAL[row]], 0)
    whole = compiled(decoder)(params, IDS, MASK, views_of(decoder))
    np.testing.assert_array_equal(whole, states)  # what isn't real may hold anything


@pytest.mark.parametrize("name", DECODERS)
def test_step_by_step_is_one_pass(name: str) -> None:
    """From first words of different number, and with rows that wait."""
    decoder = decoder_of(name)
    params, views = params_of(decoder), views_of(decoder)
    whole = compiled(decoder)(params, IDS, None, views)
    first = np.array([2, 1, 2, 0])
    states, cache = compiled(decoder, "prefill", slots=L)(params, IDS[:, :2], np.arange(2) < first[:, None], views)
    extend = compiled(decoder, "extend")
    for row, count in enumerate(first):
        np.testing.assert_allclose(states[row, :count], whole[row, :count], atol=1e-6)
    place = first.copy()
    for step in range(2 * L):
        goes = (place < L) & ((step + np.arange(B)) % 2 == 0)
        words = IDS[np.arange(B), np.minimum(place, L - 1)][:, None]
        states, cache = extend(params, words, cache, goes[:, None])
        for row in np.flatnonzero(goes):
            np.testing.assert_allclose(states[row, 0], whole[row, place[row]], atol=1e-6)
        place += goes
    np.testing.assert_array_equal(place, L)
    assert {len(leaf) for leaf in jax.tree.leaves(cache)} == {B}  # beams are taken along it


def test_several_words_are_read_at_once() -> None:
    decoder = decoder_of("attending")
    params, views = params_of(decoder), views_of(decoder)
    whole = compiled(decoder)(params, IDS, None, views)
    _, cache = compiled(decoder, "prefill", slots=0)(params, IDS[:, :2], MASK[:, :2] | True, views)
    states, _ = compiled(decoder, "extend")(params, IDS[:, 2:], cache)
    np.testing.assert_allclose(states, whole[:, 2:], atol=1e-6)


def test_show_and_tell_is_pytorchs_lstm_and_so_are_its_gradients() -> None:
    torch = pytest.importorskip("torch")
    decoder = decoder_of("shown", forget_bias=0.0)
    params = params_of(decoder)
    held, tokens = params["params"], TOKENS["image"]
    lengths = MASK.sum(axis=1)

    all_real, apply = np.ones((B, C), bool), as_any(decoder.apply)

    def ours(params: Any, tokens: Any) -> Any:
        *_, logits = apply(params, IDS, MASK, {"image": (tokens, all_real)}, method=everything)
        picked = jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, IDS[..., None], axis=-1)[..., 0]
        return jnp.sum(jnp.where(MASK, picked, 0)), logits

    (value, logits), (gradient, of_tokens) = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(params, tokens)

    lstm = torch.nn.LSTM(4, 6, 2, batch_first=True)
    for layer in range(2):
        own = held[f"stack_{layer}"]
        values = {
            "weight_ih": own["of_input"]["kernel"].T,
            "weight_hh": own["of_state"]["kernel"].T,
            "bias_ih": own["of_input"]["bias"],
            "bias_hh": np.zeros(24, np.float32),
        }
        for key, x in values.items():
            getattr(lstm, f"{key}_l{layer}").data = torch.tensor(np.ascontiguousarray(x))
    leaves = {
        name: torch.tensor(np.ascontiguousarray(x), requires_grad=True)
        for name, x in {
            "token": held["token"]["embedding"],
            "kernel": held["prefix_image"]["dense"]["kernel"],
            "bias": held["prefix_image"]["dense"]["bias"],
            "head": held["head"],
            "offset": held["bias"],
            "tokens": tokens,
        }.items()
    }
    picture = leaves["tokens"].mean(dim=1) @ leaves["kernel"] + leaves["bias"]
    read = torch.cat([picture[:, None], leaves["token"][torch.tensor(IDS)]], dim=1)
    pack = torch.nn.utils.rnn.pack_padded_sequence(read, 1 + lengths, batch_first=True, enforce_sorted=False)
    states, _ = torch.nn.utils.rnn.pad_packed_sequence(lstm(pack)[0], batch_first=True, total_length=L + 1)
    theirs = states[:, 1:] @ leaves["head"].T + leaves["offset"]
    real, words = torch.tensor(MASK), torch.tensor(IDS).long()
    total = torch.nn.functional.cross_entropy(theirs[real], words[real], reduction="sum")
    total.backward()
    np.testing.assert_allclose(value, total.item(), rtol=1e-6)
    np.testing.assert_allclose(logits[MASK], theirs.detach().numpy()[MASK], atol=1e-5)
    found = gradient["params"]
    pairs = [
        (found["token"]["embedding"], leaves["token"].grad),
        (found["prefix_image"]["dense"]["kernel"], leaves["kernel"].grad),
        (found["prefix_image"]["dense"]["bias"], leaves["bias"].grad),
        (found["head"], leaves["head"].grad),
        (found["bias"], leaves["offset"].grad),
        (of_tokens, leaves["tokens"].grad),
    ]
    for layer in range(2):
        own = found[f"stack_{layer}"]
        pairs += [
            (own["of_input"]["kernel"], getattr(lstm, f"weight_ih_l{layer}").grad.T),
            (own["of_state"]["kernel"], getattr(lstm, f"weight_hh_l{layer}").grad.T),
            (own["of_input"]["bias"], getattr(lstm, f"bias_ih_l{layer}").grad),
        ]
    for mine, other in pairs:
        assert np.abs(mine).max() > 1e-3
        np.testing.assert_allclose(mine, other.numpy(), atol=1e-5)


def test_what_is_not_there_has_no_gradient() -> None:
    decoder = decoder_of("both", layers=2)
    params = params_of(decoder)

    def loss(params: Any, views: Any) -> Any:
        states, weights, _, logits = as_any(decoder.apply)(params, IDS, MASK, views, method=everything)
        seen = MASK[..., None]
        return sum(jnp.sum(jnp.where(seen, jnp.sin(x), 0)) for x in (states, weights, logits))

    spoilt = {name: np.where(REAL[..., None], x, np.nan) for name, x in TOKENS.items()}
    gradient = jax.jit(
        jax.grad(lambda params, x: loss(params, {n: (tokens, REAL) for n, tokens in x.items()}), (0, 1))
    )(params, spoilt)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf), path
    for leaf in gradient[1].values():
        np.testing.assert_array_equal(np.asarray(leaf)[~REAL], 0)


@pytest.mark.parametrize("name", ["shown", "attending", "attending, deep"])
def test_dropout_is_by_each_examples_key(name: str) -> None:
    decoder = decoder_of(name, dropout=0.4, input_dropout=0.3)
    params, views = params_of(decoder), views_of(decoder)
    keys = jax.random.split(jax.random.key(3), B)
    states, *_ = compiled(decoder, everything, train=True)(params, IDS, None, views, keys=keys)
    p = oracle.as64(params)["params"]
    for row in range(B):

        def dropped(x: Any, rate: float, place: int, row: int = row) -> Any:
            ones = np.asarray(drop(jnp.ones((1, *x.shape)), rate, keys[row : row + 1], place))[0]
            return x * ones

        seen = {n: x[row][REAL[row]].astype(np.float64) for n, x in TOKENS.items()}
        want, *_ = written(decoder, p, IDS[row], seen, dropped)
        np.testing.assert_allclose(states[row], want, atol=5e-6)
    still = compiled(decoder)(params, IDS, None, views, keys=keys)
    assert np.abs(still - states).max() > 0.1
    plain = compiled(decoder_of(name))(params, IDS, None, views)
    np.testing.assert_array_equal(still, plain)


def test_initial_values_parameters_and_logical_axes() -> None:
    fields: dict[str, Any] = {"vocab": 500, "width": 64, "embed_width": 48, "attention_width": 32, "layers": 2}
    decoder = decoder_of("attending", start_layers=2, **fields)
    made = jax.jit(lambda: decoder.init(jax.random.key(0), IDS, MASK, views_of(decoder), method=everything))
    specs = nn.get_partition_spec(jax.eval_shape(made))["params"]
    assert specs["stack_0"]["of_seen"]["kernel"] == PartitionSpec("embed", None)
    assert specs["token"]["embedding"] == specs["head"] == PartitionSpec("vocab", "embed")
    p = nn.unbox(made())["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(p):
        if path[-1].key == "bias":
            assert not np.any(leaf), path
        else:
            assert 0.075 < np.abs(leaf).max() <= 0.08, path
            assert abs(np.mean(leaf)) < 0.02, path
    first, second = 4 * 64 * (48 + 64 + E + 1), 4 * 64 * (64 + 64 + 1)
    attention = 32 * (E + 1) + 32 * 64 + 32 + 64 + 1
    start = 48 * (E + 1) + 2 * 2 * 64 * (48 + 1)
    output = 48 * (64 + 1) + 48 * E
    words = 500 * 48 + 500 * 48 + 500
    assert sum(x.size for x in jax.tree.leaves(p)) == first + second + attention + start + output + words


def test_a_bfloat16_decoder_holds_its_memory_in_float32() -> None:
    decoder = decoder_of("attending", dtype="bfloat16")
    params, views = params_of(decoder), views_of(decoder)
    states, cache = compiled(decoder, "prefill", slots=L)(params, IDS, MASK, views)
    assert states.dtype == jnp.bfloat16
    assert {state.dtype for state in jax.tree.leaves(cache.states)} == {np.dtype("float32")}
    assert compiled(decoder, "logits")(params, states).dtype == np.float32
    exact = compiled(decoder_of("attending"))(params, IDS, MASK, views)
    np.testing.assert_allclose(states.astype(np.float32)[MASK], exact[MASK], atol=0.1)


@pytest.mark.parametrize(
    ("fields", "told", "message"),
    [
        ({"layers": 0}, {}, "layers=0 of a RecurrentDecoder must be at least 1"),
        ({**SHOWN, **ATTENDING}, {}, "'image' is in context and in prefix"),
        ({}, {"views": {"image": (TOKENS["image"], REAL)}}, "a RecurrentDecoder was given the view 'image'"),
        (SHOWN, {}, "reads image and was given no tokens of 'image'"),
        ({}, {"together": np.zeros(B, np.int32)}, "word by word: words together, segments and places"),
        ({}, {"segments": IDS}, "reads one text a row"),
        ({"length": 4}, {}, "texts of 5 tokens are longer than length=4"),
        ({"dropout": 1.0}, {"train": True}, "dropout=1.0 is not a rate"),
        (
            {"context": {"image": None, "audio": None}},
            {"views": {"image": (TOKENS["image"], REAL), "audio": (TOKENS["audio"][..., 1:], REAL)}},
            r"a context of \['audio', 'image'\] is \[6, 7\] wide: give each a projector",
        ),
    ],
)
def test_errors_say_what_would_do(fields: Any, told: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: RecurrentDecoder(**(SMALL | fields)).init(jax.random.key(0), IDS, **told))
    if "together" in told:
        with pytest.raises(UserError, match="words together"):
            jax.eval_shape(
                lambda: RecurrentDecoder(**SMALL).init(jax.random.key(0), IDS, MASK, **told, slots=9, method="prefill")
            )
