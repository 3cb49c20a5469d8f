"""Parts of an experiment, made from another project's configuration."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax.data.transforms.contract import Transform
from mmjax.experiment.graph import target
from mmjax.objectives.caption import Caption


class Parts(NamedTuple):
    """The parts of an experiment that one of their models has: towers, objectives and fusions, as configs, or built."""

    towers: dict[str, Any]
    objectives: dict[str, Any]
    fusions: Mapping[str, Any] = MappingProxyType({})


def text_reader(model: Any) -> Any:
    """The reader of a model's texts, with a `vocab` and a `length`: the text's tower, or else the decoder of an
    objective `Caption`. None where nothing reads any.

    model: what has towers and objectives, of configs or built: `Parts`, an experiment.
    """
    if "text" in model.towers:
        return model.towers["text"]
    kinds = [(o, target(o) if isinstance(o, fdl.Config) else type(o)) for o in model.objectives.values()]
    return next((o.decoder for o, kind in kinds if kind is Caption and o.text == "text"), None)


def graph(chain: Sequence[Transform]) -> tuple[fdl.Config, ...]:
    """The transforms, whose fields are plain or dataclasses, as configs of an experiment."""
    return tuple(_config(transform) for transform in chain)


def _config(value: Any) -> Any:
    if not dataclasses.is_dataclass(value):
        return value
    held = {field.name: _config(getattr(value, field.name)) for field in dataclasses.fields(value)}
    unset = {field.name for field in dataclasses.fields(value) if held[field.name] == field.default}
    return fdl.Config(type(value), **{name: item for name, item in held.items() if name not in unset})
