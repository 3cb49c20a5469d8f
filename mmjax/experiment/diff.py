"""Differences between two experiments, path by path."""

import dataclasses
from typing import Any, NamedTuple

import fiddle as fdl
import flax.linen as nn

from mmjax.experiment.graph import children, complete, holds_configs, target


class Missing:
    """Stands in a difference for a value that one side lacks."""

    def __repr__(self) -> str:
        return "(absent)"


MISSING = Missing()


@dataclasses.dataclass(frozen=True)
class Same:
    """Stands in a difference for a module that is the same object as at another path (its parameters are shared)."""

    path: str

    def __repr__(self) -> str:
        return f"(shared with {self.path})"


class Difference(NamedTuple):
    """One path at which two configs differ."""

    path: str
    left: Any
    right: Any


def diff(left: fdl.Config, right: fdl.Config) -> list[Difference]:
    """The differences between two configs, defaults included, in the order of the left one's fields.

    A part that only one side has is compared with `MISSING`, as a whole. Parts of another class are one difference, and
    so are lists and tuples of plain values.
    """
    found: list[Difference] = []
    first: tuple[dict[int, str], dict[int, str]] = ({}, {})

    def walk(path: str, a: Any, b: Any) -> None:
        if isinstance(a, fdl.Config) and isinstance(b, fdl.Config) and target(a) is target(b):
            # Two equal towers differ from one tower used twice: the models have different parameters.
            if isinstance(target(a), type) and issubclass(target(a), nn.Module):
                before = [seen.setdefault(id(x), path) for seen, x in zip(first, (a, b), strict=True)]
                if before[0] != before[1]:
                    sides = [x if p == path else Same(p) for x, p in zip((a, b), before, strict=True)]
                    found.append(Difference(path, *sides))
                    return
        elif not _entered(a, b):
            both_nan = isinstance(a, float) and isinstance(b, float) and a != a and b != b
            if isinstance(a, fdl.Config) or isinstance(b, fdl.Config) or not (both_nan or a == b):
                found.append(Difference(path, a, b))
            return
        inside_a, inside_b = children(a), children(b)
        for name in dict.fromkeys([*inside_a, *inside_b]):
            below = f"{path}.{name}" if path else name
            walk(below, inside_a.get(name, MISSING), inside_b.get(name, MISSING))

    walk("", complete(left), complete(right))
    return found


def _entered(a: Any, b: Any) -> bool:
    """True if two values that aren't configs of the same callable are compared item by item."""
    if type(a) is not type(b) or isinstance(a, fdl.Config):
        return False
    return isinstance(a, dict) or holds_configs(a) or holds_configs(b)
