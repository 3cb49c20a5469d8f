"""Checks that an experiment's parts fit together: the data's output, the towers' input and the objectives' needs.

Each part checks its own fields, and declares its needs of the others (`BareTower.check_input`, `Demanding.check_parts`,
`check_ids` of a masking); here they are put together. The worst mismatch of two parts would be silent: an id
beyond the text tower's table gives NaN, and a step whose loss is NaN is skipped.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from mmjax.data.chains import chain_specs, untrained
from mmjax.data.pipeline import Mixture
from mmjax.data.tokenizers.contract import TokenizerSpec
from mmjax.data.transforms.contract import Spec
from mmjax.experiment.views import check_views, encoded_inputs
from mmjax.models.towers.bare import BareTower, Incoming
from mmjax.objectives.contract import parts
from mmjax.objectives.demands import Demanding
from mmjax.objectives.readings import trained_towers

Modules = Mapping[str, Any]


def idle(towers: Modules, objectives: Modules, frozen: Iterable[str]) -> tuple[str, ...]:
    """The modalities whose towers no objective reads, and which are all frozen: they are for evaluation (ImageBind's
    text tower). `frozen`: the optimiser's expressions.
    """
    read = trained_towers(objectives)
    wholly = [re.compile(expression) for expression in frozen]
    return tuple(m for m in towers if m not in read and any(e.match(f"towers_{m}/") for e in wholly))


def check_fit(
    towers: Modules,
    objectives: Modules,
    data: Mixture,
    idle: Iterable[str] = (),
    fusions: Modules = MappingProxyType({}),
    ema: float | None = None,
) -> None:
    """Raises UserError where parts don't fit; the message has both paths, with the value of each."""
    specs = chain_specs(data.transforms)
    check_views(towers, fusions, objectives, specs, idle, ema)
    tokenizers = untrained(data.transforms)
    inputs = {name: _incoming(spec, tokenizers.get(name)) for name, spec in specs.items()}
    for name, input in encoded_inputs(towers, objectives, specs):
        if isinstance(tower := towers[name], BareTower):
            tower.check_input(f"towers.{name}", inputs[input])
    for name, objective in objectives.items():
        path, views = f"objectives.{name}", [single for whole in objective.views() for single in parts(whole)]
        if isinstance(objective, Demanding):
            objective.check_parts(path, towers, inputs)
        for view in views:
            tower = towers[view.by]
            if view.masking is not None and isinstance(tower, BareTower):
                view.masking.check_ids(path, f"towers.{view.by}", inputs[view.input].pieces, tower.vocabulary)


def _incoming(spec: Spec, tokenizer: TokenizerSpec | None) -> Incoming:
    pieces = spec.pieces if tokenizer is None else tokenizer.vocab_size
    return Incoming(spec.shape, spec.dtype, tuple(label for label, *_ in spec.labels), spec.rate, pieces, spec.slots)
