"""A language model of Hugging Face's as ours: an experiment without towers, whose one objective holds the decoder."""

from typing import Any, NamedTuple

import fiddle as fdl
import numpy as np

from mmjax.errors import UserError
from mmjax.interop.config_keys import Values
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.decoders.text import TextDecoder
from mmjax.objectives.caption import Caption

OBJECTIVE = "words"
HEAD = "lm_head.weight"


class Held(NamedTuple):
    """The decoder of a language model, and the path of its parameters."""

    decoder: TextDecoder
    path: str

    @property
    def layers(self) -> str:
        """The path of its stacked layers' parameters."""
        return f"{self.path}/layers/lower/layer_0"


def language_model(**fields: Any) -> Parts:
    """The parts of a language model, configs. fields: of its `TextDecoder`."""
    return Parts({}, {OBJECTIVE: fdl.Config(Caption, fdl.Config(TextDecoder, **fields))})


def held(built: Parts) -> Held:
    """The decoder of built parts. Raises ValueError or AttributeError where they have no objective with one."""
    ((name, objective),) = built.objectives.items()
    return Held(objective.decoder, f"params/objectives_{name}/decoder")


def tied(values: Values, default: bool) -> bool:
    """True if the last matrix is the table of token vectors. Raises UserError where a config.json says neither."""
    said = values.get("tie_word_embeddings", default)
    if not isinstance(said, bool):
        raise UserError(f"config.json: tie_word_embeddings={said!r} must be true or false")
    return said


def table_named(tensors: Arrays, table: str) -> Arrays:
    """The arrays with a tied table by its own name, where only the last matrix is in the file."""
    return {**tensors, table: tensors[HEAD]} if table not in tensors and HEAD in tensors else tensors


def whole_number(value: Any, key: str) -> int:
    """A count of config.json. Raises UserError where it is none."""
    if type(value) is not int or value < 1:
        raise UserError(f"config.json: {key}={value!r} must be a whole number, at least 1")
    return value


def turned(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows `[heads * K, ...]` of a query or key whose channels i and i + K/2 are turned together, with these beside
    each other, as ours are turned."""
    apart = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return apart.swapaxes(1, 2).reshape(rows.shape)


def turned_back(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `turned`."""
    beside = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return beside.swapaxes(1, 2).reshape(rows.shape)
