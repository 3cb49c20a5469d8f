"""What tokens of a fusion look at, by its own attention weights: against NumPy, and finite differences."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import Blocks, Cross, Merged, Multiway
from mmjax.models.fusion.attention_flow import Step, relevance, rollout
from mmjax.models.layers import attention_maps, blocks, transformer
from mmjax.models.layers.attention_maps import OFFSETS, WEIGHTS
from mmjax.models.layers.attentions import ATTENTIONS
from mmjax.models.layers.transformer import Transformer

SIZE: dict[str, Any] = dict(width=8, depth=2, heads=2)
LENGTHS = {"image": 3, "text": 4}
FUSIONS = {
    "merged": Merged(blocks=Blocks(**SIZE), pooling="cls"),
    "cross": Cross(reader="text", blocks=Blocks(remat=None, norm="post", **SIZE)),
    "multiway": Multiway(blocks=Blocks(**SIZE), joint=1),
}


def tokens(batch: int = 2) -> dict[str, tuple[Any, Any]]:
    random = np.random.default_rng(0)
    real = {name: np.ones((batch, length), bool) for name, length in LENGTHS.items()}
    real["text"][1, 3:] = False
    return {
        name: (jnp.asarray(random.normal(size=(batch, length, 8)), jnp.float32), jnp.asarray(real[name]))
        for name, length in LENGTHS.items()
    }


def prepared(name: str) -> tuple[Any, Any]:
    fusion = FUSIONS[name]
    variables = nn.unbox(fusion.init(jax.random.key(0), tokens()))
    return fusion, jax.tree.map(lambda x: 3 * x, variables)  # weights that differ from one key to the other


def steps_of(fusion: Any, variables: Any) -> tuple[dict[str, slice], list[Step], Any]:
    (_, embedding), kept = fusion.apply(variables, tokens(), mutable=[WEIGHTS])
    return *fusion.attention_steps(kept[WEIGHTS], LENGTHS), embedding


@pytest.mark.parametrize("name", FUSIONS)
def test_weights_are_those_of_the_program_that_keeps_none(name: str) -> None:
    fusion, variables = prepared(name)
    spans, steps, embedding = steps_of(fusion, variables)
    np.testing.assert_allclose(embedding, fusion.apply(variables, tokens())[1], rtol=0, atol=1e-5)
    assert [spans[each].stop - spans[each].start for each in LENGTHS] == list(LENGTHS.values())
    assert len(steps) == (4 if name == "cross" else 2)
    for step in steps:
        size = step.queries.stop - step.queries.start, step.keys.stop - step.keys.start
        assert step.weights.shape == (2, 2, *size)
        np.testing.assert_allclose(step.weights.sum(axis=-1), 1, rtol=0, atol=1e-5)
        hidden = np.arange(sum(LENGTHS.values()) + 1)[spans["text"]][3]  # not a real token of the second example
        if step.keys.start <= hidden < step.keys.stop:
            assert not np.asarray(step.weights)[1, :, :, hidden - step.keys.start].any()
            assert np.asarray(step.weights)[0, :, :, hidden - step.keys.start].any()


def test_weights_of_an_example_are_the_softmax_of_its_own_queries_and_keys() -> None:
    """Of the first layer, by NumPy from the parameters."""
    fusion, variables = prepared("multiway")
    _, steps, _ = steps_of(fusion, variables)
    params = jax.tree.map(np.asarray, variables["params"])
    entered = [np.asarray(tokens()[name][0]) + params[f"kind_{name}"] for name in LENGTHS]
    x = np.concatenate(entered, axis=1).astype(np.float64)
    layer = params["apart"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * layer["norm_attention"]["scale"][0] + layer["norm_attention"]["bias"][0]
    qkv = layer["attention"]["qkv"]
    y = np.einsum("bnd,dhpk->pbhnk", x, qkv["kernel"][0]) + np.moveaxis(qkv["bias"][0], 1, 0)[:, None, :, None]
    logits = np.einsum("bhnk,bhmk->bhnm", y[0], y[1]) / 2
    real = np.concatenate([np.asarray(tokens()[name][1]) for name in LENGTHS], axis=1)
    shares = np.exp(logits) * real[:, None, None]
    np.testing.assert_allclose(steps[0].weights, shares / shares.sum(-1, keepdims=True), rtol=0, atol=1e-5)


def slow_rollout(steps: list[Step], example: int, count: int) -> np.ndarray:
    """The product over layers of half of the attention and half of the identity, each row divided by its sum."""
    found = np.eye(count)
    for step in steps:
        mixed = 0.5 * np.eye(count)
        for i, query in enumerate(range(step.queries.start, step.queries.stop)):
            for j, key in enumerate(range(step.keys.start, step.keys.stop)):
                mixed[query, key] += 0.5 * np.asarray(step.weights)[example, :, i, j].mean()
        found = np.stack([row / row.sum() for row in mixed]) @ found
    return found


@pytest.mark.parametrize("name", FUSIONS)
def test_rollout_is_the_product_over_layers(name: str) -> None:
    _, steps, _ = steps_of(*prepared(name))
    count = sum(LENGTHS.values()) + (name == "merged")
    found = np.asarray(rollout(steps, count))
    for example in range(2):
        np.testing.assert_allclose(found[example], slow_rollout(steps, example, count), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=0, atol=1e-5)


def score(fusion: Any, variables: Any, offsets: Any) -> Any:
    """Of the first word after the fusion, in the precision that the blocks compute in."""
    (found, _), kept = fusion.apply({**variables, OFFSETS: offsets}, tokens(), mutable=[WEIGHTS])
    first = found["text"][0][:, 0]
    return (first[:, 0] - 2 * first[:, 1]).sum(), kept[WEIGHTS]


def slow_relevance(steps: list[Step], slopes: list[np.ndarray], example: int, spans: Mapping[str, slice]) -> np.ndarray:
    """Equations 5 to 11 with a matrix for each pair of inputs; of one self-attention, 5 and 6 alone."""
    count = max(span.stop for span in spans.values())
    if all(step.queries == step.keys for step in steps):
        whole = np.eye(count)
        for step, slope in zip(steps, slopes, strict=True):
            attention = np.maximum(np.asarray(step.weights)[example] * slope[example], 0).mean(axis=0)
            whole = whole + attention @ whole
        return whole
    s, q = LENGTHS["text"], LENGTHS["image"]
    ss, sq, qs, qq = np.eye(s), np.zeros((s, q)), np.zeros((q, s)), np.eye(q)

    def bar(r: np.ndarray) -> np.ndarray:
        hat = r - np.eye(len(r))
        total = hat.sum(axis=1, keepdims=True)
        return np.divide(hat, total, out=np.zeros_like(hat), where=total > 0) + np.eye(len(r))

    for step, slope in zip(steps, slopes, strict=True):
        attention = np.maximum(np.asarray(step.weights)[example] * slope[example], 0).mean(axis=0)
        if step.queries == step.keys:
            ss, sq = ss + attention @ ss, sq + attention @ sq
        else:
            sq, ss = sq + bar(ss).T @ attention @ bar(qq), ss + attention @ qs
    return np.block([[ss, sq], [qs, qq]])  # the reader's tokens come first


@pytest.mark.parametrize("name", FUSIONS)
def test_relevance_is_by_the_score_s_slopes(name: str) -> None:
    """The slopes by finite differences in every weight, in float64; then the paper's equations by NumPy."""
    fusion, variables = prepared(name)
    with jax.enable_x64(True):
        fusion = fusion.clone(blocks=Blocks(**{**vars(fusion.blocks), "dtype": "float64"}))
        variables = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), variables)
        shapes = jax.eval_shape(lambda: fusion.apply(variables, tokens(), mutable=[WEIGHTS])[1])[WEIGHTS]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        gradients, kept = jax.grad(lambda offsets: score(fusion, variables, offsets), has_aux=True)(zeros)
        spans, steps = fusion.attention_steps(kept, LENGTHS)
        _, slopes = fusion.attention_steps(gradients, LENGTHS)
        leaves, structure = jax.tree.flatten(zeros)
        value = jax.jit(lambda offsets: score(fusion, variables, offsets)[0])
        random = np.random.default_rng(1)
        for at, leaf in enumerate(leaves):
            gradient = np.asarray(jax.tree.leaves(gradients)[at])
            for place in random.choice(leaf.size, 6, replace=False):
                index = np.unravel_index(place, leaf.shape)
                wide, narrow = (
                    sum(
                        sign
                        * value(structure.unflatten([*leaves[:at], leaf.at[index].set(sign * by), *leaves[at + 1 :]]))
                        for sign in (1, -1)
                    )
                    / (2 * by)
                    for by in (6e-3, 3e-3)
                )
                slope = (4 * narrow - wide) / 3  # Richardson's, whose error is of the fourth order
                np.testing.assert_allclose(gradient[index], slope, rtol=1e-3, atol=1e-4)
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients)) > 1e-2
        count = max(span.stop for span in spans.values())
        found = np.asarray(relevance(steps, slopes, count))
        for example in range(2):
            slow = slow_relevance(steps, [np.asarray(each.weights) for each in slopes], example, spans)
            np.testing.assert_allclose(found[example], slow, rtol=1e-5, atol=1e-6)
    words, patches = found[:, spans["text"]], np.arange(count)[spans["image"]]
    assert words[:, :3][:, :, patches].max() > 1e-3


def test_where_nobody_asks_the_program_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tower's blocks and of cross-attention, forward and backward, against blocks that know nothing of maps."""
    model = Transformer(Blocks(**SIZE), cross=True)
    x, given = jnp.ones((2, 4, 8)), dict[str, Any](context=jnp.ones((2, 3, 8)), context_mask=jnp.zeros((2, 3), bool))
    variables = model.init(jax.random.key(0), x, **given)
    assert set(variables) == {"params"}

    def program() -> str:
        def loss(variables: Any) -> Any:
            return model.apply(variables, x, **given).sum()  # pyright: ignore[reportAttributeAccessIssue]

        return str(jax.make_jaxpr(jax.value_and_grad(loss))(variables))

    with_maps = program()
    monkeypatch.setattr(blocks, "WEIGHTS", "params")
    monkeypatch.setattr(blocks, "OFFSETS", "params")
    monkeypatch.setattr(
        transformer, "attend_by", lambda module, name, *given, **named: ATTENTIONS[name](*given, **named)
    )
    assert program() == with_maps
    monkeypatch.undo()
    kept = jax.make_jaxpr(lambda v: model.apply(v, x, **given, mutable=[attention_maps.WEIGHTS]))(variables)
    assert str(kept) != with_maps
