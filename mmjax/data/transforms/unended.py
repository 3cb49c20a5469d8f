"""Texts cut into ids as CLIPA has them (Li et al. 2023, arXiv:2305.07017): the end token takes room, and is replaced by
a blank.
"""

from dataclasses import dataclass

import numpy as np

from mmjax.data.transforms.contract import Rng
from mmjax.data.transforms.text import Tokenize
from mmjax.data.transforms.values import Cut, Masked, prefix_mask


@dataclass(frozen=True)
class TokenizeUnended(Tokenize):
    """Encodes like `Tokenize` with `eos=True`, and then replaces every end token by `blank`, also one that a text
    spells itself.

    open_clip's `strip_sep_token`, whose blank is 0.
    """

    blank: int = 0

    def __call__(self, value: str, rng: Rng) -> Masked:
        ids, mask = found = super().__call__(value, rng)
        ends = ids == self._model().eos
        words = np.flatnonzero(mask & ~ends)
        length = words[-1] + 1 if len(words) else 0
        ids, mask = np.where(ends, np.int32(self.blank), ids), prefix_mask(len(ids), length)
        return Cut(ids, mask, found.whole) if isinstance(found, Cut) else Masked(ids, mask)
