"""Fusions of tokens: an example in a padded batch is fused as it is alone, without padding and what it lacks."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, CoAttention, Cross, Merged, Multiway
from mmjax.models.fusion.tokens import first_real

B, WIDTHS, LENGTHS = 5, {"image": 16, "text": 16, "audio": 16}, {"image": 6, "text": 5, "audio": 4}
RATE = 0.3
BLOCKS = Blocks(width=16, depth=2, heads=2, dropout=RATE, remat=None)
POST = Blocks(width=16, depth=3, heads=2, norm="post", norm_eps=1e-12, dropout=RATE, layer_scale=0.5)
TWO, THREE = ("image", "text"), ("text", "image", "audio")
FUSIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "merged": (Merged(blocks=BLOCKS, project=True, embed_dim=7), THREE),
    "merged, first": (Merged(blocks=BLOCKS, pooling="first"), TWO),
    "merged, placed": (Merged(blocks=POST, pooling="first", positions=11, pre_norm=True, embed_dim=4), TWO),
    "merged, placed, cls": (Merged(blocks=BLOCKS, positions=16), THREE),
    "merged, mean, post": (Merged(blocks=POST, pooling="mean", kinds=False), THREE),
    "cross": (Cross(reader="text", blocks=BLOCKS, kinds=True, embed_dim=6, projection_tanh=True), THREE),
    "cross, post": (Cross(reader="image", blocks=POST, pooling="mean"), TWO),
    "coattention": (CoAttention(streams={"image": POST, "text": POST}, heads=4, embed_dim=32), TWO),
    "coattention, shared": (
        CoAttention(streams={"text": BLOCKS, "image": BLOCKS}, heads=2, shared=True, mlp=False, pooled="text"),
        TWO,
    ),
    "multiway": (Multiway(blocks=BLOCKS, joint=1, embed_dim=6), THREE),
    "multiway, mean": (Multiway(blocks=Blocks(width=16, depth=2, heads=4, layer_scale=0.1), pooling="mean"), TWO),
}
LACKING = {"image": 1, "text": 2, "audio": 3}  # the row that lacks it


def given(inputs: tuple[str, ...], widths: Mapping[str, int] = WIDTHS, seed: int = 0) -> dict[str, Any]:
    """Tokens of `B` examples, of which one lacks each input and others are padded. What isn't real is large."""
    random, found = np.random.default_rng(seed), {}
    for name in inputs:
        mask = np.arange(LENGTHS[name]) < random.integers(1, LENGTHS[name] + 1, (B, 1))
        mask[LACKING[name]] = False
        x = random.normal(size=(B, LENGTHS[name], widths[name])).astype(np.float32)
        found[name] = (jnp.asarray(np.where(mask[..., None], x, 50 + x)), jnp.asarray(mask))
    return found


def drawn(module: Any, tokens: Any, seed: int = 1) -> Any:
    """Parameters far from their initial values, so that no bias or factor is nothing."""
    shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), tokens))
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * random.normal(size=x.shape), x.dtype), shapes)


def alone(tokens: Mapping[str, Any], row: int, apart: bool) -> dict[str, Any]:
    """One example without padding. What it lacks isn't there at all, or (apart) is a token that isn't real."""
    found = {}
    for name, (x, mask) in tokens.items():
        real = np.asarray(mask[row])
        if real.any():
            found[name] = (x[row : row + 1, real], jnp.ones((1, int(real.sum())), bool))
        elif apart:
            found[name] = (jnp.zeros((1, 1, x.shape[-1])), jnp.zeros((1, 1), bool))
    return found


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", FUSIONS)
def test_an_example_is_fused_as_it_is_alone_without_padding(name: str, train: bool) -> None:
    """In evaluation, to the tokens that there are and the embedding; in training the embedding is the same where
    nothing is dropped by place: each example's draws are its own."""
    module, inputs = FUSIONS[name]
    tokens = given(inputs)
    variables = drawn(module, tokens)
    keys = jax.random.split(jax.random.key(7), B)
    apply = jax.jit(lambda tokens, keys: module.apply(variables, tokens, train=train, keys=keys))
    if train:  # dropout's draws are by place, so a longer row has others: each row alone, as padded as it is here
        fused, embedding = apply(tokens, keys)
        for row in (0, B - 1):
            one, own = apply(jax.tree.map(lambda x, row=row: x[row : row + 1], tokens), keys[row : row + 1])
            np.testing.assert_allclose(own[0], embedding[row], rtol=0, atol=1e-5)
            for input, (x, mask) in one.items():
                np.testing.assert_allclose(x[0][mask[0]], fused[input][0][row][mask[0]], rtol=0, atol=1e-5)
        blocks = next(iter(module.streams.values())) if isinstance(module, CoAttention) else module.blocks
        assert (np.abs(apply(tokens, keys[::-1])[1] - embedding).max() > 1e-3) == (blocks.dropout > 0)
        return
    fused, embedding = apply(tokens, keys)
    assert embedding.dtype == jnp.float32
    apart = isinstance(module, Cross | CoAttention)  # which have a place for each input
    for row in range(B):
        one, own = apply(alone(tokens, row, apart), keys)
        np.testing.assert_allclose(own[0], embedding[row], rtol=0, atol=1e-5)
        for input, (x, mask) in one.items():
            real = np.asarray(tokens[input][1][row])
            if not np.asarray(mask).any():
                assert not real.any()
                continue
            np.testing.assert_array_equal(fused[input][1][row], real)
            np.testing.assert_allclose(x[0], fused[input][0][row][real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, (_, inputs) in FUSIONS.items() if "text" in inputs])
def test_every_input_that_is_there_matters_and_no_other(name: str) -> None:
    module, inputs = FUSIONS[name]
    tokens = given(inputs)
    variables = drawn(module, tokens)
    embed = jax.jit(lambda tokens: module.apply(variables, tokens)[1])
    before = np.asarray(embed(tokens))
    for input in inputs:
        x, mask = tokens[input]
        moved = np.abs(np.asarray(embed(tokens | {input: (x + 1.5 * jnp.cos(x), mask)})) - before).max(axis=1)
        reads = [row for row in range(B) if LACKING[input] != row]
        if isinstance(module, Cross):
            reads = [row for row in reads if LACKING[module.reader] != row]
        if isinstance(module, CoAttention) and module.pooled in inputs:
            reads = [row for row in reads if LACKING[module.pooled] != row]
        assert (moved[reads] > 1e-5).all(), input
        assert moved[LACKING[input]] == 0, input


def test_inputs_are_dropped_in_training_alone_and_then_they_are_not_there() -> None:
    module: Any = Merged(blocks=Blocks(width=16, depth=1, heads=2), drop_inputs=0.5, pooling="mean")
    tokens = {name: (x, jnp.ones_like(mask)) for name, (x, mask) in given(THREE).items()}
    variables = drawn(module, tokens)
    keys = jax.random.split(jax.random.key(3), B)
    fused, embedding = module.apply(variables, tokens, train=True, keys=keys)
    there = {name: np.asarray(mask) for name, (_, mask) in fused.items()}
    assert all((mask.all(axis=1) | ~mask.any(axis=1)).all() for mask in there.values())
    counts = np.sum([mask[:, 0] for mask in there.values()], axis=0)
    assert (counts >= 1).all()
    assert counts.min() < len(THREE)
    left = {name: (x, jnp.asarray(there[name])) for name, (x, _) in tokens.items()}
    np.testing.assert_allclose(module.apply(variables, left)[1], embedding, rtol=0, atol=1e-6)
    whole = module.apply(variables, tokens)
    assert all(np.asarray(mask).all() for _, mask in whole[0].values())


def test_dropout_follows_the_norm_before_the_blocks_in_training() -> None:
    blocks = Blocks(width=16, depth=0, heads=2, norm="post", dropout=RATE)
    module: Any = Merged(blocks=blocks, pooling="mean", positions=11, pre_norm=True)
    tokens = given(TWO)
    variables = drawn(module, tokens)
    keys = jax.random.split(jax.random.key(3), B)
    whole, some = module.apply(variables, tokens)[0], module.apply(variables, tokens, train=True, keys=keys)[0]
    states, left = (np.concatenate([np.asarray(x) for x, _ in by.values()], axis=1) for by in (whole, some))
    assert abs((left == 0).mean() - RATE) < 0.05
    np.testing.assert_allclose(left, np.where(left == 0, 0, states / (1 - RATE)), rtol=1e-5, atol=1e-6)


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def norm(x: np.ndarray, held: Mapping[str, Any], eps: float) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * held["scale"] + held["bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(jax.nn.gelu(jnp.asarray(x), approximate=False))


def mlp(x: np.ndarray, held: Mapping[str, Any]) -> np.ndarray:
    hidden = gelu(x @ held["in"]["kernel"] + held["in"]["bias"])
    return hidden @ held["out"]["kernel"] + held["out"]["bias"]


def attended(x: np.ndarray, y: np.ndarray, held: Mapping[str, Any], kernels: str) -> np.ndarray:
    """Attention of the tokens x [n d] over y [m e], head by head."""
    if kernels == "qkv":  # [d, heads, 3, k]
        parts = [(held["qkv"]["kernel"][:, :, i], held["qkv"]["bias"][:, i]) for i in range(3)]
    else:
        parts = [(held["query"]["kernel"][:, :, 0], held["query"]["bias"][:, 0])]
        parts += [(held["key_value"]["kernel"][:, :, i], held["key_value"]["bias"][:, i]) for i in range(2)]
    query, key, value = (
        np.einsum("nd,dhk->hnk", x if i == 0 else y, kernel) + bias[:, None] for i, (kernel, bias) in enumerate(parts)
    )
    weights = softmax(np.einsum("hnk,hmk->hnm", query, key) / np.sqrt(query.shape[-1]))
    return np.einsum("hnm,hmk,hkd->nd", weights, value, held["out"]["kernel"]) + held["out"]["bias"]


def at(tree: Any, layer: int) -> Any:
    return jax.tree.map(lambda x: np.asarray(x[layer], np.float64), tree)


def own_block(x: np.ndarray, held: Mapping[str, Any], blocks: Blocks) -> np.ndarray:
    eps = blocks.norm_eps
    if blocks.norm == "post":
        x = norm(x + attended(x, x, held["attention"], "qkv"), held["norm_attention"], eps)
        return norm(x + mlp(x, held["mlp"]), held["norm_mlp"], eps)
    inner = norm(x, held["norm_attention"], eps)
    x = x + attended(inner, inner, held["attention"], "qkv")
    return x + mlp(norm(x, held["norm_mlp"], eps), held["mlp"])


def test_vilbert_s_layers_by_hand() -> None:
    """papers.md 8.1: post-LN, streams of two widths, an MLP after the attention between them, keys and values from the
    other stream as it was before the layer."""
    wide = Blocks(width=24, depth=2, heads=4, mlp_dim=10, norm="post", norm_eps=1e-12)
    narrow = Blocks(width=16, depth=2, heads=2, norm="post", norm_eps=1e-12)
    module: Any = CoAttention(streams={"image": wide, "text": narrow}, heads=2, inner=12, embed_dim=5)
    tokens = given(TWO, {"image": 24, "text": 16})
    variables = drawn(module, tokens)
    fused, embedding = module.apply(variables, tokens)
    held, row = variables["params"], 0
    x, y = (np.asarray(each[0][0], np.float64) for each in alone(tokens, row, True).values())
    for layer in range(2):
        own = at(held["layers"], layer)
        of_x, of_y = attended(x, y, own["cross_0"], "cross"), attended(y, x, own["cross_1"], "cross")
        x, y = norm(x + of_x, own["norm_cross_0"], 1e-12), norm(y + of_y, own["norm_cross_1"], 1e-12)
        x = norm(x + mlp(x, own["mlp_0"]), own["norm_mlp_0"], 1e-12)
        y = norm(y + mlp(y, own["mlp_1"]), own["norm_mlp_1"], 1e-12)
        x, y = own_block(x, own["block_0"], wide), own_block(y, own["block_1"], narrow)
    for input, expected in (("image", x), ("text", y)):
        found, mask = fused[input]
        np.testing.assert_allclose(found[row][mask[row]], expected, rtol=0, atol=2e-5)
    factors = [np.maximum(each[0] @ held[f"pool_{name}"]["kernel"] + held[f"pool_{name}"]["bias"], 0)
               for name, each in (("image", x), ("text", y))]  # fmt: skip
    np.testing.assert_allclose(embedding[row], factors[0] * factors[1], rtol=0, atol=2e-4)
    only = np.maximum(first_real(*fused["text"])[1] @ held["pool_text"]["kernel"] + held["pool_text"]["bias"], 0)
    np.testing.assert_allclose(embedding[LACKING["image"]], only, rtol=0, atol=1e-5)


def test_exchanged_streams_with_exchanged_weights_exchange_the_outputs() -> None:
    both = {"image": POST, "text": POST}
    module: Any = CoAttention(streams=both, heads=4, embed_dim=8)
    tokens = given(TWO)
    variables = drawn(module, tokens)
    layers = variables["params"]["layers"]
    swapped_layers = {f"{name[:-1]}{1 - int(name[-1])}": value for name, value in layers.items()}
    params = variables["params"] | {"layers": swapped_layers}
    params |= {"pool_image": params["pool_text"], "pool_text": params["pool_image"]}
    fused, embedding = module.apply(variables, tokens)
    turned = {"image": tokens["text"], "text": tokens["image"]}
    again, other = module.apply({"params": params}, turned)
    np.testing.assert_allclose(other, embedding, rtol=0, atol=1e-5)
    for input, partner in (("image", "text"), ("text", "image")):
        np.testing.assert_allclose(again[input][0], fused[partner][0], rtol=0, atol=1e-4)


def test_multiway_s_layers_by_hand() -> None:
    """VLMo: one attention and its norm for all tokens; each input's own norm and MLP, and in the last layer one."""
    blocks = Blocks(width=16, depth=2, heads=2, layer_scale=0.3)
    module: Any = Multiway(blocks=blocks, joint=1)
    tokens = given(TWO)
    variables = drawn(module, tokens)
    fused, embedding = module.apply(variables, tokens)
    held, row, eps = variables["params"], 0, blocks.norm_eps
    parts = {name: np.asarray(x[0], np.float64) + np.asarray(held[f"kind_{name}"])
             for name, (x, _) in alone(tokens, row, True).items()}  # fmt: skip
    count = len(parts["image"])
    x = np.concatenate(list(parts.values()))
    for kind, ways in (("apart", {"image": slice(count), "text": slice(count, None)}), ("joint", {"all": slice(None)})):
        own = at(held[kind], 0)
        inner = norm(x, own["norm_attention"], eps)
        x = x + own["scale_attention"]["scale"] * attended(inner, inner, own["attention"], "qkv")
        moved = np.zeros_like(x)
        for name, place in ways.items():
            moved[place] = mlp(norm(x[place], own[f"norm_mlp_{name}"], eps), own[f"mlp_{name}"])
        x = x + own["scale_mlp"]["scale"] * moved
    x = norm(x, held["norm"], eps)
    for input, place in (("image", slice(count)), ("text", slice(count, None))):
        found, mask = fused[input]
        np.testing.assert_allclose(found[row][mask[row]], x[place], rtol=0, atol=2e-5)
    np.testing.assert_allclose(embedding[row], x[0], rtol=0, atol=2e-5)


def count(module: Any, tokens: Any) -> int:
    shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), tokens))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def shaped(**widths: int) -> dict[str, Any]:
    return {name: (np.zeros((1, 3, width), np.float32), np.ones((1, 3), bool)) for name, width in widths.items()}


def test_published_counts() -> None:
    """FLAVA's multimodal encoder (papers-read-and-write.md E.4): 43,120,128 with its pooler, and two of the 768 x 768
    projections; ALBEF's six fusion layers (papers.md 8.4): BERT's, with a cross-attention and its norm."""
    flava = Merged(
        blocks=Blocks(width=768, depth=6, heads=12), project=True, kinds=False, embed_dim=768, projection_tanh=True
    )
    projections = 2 * (768 * 768 + 768)
    with_bias = 43_120_128 + projections
    assert count(flava, shaped(image=768, text=768)) == with_bias
    layer, cross = 7_087_872, 4 * (768 * 768 + 768) + 2 * 768
    albef = Cross(reader="text", blocks=Blocks(width=768, depth=6, heads=12, norm="post"))
    assert count(albef, shaped(text=768, image=768)) == 6 * (layer + cross)
    bert = Blocks(width=768, depth=5, heads=12, norm="post")
    lxmert = CoAttention(streams={"text": bert, "image": bert}, heads=12, shared=True, mlp=False, pooled="text")
    # One attention and one norm of it for both directions.
    assert count(lxmert, shaped(text=768, image=768)) == 5 * (2 * layer + 4 * (768 * 768 + 768) + 2 * 768)


@pytest.mark.parametrize(
    ("module", "inputs", "message"),
    [
        (Merged(blocks=BLOCKS), {"image": 16, "text": 12}, "width=16 was given tokens of .text. that are 12 wide"),
        (Merged(blocks=BLOCKS, positions=6), {"image": 16, "text": 16}, "positions=6 was given a sequence of 7 tokens"),
        (Merged(blocks=BLOCKS, pooling="last"), {"image": 16}, "pooling='last'"),  # pyright: ignore
        (Cross(reader="txt", blocks=BLOCKS), {"image": 16, "text": 16}, "reads by 'txt', .* did you mean text"),
        (Multiway(blocks=BLOCKS, joint=4), {"image": 16, "text": 16}, "joint=4 must be between 0 and blocks.depth=2"),
        (Multiway(blocks=POST), {"image": 16, "text": 16}, "pre-LN, and has blocks.norm='post'"),
        (
            CoAttention(streams={"image": BLOCKS, "text": POST}, heads=2, embed_dim=4),
            {"image": 16, "text": 16},
            "has depth=2 and streams.'text'. 3",
        ),
        (
            CoAttention(streams={"image": BLOCKS, "text": Blocks(width=8, depth=2, heads=2)}, heads=2, embed_dim=4),
            {"image": 16, "text": 8},
            "16 wide and .* 8: set inner",
        ),
        (
            CoAttention(streams={"image": BLOCKS, "text": BLOCKS}, heads=2, pooled="first"),
            {"image": 16, "text": 16},
            "pooled='first' .*product, image, text",
        ),
        (
            CoAttention(streams={"image": BLOCKS, "text": BLOCKS}, heads=2),
            {"image": 16, "text": 16},
            "set it",
        ),
        (
            CoAttention(streams={"image": BLOCKS, "text": BLOCKS}, heads=2, embed_dim=4),
            {"image": 16, "audio": 16},
            "given tokens of audio, image: it fuses two inputs",
        ),
        (Merged(blocks=BLOCKS, projection_tanh=True), {"image": 16, "text": 16}, "needs a projection: set embed_dim"),
    ],
)  # fmt: skip
def test_errors_name_what_is_wrong(module: Any, inputs: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), shaped(**inputs))
