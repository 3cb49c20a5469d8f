"""The tiny experiment that reads pictures and texts together, for tests that judge it: trained, and with parameters
that were only drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.trained import Trained, run_once, tiny_config

if TYPE_CHECKING:
    from mmjax.data.pipeline import Prepared
    from mmjax.inference.model import Model


@pytest.fixture(scope="session")
def reading_run(shapes: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The run, which is trained once."""

    def make(workdir: Path) -> None:
        from mmjax.train.loop import train

        train(tiny_config(shapes, name="reading"), workdir)

    return run_once(tmp_path_factory, shapes, "reading", make)


@dataclass(frozen=True)
class Drawn:
    """A model of that experiment whose parameters are noise: a test that compares computations needs no training."""

    model: Model
    data: Prepared
    table: str

    def judged(self, evaluators: Sequence[Any], split: str = "validation", batch_size: int = 16) -> dict[str, float]:
        """The metrics of these evaluators."""
        from mmjax.evaluate.evaluate import evaluate
        from mmjax.evaluate.prepared_model import prepared_model

        judge = prepared_model(self.model.experiment, self.data, batch_size)
        with judge.holding(self.model.variables) as variables:
            return dict(evaluate(judge.embedder, variables, evaluators, step=0, workdir=None)[split])


@pytest.fixture(scope="session")
def drawn(shapes: str, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Made without a compiled initialisation or step. Matrices are so strong that attention and predictions differ."""
    import flax.linen as nn
    import jax

    from mmjax.data.pipeline import batch_spec, prepare
    from mmjax.experiment.graph import build
    from mmjax.inference.model import Model
    from mmjax.interop.bundle import Bundle

    config = tiny_config(shapes, name="reading")
    experiment = build(config)
    data = prepare(experiment.data, data_dir=str(tmp_path_factory.mktemp("reading_data")))
    keys = {name: jax.random.key(0) for name in ("params", "mask", "dropout")}
    batch = batch_spec(experiment.data, batch_size=4)
    made = nn.unbox(jax.eval_shape(lambda: experiment.pretrainer().init(keys, batch, train=False)))
    random = np.random.default_rng(0)

    def value(path: Any, x: Any) -> np.ndarray:
        usual = {"bias": np.zeros, "scale": np.ones}.get(path[-1].key)
        return random.normal(0, 0.5, x.shape).astype(x.dtype) if usual is None else usual(x.shape, x.dtype)

    params = jax.tree_util.tree_map_with_path(value, made)
    return Drawn(Model(Bundle(config, dict(params), data.chains.tokenizers, "drawn")), data, shapes)


@pytest.fixture(scope="session")
def reading(drawn: Drawn) -> Model:
    return drawn.model
