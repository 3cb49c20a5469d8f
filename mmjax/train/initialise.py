"""Towers and objectives that start from another model's: an experiment's `init={"towers.image": Load(path)}`."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fiddle as fdl
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.data.chains import untrained
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.errors import UserError, nearest
from mmjax.experiment.definition import Experiment, Load, part_at
from mmjax.experiment.graph import build
from mmjax.interop import hub
from mmjax.interop.bundle import Bundle
from mmjax.interop.resolve import resolve
from mmjax.models.layers.positions import resize
from mmjax.models.towers.contract import PatchTower
from mmjax.objectives.cider_reward import FREQUENCIES
from mmjax.objectives.contract import Writing
from mmjax.objectives.contrastive.key_queue import QUEUE
from mmjax.runtime import hosts
from mmjax.runtime.files.own_code import Code

LISTED = 5  # paths that a message lists; more are only counted
KINDS = ("towers", "fusions", "objectives")  # the parts that can start from another model's
OWN = (QUEUE, FREQUENCIES)  # collections that no run takes from another
POSITIONS = "position"  # the learned table of a patch tower


class Loaded(NamedTuple):
    """Parameters of a part, with the paths that were `loaded`, stay `fresh` (`skip`), or were `unused` in
    the source.
    """

    params: dict[str, Any]
    loaded: list[str]
    fresh: list[str]
    unused: list[str]


def sources(experiment: Experiment, say: Callable[[str], None], code: Code = ()) -> dict[str, Bundle]:
    """The models that the parts in the experiment's `init` start from. Of several hosts the first one downloads. code:
    files of one's own that may be run for the parts that it names.

    Raises:
        UserError: there is nothing at a path, or no such part in it.
    """
    found: dict[str, Bundle] = {}
    for path, load in _loads(experiment).items():
        if hub.is_name(load.path):
            hosts.first(lambda name=load.path: hub.fetched(name, say).source)
        found[path] = resolve(load.path, code=code, say=lambda text: None)
        held = fdl.ordered_arguments(found[path].config)  # other projects' models leave some kinds unset
        known = [f"{kind}.{name}" for kind in KINDS for name in held.get(kind, {})]
        there = load.of or path
        if ".".join(there.split(".")[:2]) not in known or part_at(found[path].config, there) is None:
            hint = "" if load.of else ": Load(..., of=...) names another part of it"
            raise UserError(f"init: {load.path} has no {there}; it has {', '.join(known)}{nearest(there, known)}{hint}")
    return found


def tokenizers(
    experiment: Experiment, sources: Mapping[str, Bundle], say: Callable[[str], None]
) -> dict[str, Tokenizer]:
    """The tokenizers, by entry, of the models that towers and decoders start from: a token table is only valid with its
    own.

    One is taken where both experiments describe their tokenizer equally, or this one leaves its `path` empty, for a
    model that comes from elsewhere; `say` gets a message where they don't, and it isn't the same model either.
    """
    wanted, found, loads = untrained(experiment.data.transforms), {}, _loads(experiment)
    for path, bundle in sources.items():
        entry = _entry_of(experiment, path)
        if entry not in wanted:
            continue
        its = build(bundle.config)
        there = _entry_of(its, loads[path].of or path)
        if there not in bundle.tokenizers:
            continue
        ours, theirs = wanted[entry], untrained(its.data.transforms).get(there)
        own = getattr(ours, "path", None)
        if theirs == ours or own == "":
            found[entry] = bundle.tokenizers[there]
            say(f"init {path} from {bundle.source}: its tokenizer is taken too")
        elif not own or ours.load(None, Path()) != bundle.tokenizers[there]:
            say(f"init {path} from {bundle.source}: the tokenizer is another one, {ours}, not {theirs}")
    return found


def _entry_of(experiment: Experiment, path: str) -> str:
    """The entry whose ids a part has vectors for: a tower's own, or that of the texts that an objective's decoder
    writes; "" where it is neither."""
    kind, _, name = path.partition(".")
    part = part_at(experiment, path)
    if kind == "objectives":
        return part.text if isinstance(part, Writing) else ""
    return name if kind == "towers" else ""


def initialised(
    variables: dict[str, Any], experiment: Experiment, sources: Mapping[str, Bundle], say: Callable[[str], None]
) -> dict[str, Any]:
    """`variables` (Linen's collections, of the experiment's pretrainer) with the parts in its `init` replaced by loaded
    ones.

    Learned positions of another grid are resized (`models.positions.resize`); batch statistics come with the tower. A
    queue of keys stays as it is: another run's are of another teacher; so do the frequencies that a run counts itself.
    say: gets a line each for loaded, fresh and unused parameters.

    Raises:
        UserError: a parameter that isn't in `skip` has no counterpart there.
    """
    variables = {collection: dict(parts) for collection, parts in variables.items()}
    for path, load in _loads(experiment).items():
        theirs, of = sources[path], load.of or path
        where, results = f"init {path} from {load.path}", []
        its_part, own_part = part_at(build(theirs.config), of), part_at(experiment, path)
        _check_scaled(its_part, own_part, where, path)
        regrid = _regrid(its_part, own_part)
        (part, *within), (other, *inside) = _names(path), _names(of)
        for collection in [name for name, parts in variables.items() if part in parts and name not in OWN]:
            its = _at(theirs.variables.get(collection, {}).get(other, {}), inside)
            ours = variables[collection][part]
            mine = _at(ours, within)
            if within and not mine:
                continue
            result = match(mine, its, load.skip, regrid, where)
            variables[collection][part] = _with(ours, within, result.params)
            results.append(result)
        if within and not results:
            raise UserError(f"{where}: {path} has no parameters of its own here: those that it shares start elsewhere")
        for what in ("loaded", "fresh", "unused"):
            if paths := [name for result in results for name in getattr(result, what)]:
                say(f"init {path} from {theirs.source}: {what} {_listed(paths)}")
    return variables


def _names(path: str) -> list[str]:
    """A part's names among Linen's parameters: `towers_image`, or `towers_video` and `frame`."""
    kind, name, *within = path.split(".")
    return [f"{kind}_{name}", *within]


def _at(parameters: Mapping[str, Any], within: Sequence[str]) -> Mapping[str, Any]:
    for name in within:
        parameters = parameters.get(name, {})
    return parameters


def _with(parameters: Mapping[str, Any], within: Sequence[str], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters with others in the place of those at `within`."""
    if not within:
        return part
    return {**parameters, within[0]: _with(parameters[within[0]], within[1:], part)}


def _loads(experiment: Experiment) -> dict[str, Load]:
    return {path: Load(load) if isinstance(load, str) else load for path, load in experiment.init.items()}


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


def _check_scaled(theirs: Any, ours: Any, where: str, path: str) -> None:
    """Raises UserError where rotary positions scale in the one and turn in the other: no parameter would tell."""
    there, here = (getattr(part, "scaled", False) for part in (theirs, ours))
    if there != here:
        raise UserError(
            f"{where}: there rotary positions {'scale channels' if there else 'turn pairs of channels'}, and "
            f"{path}.scaled={here}: set it to {there}, there and wherever the model has it"
        )


def _regrid(theirs: Any, ours: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """A function that resizes learned positions from their tower's grid to ours; None where the towers have no such
    grids.
    """
    if not (isinstance(theirs, PatchTower) and isinstance(ours, PatchTower) and theirs.prefix == ours.prefix):
        return None
    if len(theirs.capacity()) != len(ours.capacity()) or theirs.sizes.width != ours.sizes.width:
        return None
    if theirs.position_offset != ours.position_offset:
        return None
    before = ours.position_offset + ours.prefix
    return lambda table: np.asarray(resize(jnp.asarray(table), theirs.capacity(), ours.capacity(), before))


def _listed(paths: list[str]) -> str:
    more = f", and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
    return f"{len(paths)}: {', '.join(paths[:LISTED])}{more}"
