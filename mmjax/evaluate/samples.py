"""Examples of what a model wrote, for readers of a page."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

Each = TypeVar("Each")

FEW = 8  # examples of an evaluator


class SampleLine(NamedTuple):
    """A line under an example. said: whose it is, such as `asked`. right: whether it is; None: it isn't judged."""

    said: str
    text: str
    right: bool | None = None


class WrittenSample(NamedTuple):
    """An example of a split, by its row, and the lines under it. name: of the metrics that it stands beside."""

    name: str
    row: int
    lines: tuple[SampleLine, ...]


def spread(given: Sequence[Each], most: int = FEW) -> list[Each]:
    """A few of them, evenly spaced."""
    count = min(most, len(given))
    return [given[place * len(given) // count] for place in range(count)]
