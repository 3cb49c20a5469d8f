"""Spans of answers: the loss by hand, for any cut, of a tower and of a fusion; the metrics and the pieces."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, Cross
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Pretrainer, Span
from mmjax.objectives.contract import present
from tests.objectives.toys import SIZES, WIDTH, ToyTower, assert_same, toy_batch

B = 12
READER = Cross(reader="text", blocks=Blocks(width=WIDTH, depth=1, heads=2))
ALONE, BESIDE = Span(), Span(fusion="reader", beside=("image",))


def batch() -> Any:
    """Answers anywhere in the real tokens; of one text there is none, of another nobody knows."""
    found = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    random, lengths = np.random.default_rng(1), found["text_mask"].sum(axis=1)
    first = random.integers(0, lengths)
    span = np.stack([first, random.integers(first, lengths)], axis=1).astype(np.int32)
    span[4], span[5] = 0, -1
    return found | {"text_span": span}


def build(objective: Span, microbatches: int = 1) -> Pretrainer:
    fusions = {} if objective.fusion is None else {"reader": READER}
    towers = {name: ToyTower(name) for name in ("text", *objective.beside)}
    return Pretrainer(towers, {"answer": objective}, microbatches=microbatches, fusions=fusions)


@pytest.mark.parametrize("objective", [ALONE, BESIDE])
def test_it_is_the_cross_entropy_of_both_ends_for_any_cut(objective: Span) -> None:
    random, given = np.random.default_rng(0), present(batch())
    shapes = nn.unbox(jax.eval_shape(build(objective).init, jax.random.key(0), batch()))
    variables = jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)
    run = lambda m: jax.jit(jax.value_and_grad(lambda v: build(objective, m).apply(v, batch()), has_aux=True))  # noqa: E731
    whole = run(1)(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole[1]))
    assert_same(run(3)(variables), whole, 1e-5)
    params = variables["params"]
    logits: Any = build(objective).apply(variables, batch(), "answer", method="predict")
    losses, hits = [], []
    for row in np.flatnonzero(given["text_valid"]):
        own = slice(row, row + 1)
        tokens, real = ToyTower("text").apply(
            {"params": params["towers_text"]}, given["text"][own], given["text_mask"][own], method="tokens"
        )
        if objective.fusion is not None:
            image = ToyTower("image").apply({"params": params["towers_image"]}, given["image"][own], method="tokens")
            seen = image[1] & bool(given["image_valid"][row])  # pyright: ignore
            both = {"text": (tokens, real), "image": (image[0], seen)}  # pyright: ignore
            tokens = READER.apply({"params": params["fusions_reader"]}, both)[0]["text"][0]  # pyright: ignore
        head, count = params["objectives_answer"]["ends"], int(given["text_mask"][row].sum())
        mine = np.asarray(tokens[0, :count] @ head["kernel"] + head["bias"], np.float64)
        np.testing.assert_allclose(logits[row, :count], mine, rtol=1e-4, atol=1e-5)
        assert (logits[row, count:] < -1e30).all()
        ends = given["text_span"][row]
        if ends[0] < 0:
            continue
        log = mine - np.log(np.exp(mine).sum(axis=0))
        losses.append(-(log[ends[0], 0] + log[ends[1], 1]) / 2)
        hits.append(mine[:, 0].argmax() == ends[0] and mine[:, 1].argmax() == ends[1])
    (loss, metrics), _ = whole
    assert len(losses) == B - 2 == build(objective).objectives["answer"].counted(batch()).sum()
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics["answer/accuracy"], np.mean(hits), rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="o needs the places of the answers, text_span"):
        ALONE.check_parts("o", {}, {"text": Incoming((SIZES["text"],), "int32")})
    with pytest.raises(UserError, match="o has fusion='reader' and beside="):
        Span(fusion="reader").check_parts("o", {}, {"text": Incoming((8,), "int32", labels=("span",))})
