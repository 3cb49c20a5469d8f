"""Towers that start from another run's checkpoint: an experiment's `init={"towers.image": Load(workdir)}`."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax import serialization
from mmjax.checkpoint import restore_params
from mmjax.errors import UserError, nearest
from mmjax.experiment import RECORD, Experiment, Load, build
from mmjax.models.positions import resize
from mmjax.models.tower import PatchTower

LISTED = 5  # paths in a message, before it only counts
POSITIONS = "position"  # the learned table of a patch tower


class Loaded(NamedTuple):
    """Parameters of a tower, and the paths of what was `loaded`, stays `fresh` (`skip`), or was there `unused`."""

    params: dict[str, Any]
    loaded: list[str]
    fresh: list[str]
    unused: list[str]


def initialised(params: dict[str, Any], experiment: Experiment, say: Callable[[str], None]) -> dict[str, Any]:
    """`params` (nested dict, of the experiment's pretrainer) with the towers in its `init` taken from other runs.

    Learned positions of another grid are resized (`models.positions.resize`).
    say: is told, a line each, what was loaded, what stays fresh and what was not used.

    Raises:
        UserError: the other run has no such tower, or a parameter that isn't in `skip` has no counterpart there.
    """
    params = dict(params)
    for path, load in experiment.init.items():
        load = Load(load) if isinstance(load, str) else load
        tower = path.replace(".", "_")  # how Linen names it: towers_image
        theirs = _experiment(load.path)
        source = restore_params(load.path, ema=True)
        if tower not in source:
            known = [name.replace("_", ".", 1) for name in source if name.startswith("towers_")]
            raise UserError(f"init: {load.path} has no {path}; it has {', '.join(known)}{nearest(path, known)}")
        modality = path.partition(".")[2]
        regrid = _regrid(theirs.towers[modality], experiment.towers[modality])
        result = match(params[tower], source[tower], load.skip, regrid, where=f"init {path} from {load.path}")
        params[tower] = result.params
        for what, paths in (("loaded", result.loaded), ("fresh", result.fresh), ("unused", result.unused)):
            if paths:
                say(f"init {path} from {load.path}: {what} {_listed(paths)}")
    return params


def match(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    skip: tuple[str, ...],
    regrid: Callable[[np.ndarray], np.ndarray] | None,
    where: str,
) -> Loaded:
    """Takes each of our leaves from theirs by path. `skip`: regexes; `regrid`: resizes their learned positions."""
    mine: dict[str, Any] = flatten_dict(ours, sep="/")
    other: dict[str, Any] = flatten_dict(theirs, sep="/")
    taken, fresh, unmatched = {}, [], []
    for path, leaf in mine.items():
        if any(re.search(pattern, path) for pattern in skip):
            fresh.append(path)
        elif path not in other:
            unmatched.append(f"{path} {leaf.shape}: there is none{nearest(path, other)}")
        elif other[path].shape == leaf.shape:
            taken[path] = other[path]
        elif path == POSITIONS and regrid is not None:
            taken[path] = regrid(other[path])
        else:
            unmatched.append(f"{path} {leaf.shape}: there it is {other[path].shape}")
    if unmatched:
        raise UserError(
            f"{where}: {len(unmatched)} parameters have no counterpart; Load(skip=...) starts them fresh:\n"
            + "\n".join(f"  {line}" for line in unmatched)
        )
    unused = [path for path in other if path not in taken]
    return Loaded(unflatten_dict({**mine, **taken}, sep="/"), list(taken), fresh, unused)


def _experiment(workdir: str) -> Experiment:
    record = Path(workdir) / RECORD
    if not record.exists():
        raise UserError(f"init: {workdir} is not a workdir of a run: it has no {RECORD}")
    return build(serialization.loads(record.read_text(encoding="utf-8")))


def _regrid(theirs: Any, ours: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """What resizes learned positions from their tower's grid to ours; None where the towers have no such grids."""
    if not (isinstance(theirs, PatchTower) and isinstance(ours, PatchTower) and theirs.prefix == ours.prefix):
        return None
    if len(theirs.capacity()) != len(ours.capacity()) or theirs.width != ours.width:
        return None
    return lambda table: np.asarray(resize(jnp.asarray(table), theirs.capacity(), ours.capacity(), ours.prefix))


def _listed(paths: list[str]) -> str:
    more = f", and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
    return f"{len(paths)}: {', '.join(paths[:LISTED])}{more}"
