"""The tokens that a model's decoder reads beside its text, from a user's inputs: the towers encode them."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.experiment.definition import Experiment
from mmjax.inference.inputs import Inputs, Row
from mmjax.models.layers.masks import TokensAndMask
from mmjax.objectives.caption import Caption
from mmjax.objectives.contract import ReadBeside, present
from mmjax.objectives.encoding import Encoding, Keys
from mmjax.objectives.readings import distinct_views


class ViewEncoder:
    """Encodes the inputs that a `Caption` objective reads.

    blank: `blank(modality)` is a row of zeros of that modality, for an input that isn't given.
    """

    def __init__(
        self,
        experiment: Experiment,
        variables: Mapping[str, Any],
        name: str,
        inputs: Inputs,
        blank: Callable[[str], Row],
    ):
        self.name, self.objective = name, cast(Caption, experiment.objectives[name])
        self._inputs, self._blank = inputs, blank
        # The objective's own are the decoder's, and the writer has them.
        params = {part: held for part, held in variables["params"].items() if not part.startswith("objectives_")}
        self._host_variables = {**variables, "params": params}
        pretrainer, fusions = experiment.pretrainer(), experiment.fusions

        def read(module: Any, batch: dict[str, jax.Array]) -> dict[str, TokensAndMask]:
            objective = module.objectives[name]
            views = distinct_views({name: ReadBeside(objective)}, fusions)
            rows = {"index": jnp.arange(len(next(iter(batch.values())))), **present(batch)}
            told = Encoding(module.towers, module.fusions, Keys(None, None), frozenset())
            return objective.read(told.views(views, rows, None), rows)

        self._encode = jax.jit(lambda variables, batch: nn.apply(lambda m: read(m, batch), pretrainer)(variables))

    @cached_property
    def _variables(self) -> Any:
        return jax.device_put(self._host_variables)

    def row(self, example: Mapping[str, Any], place: int | None) -> Row:
        """The arrays of an example's inputs, by name; what it lacks is zeros, and not valid.

        place: its number among several, for messages; None: it is alone. Raises UserError where one can't be used.
        """
        made: Row = {}
        for name in self.objective.reads:
            own = self._inputs.row(name, example[name], place) if name in example else self._blank(name)
            made |= own | {f"{name}_valid": np.asarray(name in example)}
        return made

    def __call__(self, rows: Sequence[Row]) -> dict[str, TokensAndMask]:
        """The tokens of each input and which are real, of rows that `row` made; none of what an example lacks."""
        if not self.objective.reads:
            return {}
        more = (1 << (len(rows) - 1).bit_length()) - len(rows)
        batch = {entry: np.stack([row[entry] for row in [*rows, *[rows[0]] * more]]) for entry in rows[0]}
        found = self._encode(self._variables, batch)
        return {name: (tokens[: len(rows)], real[: len(rows)]) for name, (tokens, real) in found.items()}
