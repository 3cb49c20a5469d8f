"""Turns cosines into probabilities, by the scale and bias that a contrastive objective has learned."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError, nearest
from mmjax.objectives.contrastive.objective import PUBLISHED, Contrastive


class Calibration(NamedTuple):
    """The scale and bias of a contrastive objective. loss: "softmax" or "sigmoid"; scale, bias: of its logits."""

    loss: str
    scale: float
    bias: float

    def logits(self, cosines: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k"]:
        """The cosines, scaled and shifted."""
        return np.asarray(np.float32(self.scale) * cosines + np.float32(self.bias), np.float32)

    def probabilities(self, logits: Float[np.ndarray, "*n k"]) -> Float[np.ndarray, "*n k"]:
        """Softmax over the last axis, or the sigmoid of each logit (both without overflow)."""
        if self.loss == "sigmoid":
            return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float32)
        if not logits.size:
            return logits
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)


def calibration(
    objectives: Mapping[str, Any],
    params: Mapping[str, Any],
    pair: tuple[str | None, str | None],
    name: str | None = None,
) -> Calibration:
    """The calibration of the objective that compares the pair, or has the name. None in the pair: the modality isn't
    known.

    Raises:
        UserError: no objective, or more than one, compares the pair, or none has that name.
    """
    contrastive = {key: value for key, value in objectives.items() if isinstance(value, Contrastive)}
    if name is not None and name not in contrastive:
        raise UserError(
            f"objective={name!r}: the model's contrastive objectives are {_listed(contrastive)}"
            f"{nearest(name, contrastive)}"
        )
    known = {modality for modality in pair if modality is not None}
    fitting = {key: value for key, value in contrastive.items() if known <= set(value.pair)}
    if name is not None:
        fitting = {name: contrastive[name]}
    if not fitting:
        raise UserError(
            f"the model has learned no scale for {' and '.join(sorted(known)) or 'these vectors'}: its contrastive "
            f"objectives are {_listed(contrastive)}; similarity() gives cosines"
        )
    if len(fitting) > 1:
        raise UserError(f"several objectives fit, {_listed(fitting)}: say which one, objective={next(iter(fitting))!r}")
    ((key, objective),) = fitting.items()
    own, published = params[f"objectives_{key}"], PUBLISHED[objective.loss]
    most = published.scale_max if objective.scale_max is None else objective.scale_max
    scale = min(math.exp(float(own["log_scale"])), most)
    return Calibration(objective.loss, scale, float(own["bias"]) if "bias" in own else 0.0)


def _listed(objectives: Mapping[str, Contrastive]) -> str:
    return ", ".join(f"{name} ({' and '.join(value.pair)})" for name, value in objectives.items()) or "none"
