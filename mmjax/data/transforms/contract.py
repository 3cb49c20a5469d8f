"""The contract of transforms."""

import inspect
from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmjax.data.transforms.input import Input
from mmjax.errors import UserError

Rng = np.random.Generator | None
VARIES = -1  # in a shape: an axis whose length differs from example to example


def require_own_fields(cls: type, base: type) -> None:
    """A field that a class names without a value must be given, though `base` has an attribute of that name: a
    dataclass would take that for its default. For `__init_subclass__`.

    Raises UserError where `base` has a method of that name.
    """
    for name, annotation in inspect.get_annotations(cls).items():
        if name in vars(cls) or not hasattr(base, name) or "ClassVar" in str(annotation):
            continue
        if callable(getattr(base, name)):
            raise UserError(f"{cls.__name__}: its field {name!r} hides a method of {base.__name__}: call it otherwise")
        setattr(cls, name, field())


class Spec(NamedTuple):
    """The array of one example of a modality: `shape`, `dtype`, and whether it has a bool mask over its first axis.

    labels: further arrays of the example, (name, shape, dtype) each; in a batch they are `<modality>_<name>`.
    kind: the class of inputs: pictures, texts, sounds, or just arrays (`Input`).
    rate: of sounds, the samples in a second, where the chain fixes it.
    pieces: of codes, how many different ones there are; 0: it isn't known.
    slots: of texts with places for others' tokens, each other's name and number of tokens, in the order of counting.
    """

    shape: tuple[int, ...]
    dtype: str
    masked: bool = False
    labels: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    kind: type[Input] = Input
    rate: int | None = None
    pieces: int = 0
    slots: tuple[tuple[str, int], ...] = ()


class Transform:
    """One step of a modality's chain.

    random: whether it draws from `rng`.
    picks: whether it takes one of several, a caption of five say.
    in_parts: whether it reads a file in parts: at the begin of a chain it gets the file's path instead of its bytes.
    """

    random: ClassVar[bool] = False
    picks: ClassVar[bool] = False
    in_parts: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        require_own_fields(cls, Transform)

    def __call__(self, value: Any, rng: Rng) -> Any:
        """Returns the transformed value. Raises `BadExample` where the value can't be used."""
        raise NotImplementedError

    def spec(self, before: Spec | None) -> Spec | None:
        """The result's shape and dtype given the input's; None where it varies. Default: the input's."""
        return before

    def every(self, value: Any) -> list[Any]:
        """All results that a value may have, for callers that need all captions of an example. Default: that of
        evaluation.
        """
        return [self(value, None)]

    def vocabulary(self) -> Any:
        """The tokenizer of a step that cuts texts into ids, or its description where it has no model yet; None for
        other steps.
        """
        return None

    def with_tokenizer(self, tokenizer: Any) -> "Transform":
        """The step with that tokenizer, which has its model, in the place of its description."""
        raise NotImplementedError

    def by_hand(self, upright: bool) -> "Transform | None":
        """The step for a single input that a user gives; None: it is left out. Default: unchanged.

        upright: whether pictures are turned as their EXIF orientation says.
        """
        del upright
        return self


class RecordTransform:
    """A step on the whole record of an example, before the chains read their inputs in it. `random` says whether it
    draws from `rng`, a stream apart from all chains.
    """

    random: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        require_own_fields(cls, RecordTransform)

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        """Returns the record that the chains read: a chain `caption_2` reads the entry `caption_2`.

        `record` is a copy of the source's record, by column: `id`, captions, and pictures and sounds as they are stored
        (bytes, or a `File` to be read). An entry may be None. In evaluation `rng` is None. Raises `BadExample` where
        the example can't be used: all its inputs are then bad.
        """
        raise NotImplementedError

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        """The columns of a source's records afterwards, added ones included. Default: unchanged."""
        return before
