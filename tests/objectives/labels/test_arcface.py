"""ArcFace: its logits and loss by angles, and that it is a classifier in all else."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.towers.bare import Incoming
from mmjax.objectives import ArcFace, Pretrainer
from tests.objectives.toys import ToyTower, assert_same, toy_batch

B, C = 12, 4


def batch() -> Any:
    found = {name: x for name, x in toy_batch(B).items() if "audio" not in name}
    kind = np.random.default_rng(1).integers(0, C, B).astype(np.int32)
    return found | {"kind": kind, "kind_valid": np.arange(B) != 5}


@pytest.mark.parametrize(("margin", "cosine_margin"), [(0.5, 0.0), (0.0, 0.35), (0.3, 0.2), (1.4, 0.0)])
def test_the_loss_by_angles(margin: float, cosine_margin: float) -> None:
    objective = ArcFace("kind", C, ("image",), scale=9.0, margin=margin, cosine_margin=cosine_margin)
    cosine, given = np.random.default_rng(3).uniform(-1, 1, (B, C)), batch()
    cosine[2, given["kind"][2]] = -0.999
    loss, metrics = objective.batch_loss(objective.judged(jnp.float32(9 * cosine), jnp.asarray(given["kind"])), given)
    rows = np.flatnonzero(given["image_valid"] & given["kind_valid"])
    losses, hits = [], []
    for row in rows:
        right = given["kind"][row]
        logits, angle = 9 * cosine[row], math.acos(cosine[row, right])
        hits.append(int(np.argmax(logits)) == right)
        harder = math.cos(angle + margin) if angle + margin < math.pi else math.cos(angle) - margin * math.sin(margin)
        logits[right] = 9 * (harder - cosine_margin)
        losses.append(np.log(np.exp(logits).sum()) - logits[right])
    np.testing.assert_allclose(loss, np.mean(losses), rtol=2e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(hits), rtol=1e-6)


def test_logits_are_cosines_and_the_cut_changes_nothing() -> None:
    objective, given = ArcFace("kind", C, ("image",), scale=9.0), batch()
    build = lambda m=1: Pretrainer({"image": ToyTower("image")}, {"kind": objective}, microbatches=m)  # noqa: E731
    shapes = nn.unbox(jax.eval_shape(build().init, jax.random.key(0), given))
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: jnp.float32(0.5 * random.normal(size=x.shape)), shapes)
    run = lambda m=1: jax.jit(jax.value_and_grad(lambda v: build(m).apply(v, given), has_aux=True))(variables)  # noqa: E731
    whole = run()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole[1]))
    assert_same(run(3), whole, 1e-5)
    found = build().apply(variables, given, "kind", method="predict")
    embedded: Any = ToyTower("image").apply({"params": variables["params"]["towers_image"]}, given["image"])
    table = variables["params"]["objectives_kind"]["prototypes"]
    u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (embedded, table))
    there = given["image_valid"]
    np.testing.assert_allclose(found[there], 9 * (u @ v.T)[there], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "sigmoid"}, "an ArcFace with loss='sigmoid'"),
        ({"decisions": True}, "decisions=True"),
        ({"margin": 2.0}, "margin=2.0"),
        ({"scale": 0.0}, "scale=0.0"),
    ],
)
def test_what_does_not_fit_is_refused(fields: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ArcFace("kind", C, ("image",), **fields).check_parts("o", {}, {"kind": Incoming((), "int32")})
