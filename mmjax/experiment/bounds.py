"""Refuses numbers that no experiment can have: sizes beyond any array, and those that aren't finite."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from mmjax.errors import UserError

LARGEST = 2**31 - 1  # along an axis: ids, positions and steps are int32
UNBOUNDED = ("clip_norm", "patience", "scale_max")  # fields in which inf means that there is no bound
HIDDEN = ("parent", "name")  # Linen's own fields


def check_bounds(sized: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Checks every number of an experiment's parts, by their paths.

    sized: parts whose ints are sizes of arrays, {"towers": {...}}. others: all other parts.

    Raises:
        UserError: a number is out of bounds; the message has its path.
    """
    for parts in (sized, others):
        for path, name, value in _numbers(parts):
            if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and name not in UNBOUNDED)):
                raise UserError(f"{path}={value} must be a finite number")
            if parts is sized and isinstance(value, int) and abs(value) > LARGEST and not name.startswith("most_"):
                raise UserError(f"{path}={value} is beyond {LARGEST:,}, the largest size of an array's axis")


def _numbers(value: Any, path: str = "", name: str = "") -> Iterator[tuple[str, str, int | float]]:
    """Iterates over every int and float in dataclasses, dicts and sequences: its path, its field, the number."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield path, name, value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.name not in HIDDEN and hasattr(value, field.name):
                yield from _numbers(getattr(value, field.name), f"{path}.{field.name}".lstrip("."), field.name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{path}.{key}".lstrip("."), name)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _numbers(item, f"{path}.{place}", name)
