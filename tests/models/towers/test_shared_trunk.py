"""A trunk that a text's tower and a fusion share: alone it is a plain tower, with a context a plain cross-attention, of
the same parameters; and a pretrainer with it learns all of them, whatever the cut."""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.attention_maps import _followed
from mmjax.models import Blocks, Cross, MultiwayTrunk, TextTransformer, Trunk, ViT
from mmjax.objectives import MaskedText, Matching, MomentumContrastive, Pretrainer
from tests.objectives.toys import STEM, assert_same, stems

B, D, LENGTH, VOCAB, ENCODE = 8, 8, 6, 24, 23
SMALL: Any = {"width": D, "heads": 2, "depth": 2, "mlp_dim": STEM, "remat": None}
POST, PRE = Blocks(norm="post", **SMALL), Blocks(**SMALL)
TRUNK = Trunk(blocks=POST, cls=False, kinds=False, cross=True)
WORDS: Any = {"vocab": VOCAB, "length": LENGTH, "pre_norm": True, "pooling": "cls", "embed_dim": 4}
TEXT = TextTransformer(trunk=TRUNK, **WORDS)
KEYS = {"mask": jax.random.key(5), "dropout": jax.random.key(6)}


def batch() -> dict[str, Any]:
    """Texts of all lengths, two rows lack an input."""
    random = np.random.default_rng(0)
    mask = np.arange(LENGTH) < random.integers(2, LENGTH + 1, (B, 1))
    ids = np.where(mask, random.integers(5, ENCODE, (B, LENGTH)), 0).astype(np.int32)
    ids[:, 0] = 1
    return {
        "image": random.integers(0, 256, (B, 8, 8, 3), np.uint8),
        "image_valid": np.arange(B) != 1,
        "text": ids,
        "text_mask": mask,
        "text_valid": np.arange(B) != 2,
        "index": np.arange(B, dtype=np.uint32) + 9,
    }


def pretrainer(microbatches: int = 1, dropout: float = 0.0, first: int | None = ENCODE, **changes: Any) -> Any:
    trunk = TRUNK.clone(blocks=replace(POST, dropout=dropout))
    towers = {
        "image": ViT(blocks=replace(PRE, mlp_dim=D), patch=4, size=8, cls=True, pooling="cls", embed_dim=4),
        "text": TEXT.clone(trunk=trunk, fused_first=first),
    }
    objectives = {
        "contrast": MomentumContrastive(("image", "text"), queue=2 * B),
        "match": Matching("grounded"),
    }
    fields = {"fusions": {"grounded": Cross(reader="text", trunk=trunk)}, "objectives": objectives} | changes
    return Pretrainer(towers, microbatches=microbatches, **fields)


def drawn(module: Any, *args: Any, **kwargs: Any) -> Any:
    random = np.random.default_rng(1)
    shapes = nn.unbox(jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs)))
    numbers = lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype)  # noqa: E731
    return jax.tree.map(lambda x: numbers(x) if x.dtype == jnp.float32 else jnp.zeros(x.shape, x.dtype), shapes)


def test_a_tower_with_it_is_a_tower_of_its_own_blocks() -> None:
    """It doesn't go through the attention to a context, whose parameters are there all the same."""
    given = batch()
    params = drawn(TEXT, given["text"], given["text_mask"])["params"]
    layers = params["trunk"]["transformer"]["blocks"]
    assert {"cross", "norm_cross"} < set(layers)
    assert set(params["trunk"]) == {"transformer"}  # no CLS, and a post-LN block ends in a norm
    plain = TextTransformer(blocks=POST, **WORDS)
    own = {name: part for name, part in params.items() if name != "trunk"}
    own["transformer"] = {"blocks": {name: x for name, x in layers.items() if "cross" not in name}}
    expected: Any = plain.apply({"params": own}, given["text"], given["text_mask"])
    found: Any = TEXT.apply({"params": params}, given["text"], given["text_mask"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_fusion_through_it_is_one_of_its_own_blocks() -> None:
    random = np.random.default_rng(2)
    tokens = {name: (jnp.float32(random.normal(size=(B, n, D))), jnp.asarray(random.random((B, n)) < 0.7))
              for name, n in (("image", 5), ("text", LENGTH))}  # fmt: skip
    own = Cross(reader="text", blocks=POST, embed_dim=3)
    params = drawn(own, tokens)["params"]
    through = Cross(reader="text", trunk=TRUNK, embed_dim=3)
    assert (through.reads, own.reads) == ("front", "tokens")
    shared = {"projection": params["projection"], "trunk": {"transformer": params["transformer"]}}
    assert jax.tree.map(jnp.shape, drawn(through, tokens)["params"]) == jax.tree.map(jnp.shape, shared)
    expected, found = own.apply({"params": params}, tokens), through.apply({"params": shared}, tokens)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    assert (_followed(own), _followed(through)) == (True, False)


@pytest.fixture(scope="module")
def trained() -> Any:
    """Variables, and the gradient of a step of the whole batch."""
    variables = drawn(pretrainer(), batch())
    variables["params"]["objectives_contrast"]["temperature"] = jnp.float32(0.3)
    variables["ema"] = jax.tree.map(lambda x: x * 1.1, variables["params"])
    return variables, gradient(1, variables, dropout=0.0)


def gradient(microbatches: int, variables: Any, dropout: float) -> Any:
    held = {name: part for name, part in variables.items() if name != "params"}
    module = pretrainer(microbatches, dropout)

    def loss(params: Any, batch: Any) -> Any:
        kept = sorted(held.keys() - {"ema"})
        (loss, metrics), _ = module.apply({"params": params, **held}, batch, rngs=KEYS, mutable=kept)
        return loss, metrics

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"], batch())


def test_every_parameter_is_there_once_and_learns(trained: Any) -> None:
    variables, (_, gradients) = trained
    assert [name for name, part in variables["params"].items() if "trunk" in part] == ["towers_text"]
    assert not any(name.startswith("fusions") for name in variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        text = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), text
        assert np.abs(leaf).max() > 0 or "bias" in text, text


@pytest.mark.slow
def test_the_cut_changes_nothing(trained: Any) -> None:
    """With dropout, whose keys a text alone and one with its picture have apart."""
    variables, _ = trained
    assert_same(gradient(2, variables, dropout=0.2), gradient(1, variables, dropout=0.2), 1e-5)


def test_each_view_is_encoded_once() -> None:
    """First matrices of the text's MLPs: student, teacher and pairs; words that are hidden aren't encoded alone."""
    assert stems(pretrainer(), batch()) == 3
    hidden = MaskedText(vocab=VOCAB, fusion="grounded", beside=("image",))
    assert stems(pretrainer(objectives={"words": hidden}), batch()) == 1


def test_a_matched_text_begins_with_another_token() -> None:
    """As if its ids began so, while the text alone is as it was."""
    given, there = batch(), np.arange(B) > 2
    module, plain = pretrainer(), pretrainer(first=None)
    variables = drawn(module, given)
    other = {**given, "text": np.where(np.arange(LENGTH) == 0, ENCODE, given["text"])}

    def of(one: Any, what: str, batch: Any, *args: Any) -> Any:
        return jax.jit(lambda batch: one.apply(variables, batch, *args, method=what))(batch)

    matched = of(module, "predict", given, "match")
    np.testing.assert_allclose(matched[there], of(plain, "predict", other, "match")[there], atol=1e-5)
    assert np.abs(matched - of(plain, "predict", given, "match"))[there].max(axis=1).min() > 1e-3
    head = variables["params"]["objectives_match"]["match"]
    fused = of(module, "fused", given, "grounded").embedding @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(fused[there], matched[there], atol=1e-5)
    np.testing.assert_array_equal(of(module, "embed", given)["text"], of(plain, "embed", given)["text"])
    image, (text, _) = (pair for pair in of(module, "kept_tokens", given, "match"))
    assert np.ptp(text[there, 0], axis=0).max() == 0  # of that token alone, before any layer
    assert image[0].shape[1] == 5


def test_what_does_not_go_together_is_named() -> None:
    given = batch()
    tokens = {name: (jnp.ones((2, 3, D)), jnp.ones((2, 3), bool)) for name in ("image", "text")}
    for cross, message in (
        (Cross(reader="text"), "was given neither"),
        (Cross(reader="text", trunk=TRUNK, blocks=POST), "was given both"),
        (Cross(reader="text", trunk=TRUNK.clone(cls=True)), r"a CLS before the reader's tokens: take Trunk\(cls=False"),
        (Cross(reader="text", trunk=TRUNK.clone(cross=False)), "which has no attention to a context"),
        (Cross(reader="text", trunk=MultiwayTrunk(blocks=PRE, ways=("text",))), "which has no attention to a context"),
    ):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(cross.init, jax.random.key(0), tokens)
    plain = TRUNK.clone(cross=False)
    with pytest.raises(UserError, match="a Trunk was given a context, and its blocks have no attention to one"):
        jax.eval_shape(plain.init, jax.random.key(0), *tokens["text"], context=tokens["image"][0])
    for tower in (TEXT.clone(fused_first=VOCAB), TextTransformer(blocks=POST, fused_first=3, **WORDS)):
        with pytest.raises(UserError, match=r"fused_first=\d+ must be an id below vocab=24, of a tower with a trunk"):
            jax.eval_shape(tower.init, jax.random.key(0), given["text"])
    other = pretrainer(fusions={"grounded": Cross(reader="text", trunk=TRUNK.clone(blocks=PRE))})
    with pytest.raises(UserError, match=r"reads 'text' by the fusion 'grounded', .*text doesn't hold that trunk"):
        jax.eval_shape(other.init, jax.random.key(0), given)
