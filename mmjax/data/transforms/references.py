"""All captions of an example at once, as ids: the references that a written caption is compared with in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.document import Document
from mmjax.data.transforms.text import PickCaption, Tokenize
from mmjax.data.transforms.text_input import TextInput
from mmjax.data.transforms.values import Labelled
from mmjax.errors import UserError


class CaptionList(Document):
    """The captions of one example on the way to `TokenizeReferences`: the steps between clean each of them."""

    def __init__(self, captions: Sequence[str], cleaning: tuple[Transform, ...] = ()):
        self._captions, self._cleaning = captions, cleaning

    @property
    def sentences(self) -> list[str]:
        """The captions that aren't empty, cleaned, in order."""
        return [caption for one in self._captions if (caption := self._cleaned(one)).strip()]

    def other(self, rng: np.random.Generator) -> Document:
        """Always raises UserError: captions belong to no document."""
        del rng
        raise UserError("captions belong to no document, and have no other beside them: use TokenizeReferences")

    def mapped(self, transform: Transform) -> "CaptionList":
        """The captions, each with one more step applied, as in evaluation."""
        return CaptionList(self._captions, (*self._cleaning, transform))


@dataclass(frozen=True)
class KeepCaptions(Transform):
    """Takes all captions of an example, in their order, where `PickCaption` takes one; for `TokenizeReferences`.

    Empty ones are left out; an example without others is bad.
    """

    picks = True

    def __call__(self, value: Any, rng: Rng) -> CaptionList:
        del rng
        if not (captions := self.every(value)):
            raise BadExample("the captions are empty", "empty")
        return CaptionList(captions)

    def every(self, value: Any) -> list[str]:
        return PickCaption().every(value)

    def spec(self, before: Spec | None) -> None:
        return None

    def by_hand(self, upright: bool) -> None:
        return None


@dataclass(frozen=True)
class TokenizeReferences(Tokenize):
    """Encodes the captions of an example, each as `Tokenize` does, as int32 ids `[most, length]`, with the label
    `lengths`, int32 `[most]`: the number of ids of each, those that begin and end it among them, and 0 where there are
    no more captions.

    most: the number of captions that are kept, the first ones. A string is a list of one.

    Raises UserError where nothing would tell where a caption ends, or none is kept, and as `Tokenize` does.
    """

    bos: bool = True
    most: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.bos and self.eos):
            raise UserError(
                f"TokenizeReferences(bos={self.bos}, eos={self.eos}): what is written begins with the id that begins a "
                "reference, and ends with the one that ends it: set both to True"
            )
        if self.most < 1 or self.length < 3:
            raise UserError(
                f"TokenizeReferences(length={self.length}, most={self.most}): a caption has 3 ids at least, and there "
                "is one at least"
            )

    def __call__(self, value: Any, rng: Rng) -> Labelled:  # pyright: ignore[reportIncompatibleMethodOverride]
        captions = value.sentences if isinstance(value, CaptionList) else [value]
        if not captions:
            raise BadExample("the captions are empty", "empty")
        each = [super(TokenizeReferences, self).__call__(caption, rng) for caption in captions[: self.most]]
        filling = np.full_like(each[0].values, self._model().pad if self.pad is None else self.pad)
        lacking = self.most - len(each)
        ids = np.stack([*(one.values for one in each), *[filling] * lacking])
        lengths = [int(one.mask.sum()) for one in each] + [0] * lacking
        return Labelled(ids, {"lengths": np.array(lengths, np.int32)})

    def spec(self, before: Spec | None) -> Spec:
        label = ("lengths", (self.most,), "int32")
        return Spec((self.most, self.length), "int32", labels=(label,), kind=TextInput)
