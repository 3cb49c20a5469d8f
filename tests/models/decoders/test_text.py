"""The text decoder equals loops over one example, with and without a memory, and what isn't real changes nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from mmjax.errors import UserError
from mmjax.models import DecoderBlocks, LinearProjector, MlpProjector, TextDecoder
from mmjax.models.decoders.text import last_word
from mmjax.models.layers.decoder_layers import unstacked
from tests.models import oracle
from tests.models.decoders.text_by_hand import states

V, L, B, SLOTS = 11, 6, 3, 16
WIDTH, SEEN, PIXELS = 16, 6, 4
IDS = np.array([[3, 5, 7, 1, 0, 9], [2, 8, 8, 4, 6, 1], [10, 1, 2, 3, 4, 5]], np.int32)
MASK = np.arange(L) < np.array([6, 3, 1])[:, None]
LLAMA = {"kv_heads": 2, "norms": "rms", "bias": False, "gated": True, "activation": "silu"}
IMAGE = {"image": LinearProjector()}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gpt2": ({}, {}),
    "gpt1": ({"norm": "post", "activation": "gelu_tanh"}, {"tied": False, "head_bias": True}),
    "gpt3": ({"window": 2}, {}),
    "llama": (LLAMA, {"positions": "rotary", "wavelength": 100.0}),
    "local turned": ({"window": 3, "window_every": 1, "kv_heads": 1}, {"positions": "rotary", "scaled": True}),
    "within": ({}, {"cross": "within", "context": {"image": None}}),
    "bert": ({"norm": "post"}, {"cross": "within", "context": {"image": None}, "norm_embedded": True}),
    "coca": ({"bias": False}, {"cross": "after", "cross_from": 2, "context": {"image": LinearProjector()}}),
    "flamingo": ({}, {"cross": "gated", "cross_every": 2, "context": {"image": None}}),
    "paligemma": (LLAMA, {"positions": "rotary", "prefix": IMAGE}),
    "git": ({"norm": "post"}, {"prefix": IMAGE, "prefix_places": False}),
    "llava": ({"window": 3}, {"prefix": {"image": MlpProjector()}, "prefix_together": False}),
}
TOGETHER = np.array([3, 2, 0], np.int32)


def made(name: str) -> tuple[TextDecoder, Any]:
    blocks, more = CASES[name]
    sizes: dict[str, Any] = {"width": WIDTH, "depth": 4, "heads": 4, "mlp_dim": 12, "norm_eps": 1e-5, **blocks}
    decoder = TextDecoder(vocab=V, length=SLOTS, blocks=DecoderBlocks(**sizes), **more)
    return decoder, oracle.params_of(decoder, IDS, MASK, views(name))


def applied(decoder: Any, params: Any, *args: Any, method: Any = None) -> np.ndarray:
    """Compiled; a decoder holds mappings, and is no key of `oracle.apply`'s."""
    return np.asarray(jax.jit(lambda params, *args: decoder.apply(params, *args, method=method))(params, *args))


def views(name: str, junk: float = 0.0) -> Any:
    """The first picture is whole, the second has fewer tokens, the third isn't there."""
    if not {"context", "prefix"} & {*CASES[name][1]}:
        return {}
    tokens = np.random.default_rng(1).normal(size=(B, PIXELS, SEEN)).astype(np.float32)
    real = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    return {"image": (np.where(real[..., None], tokens, junk), real)}


@pytest.mark.parametrize("prompt", [False, True], ids=["causal", "together"])
@pytest.mark.parametrize("name", CASES)
def test_it_equals_loops_over_each_example_s_real_tokens(name: str, prompt: bool) -> None:
    decoder, params = made(name)
    seen = views(name)
    together = TOGETHER if prompt else None
    got = applied(decoder, params, IDS, MASK, seen, together)
    own = oracle.as64(params)["params"]
    for row in range(B):
        prefix, context = np.zeros((0, WIDTH)), None
        if seen:
            tokens = seen["image"][0][row][seen["image"][1][row]].astype(np.float64)
            if decoder.prefix:
                prefix = projected(own["prefix_image"], tokens)
            else:
                context = oracle.dense(own["context_image"]["dense"], tokens) if "context_image" in own else tokens
        together_here = int(TOGETHER[row]) if prompt else 0
        want = states(decoder, own, IDS[row][MASK[row]], prefix, context, together_here)
        np.testing.assert_allclose(got[row][MASK[row]], want, atol=2e-5, err_msg=f"row {row}")


def projected(p: Any, tokens: np.ndarray) -> np.ndarray:
    if not len(tokens):
        return np.zeros((0, WIDTH))
    if "dense" in p:
        return oracle.dense(p["dense"], tokens)
    return oracle.dense(p["out"], oracle.ACTIVATIONS["gelu"](oracle.dense(p["in"], tokens)))


@pytest.mark.parametrize("apart", [False, True], ids=["stacked", "unstacked"])
@pytest.mark.parametrize("name", CASES)
def test_word_by_word_it_gives_what_the_whole_text_does(name: str, apart: bool) -> None:
    """Rows of different lengths: each begins with what it has of two words, and goes on until it ends."""
    decoder, params = made(name)
    seen = views(name)
    together = np.minimum(TOGETHER, MASK[:, :2].sum(axis=1)).astype(np.int32)
    full = applied(decoder, params, IDS, MASK, seen, together)
    if apart:
        own = params["params"]
        params = {"params": own | {"layers": unstacked(own["layers"])}}
    prefill = jax.jit(lambda p, *args: decoder.apply(p, *args, slots=SLOTS, method="prefill"))
    extend = jax.jit(lambda p, *args: decoder.apply(p, *args, method="extend"))
    got, cache = prefill(params, IDS[:, :2], MASK[:, :2], seen, together)
    np.testing.assert_allclose(np.where(MASK[:, :2, None], got - full[:, :2], 0), 0, atol=1e-5)
    for some in (slice(2, 3), slice(3, 5), slice(5, 6)):
        got, cache = extend(params, IDS[:, some], cache, MASK[:, some])
        np.testing.assert_allclose(np.where(MASK[:, some, None], got - full[:, some], 0), 0, atol=1e-5)
    ahead = PIXELS if decoder.prefix else 0
    np.testing.assert_array_equal(cache.slot, ahead + MASK.sum(axis=1))


@pytest.mark.parametrize("name", ["gpt3", "bert", "coca", "paligemma", "git"])
def test_what_is_not_real_changes_nothing(name: str) -> None:
    decoder, params = made(name)
    got = applied(decoder, params, IDS, MASK, views(name))
    junk = applied(decoder, params, np.where(MASK, IDS, V - 1), MASK, views(name, junk=50.0))
    np.testing.assert_allclose(np.where(MASK[..., None], got - junk, 0), 0, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "gpt3", "llama", "paligemma"])
def test_a_later_word_never_reaches_an_earlier_one(name: str) -> None:
    decoder, params = made(name)
    other = IDS.copy()
    other[:, 4] = (IDS[:, 4] + 1) % V
    whole = np.ones_like(MASK)
    first, second = (applied(decoder, params, ids, whole, views(name)) for ids in (IDS, other))
    np.testing.assert_array_equal(first[:, :4], second[:, :4])
    assert (np.abs(first[:, 4:] - second[:, 4:]).max(axis=(1, 2)) > 1e-3).all()


@pytest.mark.parametrize("name", ["gpt2", "gpt3", "llama"])
def test_packed_texts_are_as_each_alone(name: str) -> None:
    decoder, params = made(name)
    ids = np.concatenate([IDS[0, :3], IDS[1, :2], IDS[2, :4], [0]])[None].astype(np.int32)
    segments = np.array([[0, 0, 0, 1, 1, 2, 2, 2, 2, -1]], np.int32)
    places = np.array([[0, 1, 2, 0, 1, 0, 1, 2, 3, 0]], np.int32)
    got = applied(decoder, params, ids, segments >= 0, {}, None, segments, places)
    for row, (start, end) in enumerate(((0, 3), (3, 5), (5, 9))):
        alone = applied(decoder, params, IDS[row : row + 1, : end - start], None, {})
        np.testing.assert_allclose(got[0, start:end], alone[0], atol=1e-5)


def test_a_wide_window_is_none_and_the_gates_start_closed() -> None:
    """A window of all tokens is dense attention (GPT-3); at first a gated decoder is the language model that it was
    (Flamingo), and the gates alone get a gradient of what is read."""
    decoder, params = made("gpt3")
    wide = decoder.clone(blocks=DecoderBlocks(**{**CASES["gpt2"][0], **sizes_of(decoder), "window": L}))
    none = decoder.clone(blocks=DecoderBlocks(**{**CASES["gpt2"][0], **sizes_of(decoder), "window": None}))
    np.testing.assert_allclose(applied(wide, params, IDS), applied(none, params, IDS), atol=1e-6)

    gated, _ = made("flamingo")
    fresh = meta.unbox(jax.jit(gated.init)(jax.random.key(0), IDS, MASK, views("flamingo")))
    dark = jax.tree.map(np.zeros_like, views("flamingo"))
    seen, blind = (applied(gated, fresh, IDS, MASK, given) for given in (views("flamingo"), dark))
    np.testing.assert_array_equal(seen, blind)
    loss = lambda p: jnp.sum(jnp.sin(jnp.asarray(gated.apply(p, IDS, MASK, views("flamingo")))))  # noqa: E731
    cross = jax.jit(jax.grad(loss))(fresh)["params"]["layers"]["upper"]["layer_1"]["cross"]
    assert np.abs(cross.pop("gate_attention")).min() > 0
    assert np.abs(cross.pop("gate_mlp")).min() > 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(cross))


def sizes_of(decoder: TextDecoder) -> dict[str, Any]:
    blocks = decoder.blocks
    return {name: getattr(blocks, name) for name in ("width", "depth", "heads", "mlp_dim", "norm_eps")}


def test_logits_are_of_the_table_or_of_a_matrix_of_their_own() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, WIDTH)).astype(np.float32)
    tied, params = made("gpt2")
    own = applied(tied, params, x, method="logits")
    np.testing.assert_allclose(own, x @ params["params"]["token"]["embedding"].T, atol=1e-5)
    untied, params = made("gpt1")
    other = applied(untied, params, x, method="logits")
    np.testing.assert_allclose(other, x @ params["params"]["head"].T + params["params"]["bias"], atol=1e-5)
    even = untied.clone(zero_head=True)
    fresh = meta.unbox(jax.jit(even.init)(jax.random.key(0), IDS))
    assert not np.any(applied(even, fresh, x, method="logits"))


def test_the_residual_stream_grows_without_gpt_2_s_scaling_and_not_with_it() -> None:
    """Its deviation at first, of 24 layers: grows by the root of twice their number without it."""
    spread = {}
    for inits in ("gpt1", "gpt2"):
        blocks = DecoderBlocks(width=64, depth=24, heads=4, inits=inits)
        decoder = TextDecoder(vocab=V, length=L, blocks=blocks, tied=False, token_std=1e-3, position_std=0.0)
        fresh = meta.unbox(jax.jit(decoder.init)(jax.random.key(0), IDS))["params"]["layers"]["lower"]["layer_0"]
        spread[inits] = [np.std(fresh[part]["out"]["kernel"]) for part in ("attention", "mlp")]
    np.testing.assert_allclose(spread["gpt1"], 0.02, rtol=0.02)
    np.testing.assert_allclose(spread["gpt2"], 0.02 / np.sqrt(48), rtol=0.02)


def test_the_last_word_is_each_row_s_own() -> None:
    states = jnp.arange(B * L, dtype=jnp.float32).reshape(B, L, 1)
    np.testing.assert_array_equal(last_word(states, jnp.asarray(MASK))[:, 0], [5, 8, 12])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d("gpt2", {"image": None}), "was given the view 'image', but the views that it reads are none"),
        (lambda d: d("within", {}), "reads image and was given no tokens of 'image'"),
        (lambda d: d("gpt2", {}, np.zeros((1, 17), np.int32)), "17 tokens are 1 more than the 16 places of length=16"),
        (lambda d: d("llava", None, np.zeros((3, 13), np.int32)), "17 tokens are 1 more than the 16 places"),
    ],
)
def test_what_cannot_be_read_says_why(call: Any, message: str) -> None:
    def decode(name: str, given: Any, ids: np.ndarray = IDS) -> None:
        decoder, params = made(name)
        decoder.apply(params, ids, None, views(name) if given is None else given)

    with pytest.raises(UserError, match=message):
        call(decode)


@pytest.mark.parametrize(
    ("blocks", "more", "message"),
    [
        ({"kv_heads": 3}, {}, r"kv_heads=3 does not divide heads=4; these do: \[1, 2, 4\]"),
        ({"norms": "batch"}, {}, "norms='batch' is not one of layer, rms"),
        ({"window": 0}, {}, "window=0 with window_every=2: both are at least 1"),
        ({}, {"cross": "within"}, r"cross='within' with context=\[\]"),
        ({}, {"cross": "sideways", "context": {"image": None}}, "cross='sideways' is not one of"),
        ({}, {"cross": "within", "cross_every": 3, "context": {"image": None}}, "cross_from=0 leaves 4 of depth=4"),
        ({}, {"prefix": IMAGE, "context": IMAGE, "cross": "within"}, "'image' is in context and in prefix"),
        ({}, {"zero_head": True}, "zero_head=True is for a last matrix of its own"),
    ],
)
def test_what_cannot_be_built_says_why(blocks: Any, more: Any, message: str) -> None:
    sizes = DecoderBlocks(**{"width": WIDTH, "depth": 4, "heads": 4, **blocks})
    decoder = TextDecoder(vocab=V, length=SLOTS, blocks=sizes, **more)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(decoder.init, jax.random.key(0), IDS, MASK, views("within") if more.get("context") else {})


def test_a_memory_has_room_for_what_it_is_asked_to_hold() -> None:
    decoder, params = made("gpt2")
    with pytest.raises(UserError, match="slots=5 have no room for 6 words behind 0 tokens of the prefix"):
        decoder.apply(params, IDS, MASK, slots=5, method="prefill")
    with pytest.raises(UserError, match="17 tokens are 1 more than the 16 places"):
        decoder.apply(params, IDS, MASK, slots=17, method="prefill")
    with pytest.raises(UserError, match="packed texts"):
        decoder.apply(params, IDS, MASK, {}, None, IDS)
