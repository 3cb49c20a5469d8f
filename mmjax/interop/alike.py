"""Whether two descriptions are of models that compute the same."""

import math
from collections.abc import Mapping
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.configs import Difference, complete, diff, fields, target
from mmjax.experiment import build
from mmjax.interop import bundle as bundles
from mmjax.interop.hf_config import Parts
from mmjax.models.resnet import ResNet
from mmjax.objectives.contrastive import PUBLISHED, Contrastive

# Fields that change nothing of what a trained model computes: how it started, how it is or was trained, on what.
# Special ids are the tokenizer's.
SILENT = {
    *("remat", "dtype", "attention", "inits", "dropout", "token_std", "position_std", "mean", "std"),
    *("scale_init", "scale_max", "bias_init", "label_smoothing", "masking", "pair", "partners", "method", "tile"),
    *("mask_id", "first_id", "rate", "masked", "random"),
}


def differences(theirs: Parts, ours: Parts) -> list[Difference]:
    """What of `ours` (configs, as `theirs`) the other ones don't compute; the objectives' names are one's own."""
    if [sorted(group) for group in theirs[:1]] != [sorted(group) for group in ours[:1]]:
        return [Difference("towers", sorted(theirs.towers), sorted(ours.towers))]
    if len(theirs.objectives) != len(ours.objectives):
        return [Difference("objectives", sorted(theirs.objectives), sorted(ours.objectives))]
    renamed = dict(zip(ours.objectives, theirs.objectives.values(), strict=True))
    pairs = (bundles.stand_in(spelled(group[0]), spelled(group[1]), {}) for group in ((theirs.towers, renamed), ours))
    return [difference for difference in diff(*pairs) if difference.path.split(".")[-1] not in SILENT]


def spelled(group: Mapping[str, fdl.Config]) -> dict[str, fdl.Config]:
    """With what may be left out written out, so that it compares."""
    group = {name: complete(config) for name, config in group.items()}
    for config in group.values():
        for part in (config, getattr(config, "decoder", None)):
            if part is not None and "mlp_dim" in fields(target(part)):
                part.mlp_dim = part.mlp_dim or 4 * part.width
        if target(config) is ResNet:
            config.heads = config.heads or build(config).pool_heads
        size = getattr(config, "size", None)
        if isinstance(size, tuple) and size[0] == size[1]:
            config.size = size[0]
    return group


def unclip(parts: Parts, variables: dict[str, Any]) -> None:
    """Theirs don't clip the logit scale: where one lies above our clip, there is none."""
    for name, objective in parts.objectives.items():
        if target(objective) is Contrastive:
            most = math.log(PUBLISHED[objective.loss].scale_max)
            if variables["params"][f"objectives_{name}"]["log_scale"] > np.float32(most):
                objective.scale_max = math.inf


def clip(modules: Parts, variables: dict[str, Any]) -> dict[str, Any]:
    """The variables with each logit scale as what it is clipped to; of built parts."""
    params = dict(variables["params"])
    for name, objective in modules.objectives.items():
        if isinstance(objective, Contrastive):
            most = PUBLISHED[objective.loss].scale_max if objective.scale_max is None else objective.scale_max
            own = params[f"objectives_{name}"]
            scale = np.asarray(own["log_scale"])
            params[f"objectives_{name}"] = {
                **own,
                "log_scale": np.minimum(scale, np.asarray(math.log(most), scale.dtype)),
            }
    return {**variables, "params": params}
