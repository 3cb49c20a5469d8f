"""Where charts put things."""

import json
import re
from html import unescape

import numpy as np
import pytest

from mmjax.evaluate.report.charts import (
    POINTS,
    AxisLabel,
    Line,
    Point,
    colour,
    heat_map,
    line_chart,
    plain_number,
    plane,
    ticks,
)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.93, 0.97), (3.2, 3.21), (0, 0.00012), (5, 5), (0, 0), (1e6, 3e7)]
)
def test_ticks_are_few_and_round_and_hold_the_values(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert found[0] <= low + 1e-12
    assert found[-1] >= high - 1e-12
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0])
    assert float(f"{steps[0]:.0e}") == pytest.approx(steps[0], rel=0.3)


def test_long_lines_are_thinned_to_means():
    chart = line_chart("loss", [Line("loss", range(1, 10_001), [3.0] * 10_000, 0)], unit="nats")
    (line,) = json.loads(unescape(re.findall(r'data-lines="([^"]*)"', chart)[0]))
    assert len(line["points"]) == POINTS
    assert line["points"][-1][0] == 10_000
    assert {value for _, value, *_ in line["points"]} == {3.0}


def test_places_of_a_line_are_in_proportion():
    chart = line_chart("share", [Line("a", [0, 50, 100], [0.0, 0.5, 1.0], 0)], unit="", low=0.0, high=1.0)
    ((a, b, c),) = [
        [p[2:] for p in each["points"]] for each in json.loads(unescape(re.findall(r'data-lines="([^"]*)"', chart)[0]))
    ]
    assert b == pytest.approx([(a[0] + c[0]) / 2, (a[1] + c[1]) / 2])
    assert a[0] < c[0]
    assert a[1] > c[1]  # up is less


def texts(chart: str) -> list[str]:
    """What stands at the axes."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart)


@pytest.mark.parametrize(
    ("last", "marks"), [(1, "0 1"), (2, "0 1 2"), (12, "0 5 10"), (10_000, "0 2,000 4,000 6,000 8,000 10,000")]
)
def test_there_are_no_steps_between_two_steps(last, marks):
    """Of a short run half a step would be called by a whole one's name."""
    chart = line_chart("loss", [Line("loss", [last], [2.0], 0)], unit="", low=0.0, high=8.0)
    assert " ".join(texts(chart)).partition(" training step")[0].endswith(f"0 2 4 6 8 {marks}")


@pytest.mark.parametrize("values", [[0.0, 5e-4], [0.0, 3e-6], [0.0, 1.2e6], [-1e6, 0.0], [2.0], [0.0]])
def test_numbers_at_the_axes_have_room(values):
    """A phone's letters are large: 10 units of the drawing a digit."""
    chart = line_chart("lr", [Line("lr", range(9_999, 9_999 + len(values)), values, 0)], unit="")
    for place, text in re.findall(r'<text x="([\d.]+)"[^>]*text-anchor="end"[^>]*>([^<]*)<', chart):
        assert float(place) >= 10.2 * len(text)
    for place, text in re.findall(
        r'<text(?: class="between")? x="([\d.]+)"[^>]*text-anchor="middle"[^>]*>([\d,]+)<', chart
    ):
        assert float(place) + 5.1 * len(text) <= 520


def test_small_values_are_told_under_the_pointer():
    chart = line_chart("lr", [Line("lr", [1, 2], [2.5e-7, 1 / 3], 0)], unit="")
    (line,) = json.loads(unescape(re.findall(r'data-lines="([^"]*)"', chart)[0]))
    assert [value for _, value, *_ in line["points"]] == [2.5e-7, 0.333333]


def test_numbers_stay_short():
    assert [plain_number(v) for v in (0.0005, 1_234.0, 9_999_999.0, 1e30)] == ["0.0005", "1,234", "9,999,999", "1e+30"]


def test_a_heat_map_has_the_pairs_on_its_diagonal():
    values = np.array([[0.9, -0.2], [np.nan, 0.5]])
    names = [AxisLabel("<a>"), AxisLabel("b")]
    made = heat_map(values, names, names, row_name="caption", column_name="sound")
    tips = [unescape(tip) for tip in re.findall(r'data-tip="([^"]*)"', made)]
    assert tips == [
        "<a> × <a>: 0.900 (the right pair)",
        "<a> × b: -0.200",
        "b × <a>: nan",
        "b × b: 0.500 (the right pair)",
    ]
    fills = re.findall(r'<rect fill="([^"]*)"', made)
    assert fills == [colour(1.0), colour(0.0), "none", colour(0.7 / 1.1)]
    assert made.count('class="right"') == 2
    assert "right pairs 0.70 on average, others -0.20" in made


def test_colours_get_lighter():
    channels = [sum(int(colour(k / 50)[i : i + 2], 16) for i in (1, 3)) for k in range(51)]
    assert channels == sorted(channels)
    assert colour(-1) == colour(0)
    assert colour(2) == colour(1)


def test_a_plane_keeps_proportions():
    points = [Point(0, 0, 0, -1, "a"), Point(10, 0, 1, 0, "b"), Point(0, 1, 2, 1, "c", "row-3")]
    made = plane(points, title="map", x_name="x", y_name="y", class_="plain")
    a, b, c = (np.array([float(x), float(y)]) for x, y in re.findall(r'translate\(([\d.-]+) ([\d.-]+)\)" class', made))
    assert np.linalg.norm(b - a) == pytest.approx(10 * np.linalg.norm(c - a), rel=0.01)
    assert c[1] < a[1]  # up is less
    assert 'data-row="row-3"' in made
