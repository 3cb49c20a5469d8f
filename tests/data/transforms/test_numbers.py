"""Columns of numbers: what is read, what is missing and what is bad."""

import math
from typing import Any

import numpy as np
import pytest

from mmjax.data import BadExample
from mmjax.data.transforms.numbers import Numbers
from mmjax.errors import UserError


@pytest.mark.parametrize("value", [2, 2.0, "2", " 2.0 ", np.float32(2), np.int64(2), [2], np.array([2.0])])
def test_one_number_is_read_however_it_is_written(value: Any) -> None:
    found = Numbers()(value, None)
    assert found is not None
    assert found.dtype == np.float32
    assert found.tolist() == [2.0]


def test_several_are_a_list() -> None:
    found = Numbers(3)((1, "-2.5", 1e3), None)
    assert found is not None
    assert found.tolist() == [1.0, -2.5, 1000.0]
    for text in ("1 -2.5 1e3", "1, -2.5,1e3"):
        assert np.array_equal(Numbers(3)(text, None), found)  # pyright: ignore
    spec = Numbers(3).spec(None)
    assert (spec.shape, spec.dtype) == ((3,), "float32")


@pytest.mark.parametrize("value", [None, "", " ", math.nan, np.float32("nan"), [None], "nan"])
def test_what_is_missing_is_not_valid(value: Any) -> None:
    assert Numbers()(value, None) is None


def test_a_list_with_one_missing_is_missing() -> None:
    assert Numbers(2)([1.0, None], None) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [("two", "'two' is no number"), (math.inf, "no finite number"), (1e39, "no finite number"), ([1, 2], "2 numbers")],
)
def test_what_is_no_number_is_bad(value: Any, message: str) -> None:
    with pytest.raises(BadExample, match=message):
        Numbers()(value, None)


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"Numbers\(count=0\)"):
        Numbers(0)
