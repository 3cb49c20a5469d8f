"""Checks that all that objectives read exists: towers, fusions, the data's inputs, a teacher's average."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmjax.errors import UserError, unknown
from mmjax.objectives.contract import fusions, parts
from mmjax.objectives.readings import check_fronts, check_view, distinct_views, trained_towers

Modules = Mapping[str, Any]


def encoded_inputs(towers: Modules, objectives: Modules, chains: Iterable[str]) -> list[tuple[str, str]]:
    """Each tower with each input that it encodes: the input of its name, where there is one, and those of views."""
    own = [(name, name) for name in towers if name in set(chains)]
    views = [(view.by, view.input) for whole in distinct_views(objectives) for view in parts(whole)]
    return list(dict.fromkeys([*own, *views]))


def check_views(
    towers: Modules,
    fusers: Modules,
    objectives: Modules,
    chains: Iterable[str],
    idle: Iterable[str] = (),
    ema: float | None = None,
) -> None:
    """Raises UserError, with the path, where an objective reads a missing part or input, or nothing reads a part.

    chains: the inputs of the data. idle: towers that only evaluation reads. ema: the experiment's.
    """
    chains, idle = list(chains), set(idle)
    for name, objective in objectives.items():
        for view in objective.views():
            for single in parts(view):
                if single.by not in towers:
                    raise UserError(unknown(f"objectives.{name} reads", single.by, towers, "towers"))
                if single.teacher and ema is None:
                    raise UserError(
                        f"objectives.{name} has {single.input!r} encoded by a teacher, the moving average of the "
                        "parameters, and ema=None: set ema=0.999, say"
                    )
            check_view(name, view, towers)
        for fusion in fusions(objective):
            if fusion not in fusers:
                raise UserError(unknown(f"objectives.{name} reads the fusion", fusion, fusers, "fusions"))
        check_fronts(name, objective, towers, fusers)
    for name in towers:
        if objectives and name not in trained_towers(objectives) | idle:
            raise UserError(
                f"no objective reads towers.{name}: leave it out, add an objective that trains it, or, where only "
                f"evaluation wants it, freeze all of it: optimizer.frozen=('^towers_{name}/',)"
            )
    for name in fusers:
        if objectives and name not in {fusion for one in objectives.values() for fusion in fusions(one)}:
            raise UserError(f"no objective reads fusions.{name}: leave it out, or add an objective that trains it")
    read = {view.by for whole in distinct_views(objectives) for view in parts(whole)}
    inputs = [view.input for whole in distinct_views(objectives) for view in parts(whole)]
    for name in dict.fromkeys([*(name for name in towers if name not in read), *inputs]):
        if name not in chains:
            raise UserError(unknown("data.transforms lacks", name, chains, "chains of data.transforms"))
