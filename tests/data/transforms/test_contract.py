"""A field of one's own that is called as an attribute of its base has no value but the one that it is given."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from mmjax.data import RecordTransform, Source, Transform
from mmjax.errors import UserError
from mmjax.evaluate import Evaluator
from mmjax.evaluate.contract import check_evaluators


def test_a_field_without_a_value_must_be_given_though_its_base_has_one_of_that_name():
    @dataclass(frozen=True)
    class Mine(Evaluator):
        columns: tuple[str, ...]
        modality: str  # would come after a field with a default
        split: str = "test"
        same: ClassVar[str | None] = None

        def __call__(self, embedded: Any, embed_text: Any) -> dict[str, float]:
            return {}

    assert (Mine(("kind",), "image").columns, Mine(("kind",), "image").same) == (("kind",), None)
    with pytest.raises(TypeError, match=r"missing 2 required positional arguments: 'columns' and 'modality'"):
        Mine()  # pyright: ignore[reportCallIssue]

    @dataclass(frozen=True)
    class Drawn(Transform):
        random: bool  # pyright: ignore[reportIncompatibleVariableOverride]

    @dataclass(frozen=True)
    class Whole(RecordTransform):
        random: bool  # pyright: ignore[reportIncompatibleVariableOverride]

    for part in (Drawn, Whole):
        assert part(True).random
        with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'random'"):
            part()  # pyright: ignore[reportCallIssue]


def test_a_field_that_hides_a_method_is_refused():
    with pytest.raises(UserError, match=r"^Stored: its field 'places' hides a method of Source: call it otherwise"):

        class Stored(Source):
            places: str  # pyright: ignore[reportIncompatibleMethodOverride]


def test_names_without_values_in_a_class_that_is_no_dataclass_are_told():
    class Bare(Evaluator):
        columns: tuple[str, ...]

        def __call__(self, embedded: Any, embed_text: Any) -> dict[str, float]:
            return {}

    with pytest.raises(UserError, match=r"^Bare names 'columns' without a value, and is no dataclass: put @dataclass"):
        check_evaluators([Bare()])
