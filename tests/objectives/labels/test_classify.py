"""Classification by labels: its loss by hand, for any cut, of one input, of a fusion, and of embeddings."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models import Blocks, Merged
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import Classify, Pretrainer
from tests.objectives.toys import WIDTH, ToyTower, assert_same, toy_batch

B, C = 12, 4
TWO = ("image", "text")


class Summed(nn.Module):
    """The sum of what it is given: embeddings, one token each."""

    reads: ClassVar[str] = "embeddings"

    @nn.compact
    def __call__(self, tokens: Any, train: bool = False, keys: Any = None) -> Any:
        assert all(x.shape[1] == 1 for x, _ in tokens.values())
        total = sum(jnp.where(mask[..., None], x, 0)[:, 0] for x, mask in tokens.values())
        return tokens, nn.Dense(C, name="out")(total)


def batch(label: Any) -> Any:
    """Two rows lack an input, another its label."""
    found = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    there = np.arange(B) != 5
    label = np.where(there.reshape(-1, *[1] * (label.ndim - 1)), label, 0).astype(label.dtype)
    return found | {"answer": label, "answer_valid": there}


def numbers() -> np.ndarray:
    return np.random.default_rng(1).integers(0, C, B).astype(np.int32)


def shares() -> np.ndarray:
    return (np.random.default_rng(2).integers(0, 3, (B, C)) / 2).astype(np.float32)


def build(objective: Any, fusion: Any = None, microbatches: int = 1) -> Any:
    towers = {name: ToyTower(name) for name in objective.inputs}
    fusions = {} if fusion is None else {"both": fusion}
    return Pretrainer(towers, {"answer": objective}, microbatches=microbatches, fusions=fusions)


def drawn(pretrainer: Any, given: Any) -> Any:
    shapes = nn.unbox(jax.eval_shape(pretrainer.init, jax.random.key(0), given))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)


def gradient(pretrainer: Any, variables: Any, given: Any) -> Any:
    run = jax.value_and_grad(lambda v: pretrainer.apply(v, given, rngs={"mask": jax.random.key(1)}), has_aux=True)
    return jax.jit(run)(variables)


MERGED = Merged(blocks=Blocks(width=WIDTH, depth=1, heads=2))
WEIGHTS = (0.1, 0.5, 0.2, 0.05)


@pytest.mark.parametrize(
    ("objective", "fusion", "label"),
    [
        (Classify("answer", C, ("text",)), None, numbers()),
        (Classify("answer", C, TWO, "both", label_smoothing=0.2, class_weights=WEIGHTS), MERGED, numbers()),
        (Classify("answer", C, TWO, "both", loss="sigmoid", hidden=9, class_weights=WEIGHTS), MERGED, shares()),
        (Classify("answer", C, TWO, "both", decisions=True), Summed(), shares()),
    ],
)
def test_loss_and_gradient_are_the_same_for_any_cut(objective: Classify, fusion: Any, label: Any) -> None:
    given = batch(label)
    variables = drawn(build(objective, fusion), given)
    whole = gradient(build(objective, fusion), variables, given)
    for leaf in jax.tree.leaves(whole[1]):
        assert np.isfinite(leaf).all()
    assert_same(gradient(build(objective, fusion, 3), variables, given), whole, 1e-5)
    spoilt = {**given, "image": given["image"].copy(), "answer": given["answer"].copy()}
    spoilt["image"][1] = np.nan
    spoilt["answer"][5] = 3 if label.ndim == 1 else np.nan
    if fusion is not None:
        assert_same(gradient(build(objective, fusion), variables, spoilt), whole, 1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_softmax_by_hand(smoothing: float, weights: Any) -> None:
    """Row by row: cross-entropy with the smoothed target times its class's weight, over the sum of the weights."""
    logits = np.random.default_rng(3).normal(size=(B, C))
    objective = Classify("answer", C, ("text",), label_smoothing=smoothing, class_weights=weights)
    for label in (numbers(), shares()):
        given = batch(label)
        outputs = objective.judged(jnp.float32(logits), jnp.asarray(given["answer"]))
        loss, metrics = objective.batch_loss(outputs, given)
        total, count, hits, rows = 0.0, 0.0, 0, 0
        for row in range(B):
            if not (given["answer_valid"][row] and given["text_valid"][row]):
                continue
            answer = given["answer"][row]
            target = np.eye(C)[answer] if label.ndim == 1 else answer / max(answer.sum(), 1e-12)
            weight = 1.0 * target.sum() if weights is None else float(target @ np.array(weights))
            log = logits[row] - np.log(np.exp(logits[row]).sum())
            total -= weight * ((1 - smoothing) * target + smoothing / C) @ log
            count, rows = count + weight, rows + 1
            best = int(np.argmax(logits[row]))
            hits += bool(target.max() > 0 and target[best] == target.max())
        np.testing.assert_allclose(loss, total / count, rtol=1e-5)
        np.testing.assert_allclose(metrics["accuracy"], hits / rows, rtol=1e-6)


def test_sigmoid_by_hand() -> None:
    logits = np.random.default_rng(3).normal(size=(B, C))
    objective = Classify("answer", C, ("text",), loss="sigmoid", class_weights=WEIGHTS)
    given = batch(shares())
    loss, metrics = objective.batch_loss(objective.judged(jnp.float32(logits), jnp.asarray(given["answer"])), given)
    rows = given["answer_valid"] & given["text_valid"]
    p, target = 1 / (1 + np.exp(-logits[rows])), given["answer"][rows]
    each = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    np.testing.assert_allclose(loss, (each @ np.array(WEIGHTS)).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], ((p > 0.5) == (target >= 0.5)).mean(), rtol=1e-6)


def test_a_fusion_of_embeddings_is_given_them_and_leaves_the_tokens() -> None:
    given = batch(numbers())
    pretrainer = build(Classify("answer", C, TWO, "both"), Summed())
    variables = drawn(pretrainer, given)
    embedded = {}
    for name in TWO:
        mask = given.get(f"{name}_mask")
        embedded[name] = ToyTower(name).apply({"params": variables["params"][f"towers_{name}"]}, given[name], mask)
        embedded[name] = jnp.where(given[f"{name}_valid"][:, None], embedded[name], 0)
    out, head = variables["params"]["fusions_both"]["out"], variables["params"]["objectives_answer"]["classes"]
    logits = ((embedded["image"] + embedded["text"]) @ out["kernel"] + out["bias"]) @ head["kernel"] + head["bias"]
    objective = pretrainer.objectives["answer"]
    expected, _ = objective.batch_loss(objective.judged(logits, jnp.asarray(given["answer"])), given)
    loss, _ = pretrainer.apply(variables, given, train=False)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


LABEL = {"answer": Incoming((), "int32"), "image": Incoming((4, 4, 3), "uint8")}


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Classify("answer", C, TWO), r"o.inputs=\('image', 'text'\) are 2 inputs and fusion=None"),
        (Classify("anwer", C, ("image",)), "learns the label 'anwer', which data.transforms lacks"),
        (Classify("image", C, ("image",)), r"gives uint8\[4, 4, 3\]: it is int32\[\] or float32\[4\]"),
        (Classify("answer", C, ("image",), loss="hinge"), "o.loss='hinge'"),  # pyright: ignore
        (Classify("answer", C, ("image",), class_weights=(1.0,)), "o.class_weights has 1 weights for classes=4"),
        (Classify("answer", C, ("image",), label_smoothing=1.0), "o.label_smoothing=1.0 must be from 0 to below 1"),
        (Classify("answer", C, ("image",), loss="sigmoid", label_smoothing=0.1), "and 0 with loss='sigmoid'"),
    ],
)
def test_what_does_not_fit_is_refused(objective: Classify, message: str) -> None:
    with pytest.raises(UserError, match=message):
        objective.check_parts("o", {}, LABEL)


def test_a_fusion_of_one_input_is_refused() -> None:
    with pytest.raises(UserError, match="objective 'answer' fuses text alone, and a fusion is of two inputs or more"):
        build(Classify("answer", C, ("text",), "both"), MERGED).apply({}, batch(numbers()))
