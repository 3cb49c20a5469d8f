"""Collects the distinct views that objectives read, and checks that towers, fusions and the batch have them."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from mmjax.errors import UserError, nearest
from mmjax.models.fusion.contract import reads_front
from mmjax.objectives.contract import AnyView, Fused, Together, View, fusions, parts
from mmjax.objectives.masking import Corrupt, CorruptPatches
from mmjax.objectives.second_round import two_rounds

Parts = Mapping[str, Any]


def distinct_views(objectives: Parts, fusers: Parts = MappingProxyType({})) -> tuple[AnyView, ...]:
    """The distinct views that objectives read, in their order; the parts of a fused view come before it, but those that
    one of the `fusers` reads before they are encoded, and that no objective reads alone.
    """
    views: dict[AnyView, None] = {}
    alone = {view for objective in objectives.values() for view in objective.views() if isinstance(view, View)}
    for objective in objectives.values():
        for view in objective.views():
            for single in view.parts if isinstance(view, Fused) else ():
                if single in alone or not reads_front(fusers.get(view.fusion), single.input):
                    views[single] = None
            views[view] = None
    return tuple(views)


def trained_towers(objectives: Parts) -> set[str]:
    """The towers of views that aren't a teacher's: those get a gradient."""
    return {one.by for view in distinct_views(objectives) for one in parts(view) if not one.teacher}


def teaches(objectives: Mapping[str, Any]) -> bool:
    """True if an objective reads a teacher's view, and so the moving average of the parameters."""
    return any(single.teacher for view in distinct_views(objectives) for single in parts(view))


def check_parts(towers: Parts, fusers: Parts, objectives: Parts, weights: Parts, idle: Iterable[str]) -> None:
    """Raises UserError where objectives name missing parts, or where a part is read by none."""
    for name in weights:
        if name not in objectives:
            raise UserError(
                f"weights has {name!r}, which is no objective; the objectives are {names(objectives)}"
                f"{nearest(name, objectives)}"
            )
    if not objectives:
        raise UserError("objectives={}: there is nothing to train; give an objective, Contrastive say")
    for name, objective in objectives.items():
        for view in objective.views():
            for single in parts(view):
                if single.by not in towers:
                    raise UserError(
                        f"objective {name!r} reads {single.by!r}, which has no tower; the towers are {names(towers)}"
                        f"{nearest(single.by, towers)}"
                    )
            check_view(name, view, towers)
            check_fronts(name, objective, towers, fusers)
        for fusion in fusions(objective):
            if fusion not in fusers:
                raise UserError(
                    f"objective {name!r} reads the fusion {fusion!r}, which isn't there; the fusions are "
                    f"{names(fusers)}{nearest(fusion, fusers)}"
                )
    for name, objective in two_rounds(objectives).items():
        if lacking := [view for view in objective.kept() if view not in objective.views()]:
            raise UserError(f"objective {name!r} keeps {lacking[0]}, which is none of its views, so isn't encoded")
    if unread := set(towers) - set(idle) - trained_towers(objectives):
        raise UserError(f"no objective reads {names(unread)}: leave the tower out, or add an objective that trains it")
    if unread := set(fusers) - {fusion for objective in objectives.values() for fusion in fusions(objective)}:
        raise UserError(
            f"no objective reads the fusion {names(unread)}: leave it out, or add an objective that trains it"
        )


def check_view(objective: str, view: AnyView, towers: Parts) -> None:
    """Raises UserError where the parts of a view don't go together."""
    inputs = [single.input for single in parts(view)]
    for single in parts(view):
        if isinstance(single.masking, CorruptPatches) and not getattr(towers[single.by], "mask_token", False):
            raise UserError(
                f"objective {objective!r} hides patches of {single.input!r} in their places, and towers.{single.by} "
                "has nothing to stand there: set its mask_token=True (a ViT has that), or take Keep"
            )
    if isinstance(view, Fused) and len(set(inputs)) < len(inputs):
        raise UserError(
            f"objective {objective!r} fuses {', '.join(inputs)}: an input comes once, for the fusion knows its tokens "
            "by the input's name"
        )
    if isinstance(view, Fused) and len(inputs) < 2:
        raise UserError(
            f"objective {objective!r} fuses {names(inputs)} alone, and a fusion is of two inputs or more: name "
            "another, or read the input's own embedding"
        )
    taught = [single.input for single in parts(view) if single.teacher]
    if isinstance(view, Fused) and 0 < len(taught) < len(inputs):
        raise UserError(
            f"objective {objective!r} fuses {names(inputs)}, of which a teacher encodes {names(taught)} alone: a "
            "fusion reads the views of a teacher, or of a student"
        )
    if isinstance(view, Together):
        if any(single.teacher for single in view.parts):
            raise UserError(
                f"objective {objective!r} encodes {names(inputs)} together, one of them by a teacher: only a view of "
                "one input has a teacher"
            )
        trunks = [getattr(towers[single.by], "trunk", None) for single in view.parts]
        if trunks[0] is None or any(trunk is not trunks[0] for trunk in trunks):
            raise UserError(
                f"objective {objective!r} encodes {names(inputs)} together, and their towers hold no trunk that is the "
                "same: give both towers one Trunk(...), trunk=trunk"
            )
        if getattr(trunks[0], "ways", ()):
            raise UserError(
                f"objective {objective!r} encodes {names(inputs)} together, and their towers hold a MultiwayTrunk, "
                "through which a ThroughTrunk fusion goes: read that, or give the towers a Trunk(...)"
            )


def check_fronts(name: str, objective: Any, towers: Parts, fusers: Parts) -> None:
    """Raises UserError where a fusion through a trunk reads views whose towers don't hold that very trunk."""
    named = {fusion: view.parts for view in objective.views() if isinstance(view, Fused) for fusion in (view.fusion,)}
    kept = getattr(objective, "kept", tuple)()
    named |= {fusion: kept for fusion in fusions(objective) if fusion not in named}
    for fusion, views in named.items():
        for single in views if fusion in fusers else ():
            if not reads_front(fusers[fusion], single.input):
                continue
            if getattr(towers[single.by], "trunk", None) is not fusers[fusion].trunk or single.teacher:
                raise UserError(
                    f"objective {name!r} reads {single.input!r} by the fusion {fusion!r}, through the towers' trunk, "
                    f"and towers.{single.by} doesn't hold that trunk, or is a teacher: give both the same one, "
                    "trunk=trunk"
                )


def check_entries(objectives: Parts, batch: Mapping[str, Array], microbatches: int) -> None:
    """Raises UserError where the batch lacks an entry that an objective reads, or the microbatches don't divide it."""
    for name, objective in objectives.items():
        for single in (one for view in objective.views() for one in parts(view)):
            _check_entries(name, single, batch)
    size = rows_of(batch)
    if microbatches < 1 or size % microbatches:
        would_do = [str(n) for n in range(1, size + 1) if size % n == 0]
        raise UserError(f"microbatches={microbatches} doesn't divide a batch of {size}; {', '.join(would_do)} would do")


def rows_of(batch: Mapping[str, Array]) -> int:
    """The number of examples of a batch."""
    return len(next(iter(batch.values())))


def _check_entries(objective: str, view: View, batch: Mapping[str, Array]) -> None:
    for needed in (view.input, f"{view.input}_valid", *(["index"] if view.masking else [])):
        if needed not in batch:
            raise UserError(f"objective {objective!r} needs {needed!r}, which the batch lacks; it holds {names(batch)}")
    if isinstance(view.masking, Corrupt) and batch[view.input].dtype != jnp.int32:
        raise UserError(f"objective {objective!r} corrupts {view.input!r}; only tokens of text can be (use Keep)")


def names(some: Iterable[Any]) -> str:
    """The names for a message, sorted."""
    return ", ".join(sorted(map(str, some))) or "nothing"
