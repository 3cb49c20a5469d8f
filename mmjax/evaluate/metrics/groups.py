"""Groups of examples by a column's value: whose scores differ, and by how much."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int


def grouped_rows(values: Sequence[Any], rows: Int[np.ndarray, " n"]) -> dict[str, Int[np.ndarray, " k"]]:
    """The places in `rows` of the examples of each value, in the order of the values as text.

    values: of every row of the split; of a row without a value (None, NaN, an empty text) there is no group.
    """
    found: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        value = values[row]
        if value is not None and value == value and value != "":
            found.setdefault(str(value), []).append(place)
    return {value: np.asarray(found[value]) for value in sorted(found)}


def gap(name: str, groups: Mapping[str, float]) -> dict[str, float]:
    """The best group's score less the worst's, as a metric of that name; none where there are fewer than two groups."""
    scores = groups.values()
    return {name: max(scores) - min(scores)} if len(groups) > 1 else {}
