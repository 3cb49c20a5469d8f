"""Decides whether two descriptions are of models that compute the same."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.experiment.diff import MISSING, Difference, diff
from mmjax.experiment.graph import build, complete, target
from mmjax.interop import bundle as bundles
from mmjax.interop.parts import Parts
from mmjax.models.towers.resnet import ResNet
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import PUBLISHED, Contrastive

# Fields that change nothing of what a trained model computes: how it started, how it is or was trained, on what.
# Special ids are the tokenizer's.
SILENT = {
    *("remat", "unroll", "dtype", "attention", "inits", "dropout", "token_std", "position_std", "mean", "std"),
    *("scale_init", "scale_max", "bias_init", "label_smoothing", "masking", "pair", "partners", "method", "tile"),
    *("mask_id", "first_id", "rate", "masked", "random", "zeroed", "other", "everywhere"),
    *("negatives", "temperature", "within", "half_right"),
    *("parallel", "zero_head"),
    "fusion",  # its name; where only one of two has a fusion, they are told apart by what is read beside
}
HOLDERS = ("decoder", "trunk")  # fields of what has blocks


def differences(theirs: Parts, ours: Parts) -> list[Difference]:
    """The fields of `ours` (configs, as `theirs`) that the others don't compute alike; the names of objectives and
    fusions are free.
    """
    names = dict.fromkeys([*theirs.towers, *ours.towers])
    apart = [name for name in names if _kind(theirs.towers, name) != _kind(ours.towers, name)]
    found = [Difference(f"towers.{name}", _kind(theirs.towers, name), _kind(ours.towers, name)) for name in apart]
    kinds = [[target(objective).__name__ for objective in parts.objectives.values()] for parts in (theirs, ours)]
    if kinds[0] != kinds[1]:
        found.append(Difference("objectives", *kinds))
    renamed = dict(zip(ours.objectives, theirs.objectives.values(), strict=True)) if kinds[0] == kinds[1] else {}
    fusions = [[_kind(parts.fusions, name).__name__ for name in parts.fusions] for parts in (theirs, ours)]
    if fusions[0] != fusions[1]:
        found.append(Difference("fusions", *fusions))
    alike = fusions[0] == fusions[1]
    fused = dict(zip(ours.fusions, theirs.fusions.values(), strict=True)) if alike else {}
    pairs = []
    for towers, objectives, fusers in (
        (theirs.towers, renamed, fused),
        (ours.towers, ours.objectives if renamed else {}, ours.fusions if fused else {}),
    ):
        common = {name: tower for name, tower in towers.items() if name in names and name not in apart}
        pairs.append(bundles.stand_in(spelled(common), spelled(objectives), {}, spelled(fusers)))
    return found + [difference for difference in diff(*pairs) if SILENT.isdisjoint(difference.path.split(".")[2:])]


def distance(differences: Sequence[Difference]) -> tuple[int, int]:
    """The distance of two models: the number of towers and objectives that only one has, then of fields."""
    whole = [d for d in differences if d.path in ("objectives", "fusions") or d.path.count(".") == 1]
    return len(whole), len(differences)


def _kind(towers: Mapping[str, fdl.Config], name: str) -> Any:
    return target(towers[name]) if name in towers else MISSING


def spelled(group: Mapping[str, fdl.Config]) -> dict[str, fdl.Config]:
    """The configs with optional fields written out, so that they compare."""
    group = {name: complete(config) for name, config in group.items()}
    for config in group.values():
        held = [getattr(part, "blocks", None) for part in (config, *(getattr(config, name, None) for name in HOLDERS))]
        for blocks in (*held, *dict(getattr(config, "streams", {})).values()):
            if blocks is not None:
                blocks.mlp_dim = blocks.mlp_dim or 4 * blocks.width
        if target(config) is ResNet:
            config.heads = config.heads or build(config).pool_heads
        size: Any = getattr(config, "size", None)
        if isinstance(size, tuple) and size[0] == size[1]:
            config.size = size[0]
        if target(config) is ViT and all(side % config.patch == 0 for side in np.ravel(np.asarray(size))):
            config.drop_rest = False  # there is no rest
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
