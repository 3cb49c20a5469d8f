"""Turns a user's inputs into rows of a batch, by the kind of each modality's chain (`Spec.kind`)."""

from collections.abc import Iterable
from typing import Any

from mmjax.data.chains import Chains
from mmjax.data.transforms.input import Input
from mmjax.data.transforms.input import Row as Row


class Inputs:
    """Converts inputs of each modality into rows of a batch.

    upright: False reads pictures by the chain's own setting. Warns once about text that is cut off, and sound that is
    clipped.
    """

    def __init__(self, chains: Chains, upright: bool = True):
        self.specs, self.upright = chains.specs, upright
        self.of: dict[str, Input] = {
            modality: self.specs[modality].kind(modality, chain, self.specs[modality], upright)
            for modality, chain in chains.transforms.items()
        }

    def listed(self, modality: str, value: Any) -> tuple[Iterable[Any], bool]:
        """The inputs one by one, and whether `value` is a single one.

        Raises:
            UserError: it is neither an input nor several.
        """
        return self.of[modality].listed(value)

    def row(self, modality: str, value: Any, place: int | None = None) -> Row:
        """The arrays of one input, by the batch's names: `image`, or `text` and `text_mask`.

        place: its number among several, for messages.

        Raises:
            UserError: it can't be used; the message says which one it is.
        """
        return self.of[modality].row(value, place)
