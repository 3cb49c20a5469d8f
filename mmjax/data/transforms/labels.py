"""Labels as entries of a batch: the class of an example, its several classes, the answers of its annotators.

Each of these is the chain of a column of labels: `transforms={"answer": (Label(("no", "yes")),)}` gives the entries
`answer` and `answer_valid`. As in every chain, a label that is missing or bad is zeros with valid False: 0 is a class's
number as well, so whoever reads the entry reads `answer_valid` with it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int32

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.errors import UserError, nearest

NONE = -1  # TFDS and Hugging Face write this number where an example has no class
SOFT = (0.0, 0.3, 0.6, 0.9, 1.0)  # the target of an answer that none, one, two, three, four or more annotators give
HINTED = 5  # unknown labels for which the nearest class is looked up: the search takes milliseconds of a long list


class ClassNumbers:
    """The classes of a labels' transform: which number a label has, by the class's name or by its number itself.

    names: by number, or () where the `count` classes have no names. who: the transform, for messages.

    Raises UserError where the names are one text, or two are the same, or there are neither names nor a count, or both.
    """

    def __init__(self, who: str, names: Sequence[str], count: int | None = None):
        if isinstance(names, str) or not isinstance(names, tuple | list):
            raise UserError(f"{who}(classes={names!r:.60}): the classes are a tuple of names, such as ('no', 'yes')")
        if not names and count is None:
            raise UserError(
                f"{who}(classes=()): there are no classes: name them, or give a count where they have no names"
            )
        if names and count is not None:
            raise UserError(f"{who}(classes={tuple(names)!r:.60}, count={count!r}): say one of them, names or a count")
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise UserError(f"{who}(count={count!r}): the number of classes is a whole number from 1 on")
        if unfit := [name for name in names if not isinstance(name, str) or not name.strip()]:
            raise UserError(f"{who}(classes=...): {unfit[0]!r:.40} is no class's name, which is a text")
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            listed = ", ".join(map(repr, twice[:5]))
            raise UserError(f"{who}(classes=...): {listed} stand there more than once: leave one of each")
        self._who, self._names = who, tuple(names)
        self._places = {name: place for place, name in enumerate(names)}
        self._numerals = any(_is_numeral(name) for name in names)
        self._unknown = 0
        self.count = len(names) if count is None else count

    def check_separator(self, separator: str | None) -> None:
        """Raises UserError where a text between labels is empty, or a class's name holds it; None is no separator."""
        if separator is None:
            return
        if not separator:
            raise UserError(
                f"{self._who}(separator=''): name the text between labels, or None: a text is one label then"
            )
        if inside := [name for name in self._names if separator in name]:
            raise UserError(
                f"{self._who}(separator={separator!r}): the class {inside[0]!r:.40} holds it: name another, or None "
                "where the labels are lists"
            )

    def named(self, name: str) -> int | None:
        """The number of the class of that name; None where there is none."""
        return self._places.get(name)

    def number(self, label: Any) -> int | None:
        """The number of a label, from 0; None where it is missing.

        label: a class's name, or its number as an int, a float such as 3.0 (a table's, where one is missing), or text;
        a bool is the name "False" or "True". None, NaN, blank text and the number -1 are missing. Where a class's name
        is a numeral itself, a text is a name always.

        Raises:
            BadExample: it is no class.
            UserError: it is a number, and there are numerals among the names, by which it may be another class.
        """
        label = label.item() if getattr(label, "shape", None) == () else label
        if is_missing_label(label):
            return None
        if not isinstance(label, str | int | float):
            raise self._no_class(label)
        if isinstance(label, str | bool) and (place := self.named(str(label))) is not None:
            return place
        if label in (NONE, str(NONE)) and str(NONE) not in self._places:
            return None
        if isinstance(label, float) and math.isinf(label):
            raise BadExample(f"the label is {label}, and no class", "not_finite")
        if isinstance(label, str) and label.isdecimal() and not self._numerals:
            label = int(label)
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if not isinstance(label, int) or isinstance(label, bool):
            raise self._no_class(label)
        if self._numerals and (not 0 <= label < self.count or self._names[label] != str(label)):
            raise UserError(
                f"{self._who}: the label is the number {label}, and there are classes whose names are numerals, so it "
                "may be a class's name or its place among them: write the labels as texts in the data"
            )
        if not 0 <= label < self.count:
            raise BadExample(
                f"the label is {label}, and the {self.count} classes have the numbers 0 to {self.count - 1}", "unfit"
            )
        return label

    def _no_class(self, label: Any) -> BadExample:
        self._unknown += 1
        hint = nearest(str(label), self._names) if self._unknown <= HINTED else ""
        return BadExample(f"the label {label!r:.60} is none of the {self.count} classes{hint}", "unfit")


@dataclass(frozen=True)
class Label(Transform):
    """Turns a label into the number of its class, int32 `[]`: of its name, or of the number that it is.

    classes: the names, by number. count: instead of names, the number of classes: labels are then numbers from 0.
    `ClassNumbers.number` says which labels are read, and which are missing or bad: none becomes another class. A
    missing one isn't valid.

    Raises UserError for classes or a count that can't be.
    """

    classes: tuple[str, ...] = ()
    count: int | None = None

    def __post_init__(self) -> None:
        self._numbers  # noqa: B018 (the classes are checked)

    def __call__(self, value: Any, rng: Rng) -> Int32[np.ndarray, ""] | None:
        del rng
        number = self._numbers.number(value)
        return None if number is None else np.array(number, np.int32)

    def spec(self, before: Spec | None) -> Spec:
        return Spec((), "int32")

    @cached_property
    def _numbers(self) -> ClassNumbers:
        return ClassNumbers("Label", self.classes, self.count)


@dataclass(frozen=True)
class Labels(Transform):
    """Turns the labels of an example into float32 `[classes]`: 1 for each class that it has, else 0.

    The labels are a list, or a text with the `separator` between them (None: a text is one label); each is read as
    `Label` reads it. An empty list has no class, and is valid; a list of missing labels alone, None and blank text
    aren't. An example with a label that is no class is bad.

    Raises UserError for classes or a count that can't be, and for a class whose name holds the separator.
    """

    classes: tuple[str, ...] = ()
    count: int | None = None
    separator: str | None = ","

    def __post_init__(self) -> None:
        self._numbers.check_separator(self.separator)

    def __call__(self, value: Any, rng: Rng) -> Float32[np.ndarray, " classes"] | None:
        del rng
        if (items := _items(value, self.separator)) is None:
            return None
        found = [self._numbers.number(item) for item in items]
        if found and all(number is None for number in found):
            return None
        several = np.zeros(self._numbers.count, np.float32)
        several[[number for number in found if number is not None]] = 1
        return several

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self._numbers.count,), "float32")

    @cached_property
    def _numbers(self) -> ClassNumbers:
        return ClassNumbers("Labels", self.classes, self.count)


@dataclass(frozen=True)
class SoftAnswers(Transform):
    """Turns the answers of an example's annotators, ten of them in VQA, into soft targets, float32 `[classes]`.

    An answer's target is 0.3, 0.6, 0.9 or 1 where one, two, three, or more annotators give it: its accuracy by VQA's
    metric (Antol et al. 2015, arXiv:1505.00468). Answers are compared as they are written. Those that aren't among the
    classes count for none; an example of these alone is missing (`outside="missing"`), as ViLT trains without it (Kim
    et al. 2021, arXiv:2102.03334), or has zeros and is valid (`outside="keep"`). VQA's accuracy counts such examples,
    so it is computed from the column of answers, not from this entry.

    The answers are a list of texts, or a text with the `separator` between them (None: a text is one answer).

    Raises UserError for classes that can't be, and for a class that holds the separator.
    """

    classes: tuple[str, ...]
    separator: str | None = "|"
    outside: Literal["missing", "keep"] = "missing"

    def __post_init__(self) -> None:
        self._numbers.check_separator(self.separator)
        if self.outside not in ("missing", "keep"):
            raise UserError(f"SoftAnswers(outside={self.outside!r}): it is 'missing' or 'keep'")

    def __call__(self, value: Any, rng: Rng) -> Float32[np.ndarray, " classes"] | None:
        del rng
        answers = [item for item in _items(value, self.separator) or () if not is_missing_label(item)]
        if unfit := [answer for answer in answers if not isinstance(answer, str)]:
            raise BadExample(f"an answer is no text but {unfit[0]!r:.40}", "undecodable")
        targets = np.zeros(self._numbers.count, np.float32)
        for answer, times in Counter(answers).items():
            if (place := self._numbers.named(answer)) is not None:
                targets[place] = SOFT[min(times, len(SOFT) - 1)]
        return targets if targets.any() or (answers and self.outside == "keep") else None

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self._numbers.count,), "float32")

    @cached_property
    def _numbers(self) -> ClassNumbers:
        return ClassNumbers("SoftAnswers", self.classes)


def is_missing_label(label: Any) -> bool:
    """True for None, NaN and blank text."""
    if isinstance(label, str):
        return not label.strip()
    return label is None or (isinstance(label, float) and math.isnan(label))


def _items(value: Any, separator: str | None) -> list[Any] | None:
    """The labels of an example; None where they are missing."""
    if isinstance(value, str) and separator is not None:
        return [part.strip() for part in value.split(separator)]
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return list(value)
    return None if is_missing_label(value) else [value]


def _is_numeral(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
