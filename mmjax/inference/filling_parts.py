"""The parts that filling a mask by any objective has in common: checks, cleaning, and the compiled programs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from mmjax.data.bad_example import BadExample
from mmjax.errors import UserError, unknown
from mmjax.inference.row_embedder import RowEmbedder


class Programs:
    """Computes something of rows with the bound pretrainer; each program is compiled at its first use."""

    def __init__(self, experiment: Any, variables: dict[str, Any]):
        self._experiment, self._variables = experiment, variables
        self._computed: dict[str, RowEmbedder] = {}

    def of(self, key: str, compute: Callable[[Any, dict[str, jax.Array]], jax.Array]) -> RowEmbedder:
        """The program of that key; `compute(pretrainer, batch)` gives an array `[B, ...]`."""
        if key not in self._computed:
            pretrainer = self._experiment.pretrainer()

            def applied(variables: dict[str, Any], batch: dict[str, jax.Array]) -> jax.Array:
                return nn.apply(lambda module: compute(module, batch), pretrainer)(variables)

            self._computed[key] = RowEmbedder(pretrainer, self._variables, applied)
        return self._computed[key]


def check_read_beside(name: str, given: Mapping[str, Any], read: Sequence[str]) -> None:
    """Raises UserError where an input is given that the objective of that name doesn't read."""
    for one in given:
        if one not in read:
            raise UserError(unknown("fill() was given", one, read, f"inputs that {name!r} reads beside the prompt"))


def check_room(count: int, length: int, modality: str, heard: int = 0) -> None:
    """Raises UserError where a prompt has more tokens than the model reads; heard: how many are of a sound."""
    if count > length:
        sound = f", {heard} of them for the sound" if heard else ""
        raise UserError(f"fill(): the prompt has {count} tokens{sound}, and {modality!r} takes {length}: shorten it")


def cleaned_part(text: str, cleaning: Sequence[Any]) -> str:
    """A part of the text after the steps before the tokenizer; none of them sees an empty one."""
    for step in cleaning:
        if not text:
            return text
        try:
            text = step(text, None)
        except BadExample as reason:
            raise UserError(f"fill(): {text!r:.60}: {reason}") from reason
    return text
