"""A family of Hugging Face models: the contract of its file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.interop.config_keys import Values
from mmjax.interop.parameter_rules import Rule
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays


def _as_they_are(tensors: Arrays) -> Arrays:
    return tensors


def _nothing(name: str) -> bool:
    return False


@dataclass(frozen=True)
class Family:
    """One of their classes of models.

    model_type, architecture: as in config.json.
    parts: what config.json describes.  describe: the inverse, of built parts, with all that `parts` reads.
    rules: of built parts, the table of parameters.
    renamed: brings older names to those of the table.
    restored: the last thing before arrays are written; may change config.json's values too.
    ignored: names of arrays that hold nothing to be kept.
    check: raises UserError where arrays, that have no place here because they are fixed, aren't what they are here.
    extras: names of arrays that are kept beside our model (`Bundle.extras`), for it has no place for them.
    told: puts what only the tokenizer says, ids of special pieces, into the parts (configs).
    text_config: where config.json describes the text tower: under this key, or "" for itself; None: there is none.
    finds_end: whether the text tower looks for the end token among the ids.
    notes: lines to be said to whoever reads a model: what of its inputs isn't as it is there.
    squared: whether pictures that keep their shape there are scaled to squares here, of the tower's size.
    writes: whether its texts are a decoder's, whose tokenizer is what its tokenizer.json says, whatever its class.
    placed: of a decoder with pictures' tokens within its text, the fields of the `TokenizeConversation` that cuts its
        texts, by config.json: where they stand, and the id that stands there.
    answers: the input whose texts a decoder writes beside those that the text tower reads; None: there are none.
    frame: config.json's keys of the ids that a decoder's texts (`answers`, where there are such) begin and end by,
        whatever its tokenizer puts around them; None: the tokenizer says it.
    prefixed: whether a decoder's texts have a prefix that ends in a line break, and whose words see each other.
    tagged: whether each word of a text has a tag, of the classes that config.json names.
    positions_at: where their model brings an image tower's learned positions to the size of the pictures as it runs:
        how it does that, from the grid they are kept for to another one.
    """

    model_type: str
    architecture: str
    parts: Callable[[Values], Parts]
    describe: Callable[[Parts], dict[str, Any]]
    rules: Callable[[Parts], list[Rule]]
    renamed: Callable[[Arrays], Arrays] = _as_they_are
    restored: Callable[[Arrays, dict[str, Any]], Arrays] = lambda tensors, config: tensors
    ignored: Callable[[str], bool] = _nothing
    check: Callable[[Arrays, str], None] = lambda tensors, where: None
    extras: tuple[str, ...] = ()
    told: Callable[[Parts, Tokenizer], None] = lambda parts, tokenizer: None
    text_config: str | None = None
    finds_end: bool = False
    notes: tuple[str, ...] = ()
    squared: bool = False
    writes: bool = False
    placed: Callable[[Values], dict[str, Any]] | None = None
    answers: str | None = None
    frame: tuple[str, str] | None = None
    prefixed: bool = False
    tagged: bool = False
    positions_at: Callable[[np.ndarray, tuple[int, int], tuple[int, int]], np.ndarray] | None = None
