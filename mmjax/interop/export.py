"""A model from anywhere, written in a project's layout, and read back before that is called done."""

import copy
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from mmjax.errors import UserError, nearest
from mmjax.experiment import own_parts
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import card
from mmjax.interop.bundle import Bundle
from mmjax.interop.card import origin
from mmjax.interop.projects import PROJECTS
from mmjax.interop.resolve import resolve
from mmjax.interop.twins import token_ids
from mmjax.interop.twins.twin import Twin, refused
from mmjax.objectives.caption import Caption
from mmjax.objectives.contract import fusions, parts
from mmjax.objectives.contrastive.objective import PUBLISHED, Contrastive
from mmjax.runtime.files import output

LISTED = 8  # paths in a message, before it only counts


def export(
    source: str | os.PathLike[str],
    out: Path,
    layout: str = "mmjax",
    *,
    step: int | None = None,
    ema: bool = True,
    code: Any = None,
    towers: Sequence[str] | None = None,
    exact: bool = True,
    tokenizers: bool = True,
    half: bool = False,
    license: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Writes the model at `source` (see `resolve`) to `out`.

    layout: "mmjax", or a key of `projects.PROJECTS`. In another project's, objectives that aren't contrastive stay
        behind where there are contrastive ones besides: a decoder that only trains has no place there.
    code: as in `resolve`; the texts of what is run go along.
    towers: only these, and the objectives that read no other; None: all.
    exact: whether pictures must be the same there to the byte, and texts to the id; else it is the layout's nearest,
        and what differs is said, and listed in the card.
    half: of "mmjax": the numbers are stored in 16 bits, and rounded to that.
    tokenizers: whether they are written: one that the layout can't hold may be left out.
    license: what the card says of it; None: that none was chosen.

    Raises:
        UserError: there is no such model, the layout can't hold it, or something stands at `out` already; or what was
            written isn't what is read back (it is removed then).
    """
    out = output.local(out, "OUT")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: give another {'folder' if out.is_dir() else 'file'}")
    whole = bundles.without_queues(resolve(source, step=step, ema=ema, code=code, say=say))
    bundle = part(whole, towers)
    if not tokenizers:
        bundle = replace(bundle, tokenizers={})
    if half:
        if layout != "mmjax":
            raise UserError(f"--half is for mmjax's own layout, not for {layout!r}")
        bundle = bundles.halved(bundle)
    made = origin(source, bundle)
    at = f", step {bundle.step}" if bundle.step is not None and "step" not in bundle.source else ""
    if layout == "mmjax":
        twin = Twin(bundle, "")
    else:
        twin = near(without_decoders(bundle, say, PROJECTS[layout].encoders), layout)
        refused(twin, exact, PROJECTS[layout].title)
    with _whole(out):
        if layout == "mmjax":
            bundles.save(replace(bundle, source=f"{bundle.source}{at}"), out, half)
            again = bundles.read(out, own_parts.files_of(bundle.config))
        else:
            PROJECTS[layout].write(twin.bundle, out)
            again = PROJECTS[layout].read(out)
        if problems := changed_arrays(twin.bundle, again):
            more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
            lines = "\n".join(f"  {problem}" for problem in problems[:LISTED])
            raise UserError(f"{out}: what is read back isn't what was written, so it was removed:\n{lines}{more}")
        if layout != "mmjax" and PROJECTS[layout].folder:
            twin = twin.told(token_ids.unlike(bundle, twin, again, out, PROJECTS[layout]))
            refused(twin, exact, PROJECTS[layout].title)
        if layout == "mmjax" or PROJECTS[layout].folder:
            card.write(out, layout, twin, made, license)
    for line in [*twin.differs, *twin.notes]:
        say(f"  {line}")
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(bundle.variables))
    title = "" if layout == "mmjax" else f" in the layout of {PROJECTS[layout].title}"
    rounded = " (rounded to 16 bits)" * half
    say(f"{out}: {bundle.source}{title}, {count:,} numbers{rounded}, read back and the same to the bit")


def near(bundle: Bundle, layout: str) -> Twin:
    """The model as it can be said there.

    Raises:
        UserError: it can't; says which of its towers can.
    """
    try:
        return PROJECTS[layout].near(bundle)
    except UserError as error:
        raise UserError(f"{error}{_some(bundle, layout)}") from error


def _some(bundle: Bundle, layout: str) -> str:
    """The end of a message: what goes of a model that doesn't go whole, the most towers first."""
    names = list(bundle.config.towers)
    for count in range(len(names) - 1, 0, -1):
        found = []
        for towers in combinations(names, count):
            try:
                some = without_decoders(part(bundle, towers), _nothing, PROJECTS[layout].encoders)
                twin = PROJECTS[layout].near(some)
            except UserError:
                continue
            found.append(f"--towers {' '.join(towers)} goes, as {twin.kind}{' (--inexact)' if twin.differs else ''}")
        if found:
            return f"\n{'; '.join(found)}"
    for other, project in PROJECTS.items():
        try:
            if other == layout or not project.exported:
                continue
            if not project.near(without_decoders(bundle, _nothing, project.encoders)).differs:
                return f"\n{project.title} has it: --to {other}"
        except UserError:
            continue
    return "\nmmjax's own layout takes it as it is: leave out --to"


def _nothing(text: str) -> None:
    del text


@contextmanager
def _whole(out: Path) -> Iterator[None]:
    """Whatever goes wrong takes what was written with it."""
    try:
        yield
    except BaseException:
        if out.exists():
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        raise


def part(bundle: Bundle, towers: Sequence[str] | None) -> Bundle:
    """The model with some of its towers, and the objectives that read no other.

    Raises:
        UserError: it has no such tower.
    """
    if towers is None:
        return bundle
    known = list(bundle.config.towers)
    for name in towers:
        if name not in known:
            has = ", ".join(known)
            raise UserError(f"{bundle.source} has no tower {name!r}, it has {has}{nearest(name, known)}")
    objectives = build(bundle.config).objectives
    seen = {name: {v.by for view in o.views() for v in parts(view)} for name, o in objectives.items()}
    kept = [name for name, modalities in seen.items() if modalities <= set(towers)]
    return _kept(bundle, [name for name in known if name in towers], kept)


def without_decoders(bundle: Bundle, say: Callable[[str], None], encoders: bool = False) -> Bundle:
    """The model with its contrastive objectives alone, where it has such, or where only `encoders` have a place."""
    objectives = build(bundle.config).objectives
    kept = [name for name, objective in objectives.items() if isinstance(objective, Contrastive)]
    left = [name for name in objectives if name not in kept]
    if not left or not (kept or encoders):
        return bundle
    say(f"objectives that have no place there stay behind: {', '.join(left)}")
    without = _kept(bundle, list(bundle.config.towers), kept)
    before, after = (each.config.__arguments__.get("fusions", {}) for each in (bundle, without))
    if lost := [name for name in before if name not in after]:
        say(f"fusions that no objective reads then stay behind: {', '.join(lost)}")
    return without


def _kept(bundle: Bundle, towers: Sequence[str], objectives: Sequence[str]) -> Bundle:
    """The model with only these parts, without its evaluators and `init`, which may name the others."""
    built = [build(bundle.config.objectives[name]) for name in objectives]
    fused = {fusion for objective in built for fusion in fusions(objective)}
    read = [view.input for objective in built for whole in objective.views() for view in parts(whole)]
    words = [objective.text for objective in built if isinstance(objective, Caption)]  # which no tower reads
    config = copy.deepcopy(bundle.config)
    config.towers = {name: config.towers[name] for name in towers}
    config.objectives = {name: config.objectives[name] for name in objectives}
    if given := config.__arguments__.get("fusions"):
        config.fusions = {name: fusion for name, fusion in given.items() if name in fused}
    chains = config.data.transforms
    config.data.transforms = {name: chains[name] for name in dict.fromkeys([*towers, *read, *words]) if name in chains}
    config.weights, config.init, config.evaluators, config.keep_best = {}, {}, [], None
    kinds = {"towers": towers, "fusions": fused, "objectives": objectives}
    names = [f"{kind}_{name}" for kind, some in kinds.items() for name in some]
    variables = {
        collection: {name: tree for name, tree in parts.items() if name in names}
        for collection, parts in bundle.variables.items()
    }
    variables = {collection: parts for collection, parts in variables.items() if parts}
    tokenizers = {name: tokenizer for name, tokenizer in bundle.tokenizers.items() if name in {*towers, *words}}
    return replace(bundle, config=config, variables=variables, tokenizers=tokenizers)


def changed_arrays(ours: Bundle, theirs: Bundle) -> list[str]:
    """A line for each difference between two models' numbers or tokenizers."""
    left, right = (_flat(bundle) for bundle in (ours, theirs))
    found = [f"{path} is missing" for path in left if path not in right]
    found += [f"{path} came up" for path in right if path not in left]
    for path in left.keys() & right.keys():
        a, b = np.asarray(left[path]), np.asarray(right[path])
        if a.dtype != b.dtype or a.shape != b.shape:
            found.append(f"{path} was {a.dtype}{list(a.shape)}, and is {b.dtype}{list(b.shape)}")
        elif a.tobytes() != b.tobytes():
            found.append(f"{path} has other numbers")
    for name in ours.extras.keys() & theirs.extras.keys():
        if ours.extras[name].tobytes() != theirs.extras[name].tobytes():
            found.append(f"{name}, kept for its own project, has other numbers")
    for modality, tokenizer in ours.tokenizers.items():
        if modality in theirs.tokenizers and theirs.tokenizers[modality].vocab_size != tokenizer.vocab_size:
            found.append(f"the tokenizer of {modality} has another vocabulary")
    return found


def _flat(bundle: Bundle) -> dict[str, Any]:
    """The variables by their paths; objectives by their place, since their names are each project's own, and a logit
    scale as it is used, below its clip."""
    flat: dict[str, Any] = flatten_dict(bundle.variables, sep="/")
    for place, (name, objective) in enumerate(build(bundle.config).objectives.items()):
        old, new = f"params/objectives_{name}/", f"objective {place}: "
        flat = {path.replace(old, new): leaf for path, leaf in flat.items()}
        if isinstance(objective, Contrastive):
            most = PUBLISHED[objective.loss].scale_max if objective.scale_max is None else objective.scale_max
            scale = np.asarray(flat[f"{new}log_scale"])
            flat[f"{new}log_scale"] = np.minimum(scale, np.asarray(math.log(most), scale.dtype))
    return flat
