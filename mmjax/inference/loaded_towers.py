"""The towers of a loaded model: what they compute in, and how large they are."""

from collections.abc import Mapping
from typing import Any, get_args

import fiddle as fdl
import jax

from mmjax.errors import UserError
from mmjax.experiment.graph import fields, paths, target
from mmjax.models.layers.parameters import DtypeName


def check_dtype(dtype: str | None) -> None:
    """Raises UserError where there is no such dtype to compute in; None is the experiment's."""
    if dtype is not None and dtype not in get_args(DtypeName):
        raise UserError(f"dtype={dtype!r} is none of {', '.join(get_args(DtypeName))}, which towers compute in")


def compute_in(towers: Mapping[str, fdl.Config], dtype: str | None) -> None:
    """Sets what towers compute in, wherever they say it: their blocks, their trunk's, or themselves; not with None."""
    for _, part in paths(dict(towers)) if dtype is not None else ():
        if isinstance(part, fdl.Config) and "dtype" in fields(target(part)):
            part.dtype = dtype


def tower_size(params: Mapping[str, Any], name: str) -> int:
    """The number of a tower's parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params.get(f"towers_{name}", {})))


def described_tower(tower: Any, name: str, shape: tuple[int, ...], size: int, params: Mapping[str, Any]) -> str:
    """A line on a tower: its class, the shape that it reads, the size of what it gives, its sizes and parameters."""
    sizes = getattr(tower, "sizes", tower)
    told = (("width", sizes), ("depth", sizes), ("patch", tower))
    inner = ", ".join(f"{field} {getattr(part, field)}" for field, part in told if hasattr(part, field))
    inner = f"; {inner}" if inner else ""
    read = "×".join(map(str, shape))
    return f"{type(tower).__name__}: {read} -> {size}{inner}; {tower_size(params, name):,} parameters"
