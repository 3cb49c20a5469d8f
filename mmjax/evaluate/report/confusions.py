"""Confusion matrices that can be read with two classes and with a thousand."""

import numpy as np

from mmjax.evaluate.decisions import Classified
from mmjax.evaluate.report.markup import Markup, short, tag

MOST = 20  # classes of a matrix
LISTED = 12  # confusions, by size
STRONG = 0.55  # share of a row's examples from which its cell is dark


def confusion(found: Classified) -> Markup:
    """The matrix of all classes, or of those that are confused most, and the largest confusions as a list."""
    matrix = found.matrix()
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    there = matrix.sum(axis=1) > 0
    right = int(np.trace(matrix))
    said = f"{right:,} of {matrix.sum():,} right; {there.sum():,} classes"
    chosen = np.arange(len(matrix))
    note = None
    if len(matrix) > MOST:
        involved = wrong.sum(axis=0) + wrong.sum(axis=1)
        chosen = np.sort(np.argsort(-involved, kind="stable")[:MOST])
        note = tag(
            "p",
            f"The matrix shows the {MOST} of {len(matrix):,} classes that take part in the most confusions; examples "
            "that were taken for another class than these stand under “others”.",
            class_="soft",
        )
    return tag(
        "section",
        tag("h3", found.name, tag("span", f" · {said}", class_="soft")),
        note,
        tag("div", _matrix(found, matrix, chosen), _largest(found, wrong, matrix.sum(axis=1)), class_="beside"),
    )


def _matrix(found: Classified, matrix: np.ndarray, chosen: np.ndarray) -> Markup:
    others = len(chosen) < len(matrix)
    names = [short(found.classes[i], 24) for i in chosen]
    turned = [tag("th", tag("span", name), scope="col") for name in [*names, *(["others"] if others else [])]]
    head = tag("tr", tag("th", "true ↓, taken for →", scope="col"), turned)
    body = []
    for i, name in zip(chosen, names, strict=True):
        total = int(matrix[i].sum())
        counts = [int(matrix[i, j]) for j in chosen]
        cells = [_cell(count, total, i == j) for j, count in zip(chosen, counts, strict=True)]
        if others:
            cells.append(_cell(total - sum(counts), total, False))
        body.append(tag("tr", tag("th", name, f" ({total:,})", scope="row"), cells))
    caption = tag("caption", "Counts; a cell's colour is its share of the row.", class_="soft")
    return tag("div", tag("table", caption, tag("thead", head), tag("tbody", body), class_="matrix"), class_="scroll")


def _cell(count: int, total: int, right: bool) -> Markup:
    share = count / total if total else 0.0
    named = " ".join([*(["hit"] if right else []), *(["strong"] if share > STRONG else [])])
    fill = f"background:color-mix(in srgb, var(--c0) {100 * share:.0f}%, var(--card))"
    return tag("td", f"{count:,}" if count else "", style=fill, class_=named or None)


def _largest(found: Classified, wrong: np.ndarray, totals: np.ndarray) -> Markup | None:
    order = [int(place) for place in np.argsort(-wrong, axis=None, kind="stable")[:LISTED] if wrong.flat[place] > 0]
    if not order:
        return tag("p", "Nothing was confused.")
    rows = []
    for place in order:
        i, j = divmod(place, len(wrong))
        name, taken = short(found.classes[i], 32), short(found.classes[j], 32)
        cells = tag("td", taken), tag("td", f"{wrong[i, j]:,}"), tag("td", f"{wrong[i, j] / totals[i]:.0%}")
        rows.append(tag("tr", tag("th", name, scope="row"), *cells))
    head = tag("tr", [tag("th", name, scope="col") for name in ("true class", "taken for", "examples", "of the class")])
    caption = tag("caption", f"The {len(rows)} largest confusions" if len(rows) > 1 else "The only confusion")
    return tag("div", tag("table", caption, tag("thead", head), tag("tbody", rows)), class_="scroll")
