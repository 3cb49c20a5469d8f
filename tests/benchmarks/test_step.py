"""The benchmark of a step measures what it says: the model's FLOPs, and a step that trains."""

import pytest

from tests.benchmarks.step import judged, measure
from tests.benchmarks.step_sides import SIZES, model_flops


@pytest.mark.parametrize(("how", "patches"), [("", 4), ("remat", 4), ("half", 2)])
def test_flops_are_those_of_the_formula(how, patches):
    """Of a block: 12 d^2 a token, 2 n^2 d for attention; each product twice more backward, but for the pixels' own."""
    size = SIZES["toy"]
    d, tokens, words = size.width, patches + 1, size.length
    blocks = sum(size.depth * (12 * n * d * d + 2 * n * n * d) for n in (tokens, words))
    stem = patches * size.patch**2 * 3 * d
    heads = 2 * d * size.embed_dim
    pairs = size.batch**2 * size.embed_dim
    assert model_flops(size, how) == 2 * (size.batch * (3 * blocks + 2 * stem + 3 * heads) + 3 * pairs)


@pytest.mark.slow  # three processes that compile; what they count and say of themselves is tested beside this
def test_sides_take_steps_in_turn_and_are_compared():
    rows = judged(measure("toy", ("mmjax", "mmjax remat", "bare products"), rounds=2, apart=False), "toy")
    ours, again, bare = rows
    assert [row["by"] for row in rows] == ["mmjax", "mmjax remat", "bare products"]
    assert len(ours["losses"]) == 1 + 2 * 3  # one to compile, and one of each turn to warm up
    assert ours["rounds"] == 4
    assert ours["losses"][-1] < ours["losses"][0]
    assert again["losses"] == pytest.approx(ours["losses"], abs=1e-3)
    assert ours["parameters"] == 262_657
    assert ours["by_mmjax"] == bare["by_bare"] == 1.0
    assert ours["examples_per_second"] == pytest.approx(8 / ours["seconds"], rel=0.01)
    assert again["model_tflop"] == ours["model_tflop"]


def test_a_peak_that_was_measured_in_a_bad_moment_is_no_less_than_the_bare_products():
    rows: list[dict[str, object]] = [
        {"by": by, "seconds": x, "cpu_seconds": x} for by, x in (("mmjax", 4.0), ("bare products", 2.0))
    ]
    known = {"": 8e9, "half": 8e9, "peak": 1e9, "device": "cpu"}
    assert [row["mfu"] for row in judged(rows, "toy", known)] == [0.5, 1.0]
    assert [row["mfu"] for row in judged(rows, "toy", known | {"peak": 8e9})] == [0.25, 0.5]


def test_a_side_that_fails_is_said_to():
    (row,) = judged(measure("toy", ("nobody",), rounds=1, apart=True), "toy")
    assert "nobody" in row["error"]
    assert "seconds" not in row
