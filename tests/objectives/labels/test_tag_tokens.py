"""Tags of words: the loss by hand, for any cut, of a tower and of a fusion."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, Cross
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Pretrainer, TagTokens
from mmjax.objectives.contract import present
from tests.objectives.toys import SIZES, WIDTH, ToyTower, assert_same, toy_batch

B, C = 12, 5
READER = Cross(reader="text", blocks=Blocks(width=WIDTH, depth=1, heads=2))
ALONE, BESIDE = TagTokens(C), TagTokens(C, fusion="reader", beside=("image",))


def batch() -> Any:
    """Every other word has a tag; padding has none."""
    found = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    random = np.random.default_rng(1)
    counts = found["text_mask"] & (random.random((B, SIZES["text"])) < 0.5)
    tags = np.where(counts, random.integers(0, C, (B, SIZES["text"])), -1).astype(np.int32)
    return found | {"text_tags": tags}


def build(objective: TagTokens, microbatches: int = 1) -> Pretrainer:
    fusions = {} if objective.fusion is None else {"reader": READER}
    towers = {name: ToyTower(name) for name in ("text", *objective.beside)}
    return Pretrainer(towers, {"tags": objective}, microbatches=microbatches, fusions=fusions)


@pytest.mark.parametrize("objective", [ALONE, BESIDE])
def test_it_is_the_cross_entropy_of_each_tagged_token_for_any_cut(objective: TagTokens) -> None:
    random = np.random.default_rng(0)
    shapes = nn.unbox(jax.eval_shape(build(objective).init, jax.random.key(0), batch()))
    variables = jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)
    run = lambda m: jax.jit(jax.value_and_grad(lambda v: build(objective, m).apply(v, batch()), has_aux=True))  # noqa: E731
    whole = run(1)(variables)
    assert_same(run(3)(variables), whole, 1e-5)
    params, given = variables["params"], present(batch())
    total, hits, count = 0.0, 0, 0
    for row in np.flatnonzero(given["text_valid"]):
        own = slice(row, row + 1)
        text = {"params": params["towers_text"]}
        tokens, real = ToyTower("text").apply(text, given["text"][own], given["text_mask"][own], method="tokens")
        if objective.fusion is not None:
            image = ToyTower("image").apply({"params": params["towers_image"]}, given["image"][own], method="tokens")
            seen = image[1] & bool(given["image_valid"][row])  # pyright: ignore
            both = {"text": (tokens, real), "image": (image[0], seen)}  # pyright: ignore
            tokens = READER.apply({"params": params["fusions_reader"]}, both)[0]["text"][0]  # pyright: ignore
        for place in np.flatnonzero(given["text_tags"][row] >= 0):
            head = params["objectives_tags"]["tags"]
            log = jax.nn.log_softmax(tokens[0, place] @ head["kernel"] + head["bias"])
            tag = int(given["text_tags"][row, place])
            total, hits, count = total - float(log[tag]), hits + int(jnp.argmax(log) == tag), count + 1
    (loss, metrics), _ = whole
    np.testing.assert_allclose(loss, total / count, rtol=1e-5)
    np.testing.assert_allclose(metrics["tags/accuracy"], hits / count, rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    given = {"text": Incoming((8,), "int32")}
    with pytest.raises(UserError, match="o needs the tags of the words, text_tags, and the chain of 'text' gives none"):
        ALONE.check_parts("o", {}, given)
    with pytest.raises(UserError, match="o has fusion='reader' and beside="):
        TagTokens(C, fusion="reader").check_parts("o", {}, {"text": Incoming((8,), "int32", labels=("tags",))})
