"""Objectives of one input that a fusion reads beside others: their views, and which examples count."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxtyping import Array, Bool

from mmjax.errors import UserError, nearest
from mmjax.objectives.contract import View, valid


def read_beside(own: View, beside: Iterable[str | View]) -> tuple[View, ...]:
    """The views that a fusion reads for an objective: its own first, or where the input's name stands in
    `beside`."""
    views = tuple(own if one == own.input else View(one) if isinstance(one, str) else one for one in beside)
    return views if own in views else (own, *views)


def own_part(objective: Any, encoded: Mapping[Any, Any], teacher: bool = False) -> Any:
    """The objective's own view: as its tower encoded it, or as the fusion did; teacher: as
    the teacher did.
    """
    view = objective.views()[1 if teacher else 0]
    if isinstance(view, View):
        return encoded[view]
    own = [part.input for part in view.parts].index(objective.modality)
    return encoded[view].parts[own]


def check_beside(path: str, objective: Any) -> None:
    """Raises UserError where nothing is there for the fusion of an objective to read, or no fusion reads it."""
    if (objective.fusion is None) != (not objective.beside):
        raise UserError(
            f"{path} has fusion={objective.fusion!r} and beside={objective.beside}: set both, the fusion and what it "
            f"reads beside the {objective.modality}, or neither"
        )


def check_only(path: str, objective: Any, inputs: Mapping[str, Any]) -> None:
    """Raises UserError where `only` names no further input of the data."""
    for name in objective.only:
        if name not in inputs or name == objective.modality:
            others = [other for other in inputs if other != objective.modality]
            raise UserError(
                f"{path}.only names {name!r}, and the inputs beside {objective.modality!r} are "
                f"{', '.join(others) or 'none'}{nearest(name, others)}"
            )


def with_only(rows: Bool[Array, " b"], only: Mapping[str, bool], batch: Mapping[str, Array]) -> Bool[Array, " b"]:
    """Those of the rows that have the inputs for which `only` is True, and lack those for which it is False."""
    for name, there in only.items():
        rows = rows & (valid(batch, name) == there)
    return rows
