"""Predictions of a split by batches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.evaluate.split_predictions import SplitPredictor
from mmjax.runtime.mesh import Mesh


def test_only_a_batch_of_pairs_is_gathered_at_a_time() -> None:
    """Of many more pairs than a batch; each is scored by the tokens of its own rows."""
    random = np.random.default_rng(0)
    tokens = tuple((random.normal(size=(9, 3, 2)).astype(np.float32), random.random((9, 3)) < 0.7) for _ in range(2))
    sizes: list[int] = []

    class Still(SplitPredictor):
        def __init__(self) -> None:
            self._batch_size, self._part = 4, (0, 1)
            self._mesh = Mesh().build(jax.devices()[:1])
            self._matched = self._scored  # pyright: ignore[reportAttributeAccessIssue]

        def _scored(self, variables: Any, batch: Any, objective: str) -> Any:
            sizes.append(len(batch["index"]))
            (x, real), (y, there) = batch["tokens"]
            score = jnp.where(real, x[..., 0], 0).sum(axis=1) + 10 * jnp.where(there, y[..., 1], 0).sum(axis=1)
            return score, batch["index"]

    rows = tuple(random.integers(0, 9, 23) for _ in range(2))
    found = Still().matched({}, tokens, rows, "match")
    (x, real), (y, there) = tokens
    expected = [(x[i, real[i], 0].sum() + 10 * y[j, there[j], 1].sum()) for i, j in zip(*rows, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert sizes == [4] * 6
