"""Maps of what the words of a user's examples look at, by the fusion of a model (`Model.explain`)."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmjax.data.chains import Chains
from mmjax.data.transforms.input import Row
from mmjax.errors import UserError, unknown
from mmjax.evaluate.attention_maps import AttentionMaps, WordMaps
from mmjax.objectives.pretrainer import Pretrainer


class Explainer:
    """Follows the attention of a model's fusions; compiled once for each number of examples."""

    def __init__(self, pretrainer: Pretrainer, chains: Chains, variables: Mapping[str, Any]):
        self._maps, self._chains, self._variables = AttentionMaps(pretrainer, chains), chains, variables
        self._compute = jax.jit(self._maps.matrix, static_argnames=("objective", "rule"))

    def __call__(self, arrays: Row, objective: str | None, rule: str) -> WordMaps | list[WordMaps]:
        """The maps of each example, or of a single one. arrays: of `Model.preprocess`.

        Raises:
            UserError: there is no such objective or rule, an input is lacking or isn't read, or their numbers differ.
        """
        name = self._maps.chosen(objective, rule, "explain()")
        read, specs = self._maps.inputs(name), self._chains.specs
        given = [each for each in specs if each in arrays]
        for each in given:
            if each not in read:
                raise UserError(unknown("explain() was given", each, read, f"inputs that {name!r} reads"))
        if lacking := [each for each in read if each not in given]:
            raise UserError(f"explain() needs {' and '.join(f'{n}=...' for n in read)}; {lacking[0]} isn't given")
        alone = {each: arrays[each].ndim == len(specs[each].shape) for each in given}
        counts = {each: 1 if alone[each] else len(arrays[each]) for each in given}
        if len(set(counts.values())) > 1 or len(set(alone.values())) > 1 or 0 in counts.values():
            raise UserError(
                "explain() reads the inputs of each example together, and was given "
                f"{', '.join(f'{count} of {each}' for each, count in counts.items())}: give as many of each"
            )
        single = all(alone.values())
        batch = {entry: array[None] if single else array for entry, array in arrays.items()}
        count = next(iter(counts.values()))
        batch |= {f"{each}_valid": np.ones(count, bool) for each in given}
        matrix = jax.device_get(self._compute(self._variables, batch, objective=name, rule=rule))
        found = self._maps.of_words(matrix, batch, name)
        return found[0] if single else found
