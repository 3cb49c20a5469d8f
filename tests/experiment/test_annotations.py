from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from mmjax.experiment.annotations import Clash, converted, describe_type, item_hint


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (3, int | float, 3),
        (3, float | int, 3),
        (None, float | None, None),
        (2, float | None, 2.0),
        ("a", Literal["a", "b"], "a"),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        ((1,), list[int], [1]),
        (["a"], Sequence[str], ("a",)),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        (1.5, float | Callable[[int], float], 1.5),
        ("x", Any, "x"),
    ],
)
def test_fitting_values_are_converted(value, hint, wanted):
    got = converted(value, hint)
    assert got == wanted
    assert type(got) is type(wanted)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("3", int),
        (3.0, int),
        (True, int),
        (1, bool),
        (True, float),
        (None, int),
        ("c", Literal["a", "b"]),
        ((1, 2, 3), tuple[int, int]),
        ((1, "a"), tuple[int, ...]),
        ("ab", tuple[str, ...]),
        ({"a": "b"}, dict[str, float]),
        ("print", Callable[[int], float]),
    ],
)
def test_other_values_clash(value, hint):
    with pytest.raises(Clash):
        converted(value, hint)


def test_the_type_of_items():
    assert item_hint(dict[str, int]) is int
    assert item_hint(tuple[int, ...], 5) is int
    assert item_hint(tuple[int, str], 1) is str
    assert item_hint(list[float] | None) is float
    assert item_hint(int) is Any


def test_types_in_words():
    assert describe_type(int) == "an int"
    assert describe_type(float | None) == "a float or None"
    assert describe_type(Literal["a", "b"]) == "one of 'a', 'b'"
    assert describe_type(bool) == "a bool (True or False)"
