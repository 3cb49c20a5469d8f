"""Charts as SVG: lines over steps, a heat map, and points on a plane. Colours are classes of the page's style."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mmjax.evaluate.report.markup import Markup, short, tag

COLOURS = 8  # series with a colour of their own in the style, which the colour-blind can distinguish too
POINTS = 300  # points of a line
# Cividis (Nuñez et al. 2018), designed for colour-blind readers too; from low to high.
CIVIDIS = ((0, 34, 78), (18, 53, 112), (59, 73, 108), (87, 93, 109), (112, 113, 115),
           (138, 134, 120), (165, 156, 116), (195, 179, 105), (225, 204, 85), (254, 232, 56))  # fmt: skip
DASHES = ("", "6 3", "2 3", "8 3 2 3")
DIGIT = 10.2  # width of the widest digit as a phone shows it (DejaVu Sans, 16 px): the style makes letters large there


@dataclass(frozen=True)
class Line:
    """A series over steps. colour: an index of the page's colours. dash: an index of DASHES."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]
    colour: int
    dash: int = 0


@dataclass(frozen=True)
class AxisLabel:
    """The label of a row or a column: text, or a picture."""

    text: str
    picture: str | None = None


@dataclass(frozen=True)
class Point:
    """A point on a plane. kind: an index of shape and colour. label: an index of another colour, -1 grey. tip: its
    tooltip. row: the example shown with it.
    """

    x: float
    y: float
    kind: int
    label: int
    tip: str
    row: str = ""


def line_chart(
    title: str, series: Sequence[Line], *, unit: str, low: float | None = None, high: float | None = None
) -> Markup:
    """A chart of lines over training steps, with a legend. low, high: the limits of the axis, default those of the
    values.
    """
    width, height, top, bottom = 520, 250, 12, 40
    every = [value for line in series for value in line.values]
    last = max(step for line in series for step in line.steps)
    marks = ticks(min(every) if low is None else low, max(every) if high is None else high)
    floor, ceiling = (marks[0] if low is None else low), (marks[-1] if high is None else high)
    marks = [mark for mark in marks if floor <= mark <= ceiling]
    steps = [mark for mark in ticks(0, last) if mark <= last and mark == int(mark)]  # steps are whole numbers
    # Numbers fit on the smallest screen: with the first digit cut off, a number would be misread.
    left = max(52, math.ceil(10 + DIGIT * max(len(plain_number(mark)) for mark in marks)))
    widest = DIGIT * len(f"{last:,.0f}")
    right = max(14, math.ceil(widest / 2 + 2))
    crowded = (len(steps) - 1) * (widest + 8) > width - left - right

    def x(step: float) -> float:
        return left + (width - left - right) * step / max(last, 1)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - floor) / (ceiling - floor))

    parts: list[Markup] = []
    for mark in marks:
        parts.append(tag("line", x1=left, x2=width - right, y1=y(mark), y2=y(mark), class_="grid"))
        parts.append(tag("text", plain_number(mark), x=left - 6, y=y(mark) + 4, text_anchor="end"))
    for i, mark in enumerate(steps):
        place = {"x": x(mark), "y": height - bottom + 16, "text_anchor": "middle"}
        parts.append(tag("text", f"{mark:,.0f}", class_="between" if crowded and i % 2 else None, **place))
    parts.append(tag("line", x1=left, x2=width - right, y1=height - bottom, y2=height - bottom, class_="axis"))
    parts.append(tag("text", "training step", x=(left + width - right) / 2, y=height - 6, text_anchor="middle"))
    data = []
    for line in series:
        pairs = _thinned(list(zip(line.steps, line.values, strict=True)))
        places = [(x(step), y(value)) for step, value in pairs]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(
            tag("polyline", points=path, class_=f"line c{line.colour}", stroke_dasharray=DASHES[line.dash] or None)
        )
        if len(places) <= 20:
            parts += [tag("circle", cx=a, cy=b, r=2.5, class_=f"fill c{line.colour}") for a, b in places]
        said = [float(f"{value:.6g}") for _, value in pairs]
        told = zip(pairs, said, places, strict=True)
        data.append({"name": line.name, "points": [[s, v, round(a, 1), round(b, 1)] for (s, _), v, (a, b) in told]})
    drawing = tag(
        "svg",
        tag("title", f"{title}: {', '.join(_ends(line) for line in series)}"),
        parts,
        tag("line", class_="cursor", x1=0, x2=0, y1=top, y2=height - bottom),
        viewBox=f"0 0 {width} {height}",
        role="img",
        class_="chart",
        data_lines=json.dumps(data),
    )
    legend = [tag("li", _swatch(line), " ", line.name) for line in series] if len(series) > 1 else []
    heading = tag("figcaption", tag("strong", title), f", {unit}" if unit else "")
    return tag("figure", heading, drawing, tag("ul", legend, class_="legend") if legend else None, class_="panel")


def _ends(line: Line) -> str:
    (first, *_, last), (begin, *_, end) = [*line.values, line.values[-1]], [*line.steps, line.steps[-1]]
    return f"{line.name} from {plain_number(first)} at step {begin:,} to {plain_number(last)} at {end:,}"


def _swatch(line: Line) -> Markup:
    stroke = tag(
        "line", x1=0, x2=24, y1=6, y2=6, class_=f"line c{line.colour}", stroke_dasharray=DASHES[line.dash] or None
    )
    return tag("svg", stroke, viewBox="0 0 24 12", width=24, height=12, aria_hidden="true")


def heat_map(
    values: Float[np.ndarray, "n n"],
    rows: Sequence[AxisLabel],
    columns: Sequence[AxisLabel],
    *,
    row_name: str,
    column_name: str,
) -> Markup:
    """Similarities of examples in two modalities; the right pairs are on the diagonal."""
    count, cell, left = len(rows), 18, 190
    top = 34 if all(label.picture for label in columns) else 150
    size = count * cell
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    parts: list[Markup] = []
    for i, label in enumerate(rows):
        parts.append(_label(label, left - 6, top + i * cell, cell, turned=False))
    for j, label in enumerate(columns):
        parts.append(_label(label, left + j * cell, top - 4, cell, turned=True))
    for i in range(count):
        for j in range(count):
            value = values[i, j]
            tip = f"{rows[i].text} × {columns[j].text}: {value:.3f}" + (" (the right pair)" if i == j else "")
            place = {"x": left + j * cell, "y": top + i * cell, "width": cell - 1, "height": cell - 1}
            fill = colour((value - low) / (high - low or 1)) if np.isfinite(value) else "none"
            parts.append(
                tag("rect", tag("title", tip), fill=fill, class_="right" if i == j else None, data_tip=tip, **place)
            )
    below = top + size + 16
    stops = [tag("rect", x=left + k * 8, y=below, width=8.5, height=10, fill=colour(k / 19)) for k in range(20)]
    scale = [
        tag("text", f"{low:.2f}", x=left - 6, y=below + 9, text_anchor="end"),
        tag("text", f"{high:.2f}  cosine similarity", x=left + 168, y=below + 9),
    ]
    width = left + max(size, 300) + 4
    pairs, others = np.diag(values), values[~np.eye(count, dtype=bool)]
    said = f"right pairs {_mean(pairs)} on average, others {_mean(others)}"
    drawing = tag(
        "svg",
        tag("title", f"similarity of {count} examples, {row_name} by {column_name}: {said}"),
        parts,
        stops,
        scale,
        viewBox=f"0 0 {width} {below + 16}",
        style=f"max-width:{width}px",
        role="img",
        class_="heat",
    )
    heading = tag("figcaption", tag("strong", f"{row_name} × {column_name}"), f": {said}")
    return tag("figure", heading, tag("div", drawing, class_="scroll"), class_="panel")


def _mean(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.mean():.2f}" if finite.size else "none"


def _label(label: AxisLabel, x: float, y: float, cell: int, turned: bool) -> Markup:
    if label.picture is not None:
        at = {"x": x, "y": y - cell} if turned else {"x": x - cell, "y": y}
        return tag("image", tag("title", label.text), href=label.picture, width=cell - 1, height=cell - 1, **at)
    text = short(label.text, 28 if not turned else 22)
    if turned:
        return tag("text", text, transform=f"translate({x + cell * 0.7:.1f} {y:.1f}) rotate(-90)")
    return tag("text", text, x=x, y=y + cell * 0.7, text_anchor="end")


def colour(share: float) -> str:
    """The colour of a share from 0 to 1, `#00224e` to `#fee838`."""
    place = min(max(share, 0.0), 1.0) * (len(CIVIDIS) - 1)
    i = min(int(place), len(CIVIDIS) - 2)
    mixed = (a + (b - a) * (place - i) for a, b in zip(CIVIDIS[i], CIVIDIS[i + 1], strict=True))
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def plane(points: Sequence[Point], *, title: str, x_name: str, y_name: str, class_: str) -> Markup:
    """Points on a plane; both axes have one scale, so that distances are equal in all directions."""
    width, height, pad = 720, 520, 34
    xs, ys = ([getattr(point, axis) for point in points] for axis in ("x", "y"))
    scale = min((width - 2 * pad) / ((max(xs) - min(xs)) or 1), (height - 2 * pad) / ((max(ys) - min(ys)) or 1))
    middle = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    marks = [
        tag(
            "path",
            tag("title", point.tip),
            d=SHAPES[point.kind % len(SHAPES)],
            transform=f"translate({width / 2 + (point.x - middle[0]) * scale:.1f} "
            f"{height / 2 - (point.y - middle[1]) * scale:.1f})",
            class_=f"m{point.kind % COLOURS} l{point.label}" if point.label >= 0 else f"m{point.kind % COLOURS} other",
            data_tip=point.tip,
            data_row=point.row or None,
        )
        for point in points
    ]
    axes = [
        tag("rect", x=1, y=1, width=width - 2, height=height - 2, class_="frame"),
        tag("text", x_name, x=width / 2, y=height - 8, text_anchor="middle"),
        tag("text", y_name, transform=f"translate(16 {height / 2}) rotate(-90)", text_anchor="middle"),
    ]
    return tag(
        "svg", tag("title", title), axes, marks, viewBox=f"0 0 {width} {height}", role="img", class_=f"plane {class_}"
    )


SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",  # a disc
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-4.8L4.6,3.4H-4.6z",
    "M0,-5.2L5.2,0L0,5.2L-5.2,0z",
)


def mark(kind: int, class_: str) -> Markup:
    """A shape of `plane`, for a legend."""
    return tag(
        "svg",
        tag("path", d=SHAPES[kind % len(SHAPES)], class_=class_),
        viewBox="-6 -6 12 12",
        width=12,
        height=12,
        aria_hidden="true",
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from at most `low` to at least `high`."""
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def plain_number(value: float) -> str:
    """A number in few letters: `0.25`, `12`, `1e-05`, `1,200`, `3e+07`."""
    return f"{value:,.0f}" if 1_000 <= abs(value) < 10_000_000 else f"{value:.4g}"


def _thinned(pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most POINTS points, each the mean of a run of neighbours; the last one is kept."""
    if len(pairs) <= POINTS:
        return pairs
    parts = np.array_split(np.array(pairs[:-1], np.float64), POINTS - 1)
    return [(int(part[-1, 0]), float(part[:, 1].mean())) for part in parts] + [pairs[-1]]
