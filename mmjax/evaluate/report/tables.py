"""The numbers of an evaluation as tables, and those of the whole run as curves."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmjax.evaluate.report.charts import COLOURS, DASHES, Line, line_chart
from mmjax.evaluate.report.markup import Markup, tag
from mmjax.evaluate.report.media import silent
from mmjax.evaluate.tables import number
from mmjax.runtime import counts, metric_families

# The metrics of a run's course, with their units.
COURSE = {"lr": ("Learning rate", ""), "examples_per_second": ("Speed", "examples per second")}
BOUNDED = ("R@", "top", "recall", "mAP", "accuracy")  # starts of the last part of names of shares, from 0 to 1


def is_share(name: str) -> bool:
    """True if a metric is between 0 and 1, by its name."""
    return name.rpartition("/")[2].startswith(BOUNDED)


def number_tables(numbers: Mapping[str, float | None], protocols: Sequence[str] = ()) -> list[Markup]:
    """A table for each kind of metric: its row and column make up the flat name.

    Below are the counts and the protocols (a sentence for each evaluator). No number is marked as the best: those of a
    column measure different things, image→text and text→image say; only runs compare.
    """
    rows: dict[str, dict[str, float | None]] = {}
    for name, value in counts.scores(numbers).items():
        row, _, column = name.rpartition("/")
        rows.setdefault(row, {})[column] = value
    made = []
    for columns in dict.fromkeys(tuple(row) for row in rows.values()):
        mine = {name: row for name, row in rows.items() if tuple(row) == columns}
        made.append(_table(columns, mine))
    told = [line.replace("median_rank", "median rank") for line in counts.told(numbers).values()]  # as in its column
    said = [tag("li", line.replace("->", " → ")) for line in (*told, *protocols)]
    return [*made, tag("ul", said, class_="soft")] if said else made


def compared(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    """A table of measured beside published numbers; None where there are none.

    rows: each with split, metric, measured, published, difference (shares) and source.
    """
    if not rows:
        return None
    columns = ("metric", "split", "measured", "published", "difference", "source")
    body = []
    for row in rows:
        shares = f"{row['measured']:.4f}", f"{row['published']:.4f}", f"{row['difference']:+.4f}"
        cells = [tag("td", text) for text in (row["split"], *shares, row["source"])]
        body.append(tag("tr", tag("th", row["metric"].replace("->", " → "), scope="row"), cells))
    head = tag("tr", [tag("th", column, scope="col") for column in columns])
    return tag("div", tag("table", tag("thead", head), tag("tbody", body), class_="numbers"), class_="scroll")


def _table(columns: Sequence[str], rows: Mapping[str, Mapping[str, float | None]]) -> Markup:
    head = tag(
        "tr",
        tag("th", silent("metric"), scope="col"),
        [tag("th", column.replace("_", " "), scope="col") for column in columns],
    )
    body = [
        tag(
            "tr",
            tag("th", row.replace("->", " → ") or "all", scope="row"),
            [_cell(values[column], column) for column in columns],
        )
        for row, values in rows.items()
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", body), class_="numbers"), class_="scroll")


def _cell(value: float | None, column: str) -> Markup:
    finite = value is not None and math.isfinite(value)
    text = number(value if finite else None, column)
    bar = None
    if finite and value is not None and is_share(column):
        bar = tag(
            "span", tag("i", style=f"width:{100 * min(max(value, 0), 1):.1f}%"), class_="share", aria_hidden="true"
        )
    return tag("td", text, bar)


def meanings(names: Iterable[str], evaluation: bool) -> Markup | None:
    """A sentence for each family of these names, with its meaning and which values are better.

    evaluation: whether they are of an evaluation's line (`metric_families.family`). Names without a documented family
    are left out.
    """
    said = []
    for family, mine in metric_families.families(counts.scores(dict.fromkeys(names)), evaluation):
        whose = "each objective's " if family.names[0].startswith("<objective>") else ""
        ends = dict.fromkeys(f"{whose}{_called(name)}" for name in mine)
        said += [tag("dt", ", ".join(ends)), tag("dd", f"{family.sentence[0].upper()}{family.sentence[1:]}")]
    return tag("dl", said, class_="facts") if said else None


def _called(name: str) -> str:
    """The name of a metric in a table's column or a chart's legend."""
    *row, last = name.split("/")
    column = f"{row[-1]} {last}" if row and row[-1].endswith("shot") else last
    return column.replace("_", " ")


def curves(history: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Charts over steps: the losses, the metrics of splits that were evaluated more than once, learning rate
    and speed.
    """
    training = [line for line in history if "split" not in line]
    made = [_chart("Training loss", "nats", training, _losses(training))]
    for split in dict.fromkeys(line["split"] for line in history if "split" in line):
        tested = [line for line in history if line.get("split") == split]
        shares = sorted({name for line in tested for name in line if name.endswith(("/R@1", "/top1", "/mAP"))})
        made.append(_chart(f"Evaluation, {split} split", "share, 0 to 1", tested, shares, low=0.0, high=1.0, least=2))
    for name, (title, unit) in COURSE.items():
        made.append(_chart(title, unit, training, [name], low=0.0))
    return [chart for chart in made if chart is not None]


def drawn(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of training metrics that `curves` draws."""
    training = [line for line in history if "split" not in line]
    return [*_losses(training), *(name for name in COURSE if any(line.get(name) is not None for line in training))]


def _losses(training: Sequence[Mapping[str, Any]]) -> list[str]:
    return [n for n in dict.fromkeys(name for line in training for name in line) if f"/{n}".endswith("/loss")]


def _chart(
    title: str,
    unit: str,
    history: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    *,
    low: float | None = None,
    high: float | None = None,
    least: int = 1,
) -> Markup | None:
    """A chart of metrics; None where no name has `least` values."""
    series = []
    for name in names[: COLOURS * len(DASHES)]:
        found = {line["step"]: line[name] for line in history if line.get(name) is not None}
        if len(found) >= least:
            steps = sorted(found)
            values = [found[step] for step in steps]
            place = len(series)
            label = name.removesuffix("/R@1").replace("->", " → ") + (" R@1" if name.endswith("R@1") else "")
            series.append(Line(label, steps, values, place % COLOURS, place // COLOURS))
    return line_chart(title, series, unit=unit, low=low, high=high) if series else None
