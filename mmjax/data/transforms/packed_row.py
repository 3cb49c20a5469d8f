"""Rows of several short texts, each of which a model reads as if it stood alone."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.transforms.contract import Rng, Spec
from mmjax.data.transforms.text import Tokenize
from mmjax.data.transforms.values import Labelled, Masked
from mmjax.errors import UserError


class PackedTexts(NamedTuple):
    """The texts of a row of `Packed`, as its chain gives them, on the way to `ReadPacked`."""

    texts: tuple[Masked | Labelled, ...]


@dataclass(frozen=True)
class ReadPacked(Tokenize):
    """Gives the texts of a row of `Packed`, one behind the other, as int32 ids `[length]` and their mask, with three
    labels: `segments`, int32 `[length]`, the number of the text in the row, -1 at padding; `positions`, int32
    `[length]`, the token's place in its text, 0 at padding; and `loss`, bool `[length]`, as the texts' chain says, or
    else True at all tokens of a text but its first, which nothing is before.

    A string, of a user's, is encoded as `Tokenize` does, alone in its row.

    Raises UserError for texts that have other labels than `loss`, or don't fit.
    """

    def __call__(self, value: Any, rng: Rng) -> Labelled:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not isinstance(value, PackedTexts):
            value = PackedTexts((super().__call__(value, rng),))
        ids: list[int] = []
        segments = np.full(self.length, -1, np.int32)
        positions, loss = np.zeros(self.length, np.int32), np.zeros(self.length, bool)
        for number, text in enumerate(value.texts):
            own, told = text if isinstance(text, Labelled) else (text, {})
            if not isinstance(own, Masked) or set(told) - {"loss"}:
                raise UserError(
                    f"Packed(chain=...) gives texts with {', '.join(sorted(told)) or 'no mask'}, and in a row of "
                    "several there is room for `loss` alone: end its chain in Tokenize, or in TokenizeConversation "
                    "without slots"
                )
            count = int(own.mask.sum())
            place = slice(len(ids), len(ids) + count)
            if place.stop > self.length:
                raise UserError(f"a row of Packed is longer than ReadPacked(length={self.length}): make both the same")
            ids += own.values[:count].tolist()
            segments[place], positions[place] = number, np.arange(count)
            loss[place] = told["loss"][:count] if "loss" in told else True
            loss[place.start] = False
        filled = self._filled(ids)
        return Labelled(filled, {"segments": segments, "positions": positions, "loss": loss})

    def spec(self, before: Spec | None) -> Spec:
        kinds = {"segments": "int32", "positions": "int32", "loss": "bool"}
        return super().spec(before)._replace(labels=tuple((name, (self.length,), kind) for name, kind in kinds.items()))

    def _first_end(self, row: Any) -> int:
        return len(row)  # an end token ends one text of several
