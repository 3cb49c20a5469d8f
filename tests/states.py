"""First states of training without an experiment."""

from typing import Any

import numpy as np

from mmjax.train.step import TrainState, creation


def init_state(*parts: Any, seed: int, **more: Any) -> TrainState:
    """The state of step 0; the arguments are `creation`'s."""
    create, _ = creation(*parts, **more)
    return create(np.uint32(seed))


def abstract_state(*parts: Any, **more: Any) -> TrainState:
    """Its shapes, dtypes and shardings; the arguments are `creation`'s."""
    return creation(*parts, **more)[1]
