"""Transforms of a whole record: a copy of an input, and one choice for several inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import RecordTransform, Rng


@dataclass(frozen=True)
class CopyInput(RecordTransform):
    """Adds an input, `to`, with the value of the input `of`: its own chain then crops it, or picks a caption of it, by
    its own random numbers. So two views of a picture, or two captions of it, are two inputs.
    """

    of: str
    to: str

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        del rng
        return {**record, self.to: record.get(self.of)}

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        return (*before, self.to) if self.of in before and self.to not in before else before


@dataclass(frozen=True)
class PickTogether(RecordTransform):
    """Picks the items at one place of several inputs, lists (or dicts) of one length: the caption and the recording
    that belong together, say. The place is random in training, the first in evaluation.

    A missing input stays missing, and a single value is unchanged. An example whose inputs differ in length is bad.
    """

    random = True

    inputs: tuple[str, ...]

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        several = {name: items for name in self.inputs if (items := _items(record.get(name))) is not None}
        counts = {name: len(items) for name, items in several.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise BadExample(f"the record has {told}, and one of each is to be picked together", "unfit")
        count = next(iter(counts.values()), 1)
        if count == 0:
            raise BadExample(f"the record has no {' and no '.join(counts)} to pick", "empty")
        place = int(rng.integers(count)) if rng is not None and count > 1 else 0
        return {**record, **{name: items[place] for name, items in several.items()}}


def _items(value: Any) -> list[Any] | None:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else None
