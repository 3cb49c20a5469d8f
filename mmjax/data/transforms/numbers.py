"""Numbers of a column as an entry of the batch: what an example measures, for regression."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.labels import is_missing_label
from mmjax.errors import UserError


@dataclass(frozen=True)
class Numbers(Transform):
    """Turns a number, or a list of `count`, into float32 `[count]`.

    A number may be written as text, several with a comma or white space between. None, NaN, blank text, and a list with
    one of these aren't valid; infinity, a text that is no number, and a list of another length are bad.

    Raises UserError for a count below 1.
    """

    count: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise UserError(f"Numbers(count={self.count!r}): the number of numbers is a whole number from 1 on")

    def __call__(self, value: Any, rng: Rng) -> Float32[np.ndarray, " {self.count}"] | None:
        del rng
        value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        if is_missing_label(value):
            return None
        items = value if isinstance(value, list | tuple) else [value]
        if isinstance(value, str):
            items = value.replace(",", " ").split()
        if len(items) != self.count:
            raise BadExample(f"there are {len(items)} numbers in {value!r:.60}, and not {self.count}", "unfit")
        numbers = [_number(item) for item in items]
        return None if any(map(math.isnan, numbers)) else np.array(numbers, np.float32)

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self.count,), "float32")


def _number(item: Any) -> float:
    """The number; NaN where it is missing."""
    if is_missing_label(item):
        return math.nan
    try:
        number = float(item)
    except (TypeError, ValueError):
        raise BadExample(f"{item!r:.40} is no number", "unfit") from None
    if math.isinf(number) or abs(number) > float(np.finfo(np.float32).max):
        raise BadExample(f"{item!r:.40} is no finite number in float32", "not_finite")
    return number
