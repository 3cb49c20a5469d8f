"""Examples of a split on a page: their similarities, what queries find, and a map of their embeddings."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from mmjax.data.kinds import ordered
from mmjax.data.transforms.input import Input
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.report.charts import AxisLabel, Point, heat_map, mark, plane
from mmjax.evaluate.report.findings import Findings
from mmjax.evaluate.report.markup import Markup, short, tag
from mmjax.evaluate.report.media import Media, silent
from mmjax.evaluate.report.retrievals import FIRST, Direction, Hit, Query, directions
from mmjax.runtime.counts import noun

COMPARED = 24  # examples of a heat map
MAPPED = 250  # examples of the map
THUMB, SMALL = 96, 36  # pixels a side
MOST_LABELS = 7  # labels with a colour of their own
SEED = 0  # seed of all random choices


def label_column(found: Findings) -> str | None:
    """The column that colours and orders examples: the first that was classified, else one with few values."""
    columns = found.embedded.columns
    for classified in found.classified:
        if classified.label in columns:
            return classified.label
    for name, values in columns.items():
        distinct = {str(value) for value in values if value is not None}
        if any(isinstance(value, list | tuple | np.ndarray) for value in values):
            continue  # what has several values has no colour
        if name not in ("id", "text", *found.embedded.embeddings) and 2 <= len(distinct) <= min(30, len(values) // 3):
            return name
    return None


def similarities(found: Findings, media: Media) -> list[Markup]:
    """A heat map for each pair of modalities, of examples drawn at random that have both, ordered by label."""
    embedded, label, made = found.embedded, label_column(found), []
    # Pictures are columns, which are narrow; what can't be shown comes first.
    names = sorted(ordered(embedded.embeddings, embedded.kinds), key=lambda name: _width(embedded.kind(name)))
    for rows, columns in combinations(names, 2):
        both = np.flatnonzero(embedded.valid[rows] & embedded.valid[columns])
        if len(both) < 2:
            continue
        draw = np.random.default_rng(SEED)
        chosen = np.sort(draw.choice(both, min(COMPARED, len(both)), replace=False)).tolist()
        if label is not None:
            chosen.sort(key=lambda row: str(embedded.columns[label][row]))
        values = embedded.embeddings[rows][chosen] @ embedded.embeddings[columns][chosen].T
        sides = [[_label(media, name, row) for row in chosen] for name in (rows, columns)]
        made.append(heat_map(values, *sides, row_name=noun(rows), column_name=noun(columns)))
    return made


def _label(media: Media, modality: str, row: int) -> AxisLabel:
    text, kind = media.text(row, modality), media.kind(modality)
    if kind.draws:
        return AxisLabel(text, media.uri(row, modality, SMALL))
    return AxisLabel(f"♪ {text}" if kind.plays else text)


def _width(kind: type[Input]) -> int:
    """Where a kind stands among the sides of heat maps."""
    return 1 if kind.words else 2 if kind.plays else 3 if kind.draws else 0


def retrievals(found: Findings, media: Media) -> list[Markup]:
    """The results of queries, in every direction: the best, the worst, and some at random."""
    return [
        _direction(each, media, i == 0, found.numbers.get(f"retrieval/{each.source}->{each.target}/R@1"))
        for i, each in enumerate(directions(found.embedded, found.same, SEED))
    ]


def _direction(direction: Direction, media: Media, first: bool, recall: float | None) -> Markup:
    asked, ranks = len(direction.ranks), direction.ranks
    share = (
        f"R@1 {np.mean(ranks == 1):.3f}, at random {direction.chance:.3f}; median rank {np.median(ranks):g} of "
        f"{direction.candidates:,}"
    )
    if asked < direction.queries:
        whole = "" if recall is None else f"R@1 {recall:.3f} over the whole split; "
        share = f"{whole}{asked:,} of {direction.queries:,} queries asked here, at random: {share}"
    title = f"{noun(direction.source).capitalize()} → {noun(direction.target)}"
    groups = [("Best", direction.best), ("Worst", direction.worst), ("At random", direction.random)]
    return tag(
        "details",
        tag("summary", tag("strong", title), tag("span", share, class_="soft")),
        [
            [tag("h4", name), [_query(query, direction, media) for query in queries]]
            for name, queries in groups
            if queries
        ],
        class_="direction",
        open=first,
    )


def _query(query: Query, direction: Direction, media: Media) -> Markup:
    asked = tag(
        "figure",
        media.show(query.row, direction.source, THUMB),
        tag("figcaption", _besides(media, query.row, direction.source), f"rank {query.rank:,}"),
    )
    hits = [_hit(hit, direction.target, media) for hit in query.hits]
    hits += [tag("li", class_="none")] * (FIRST - len(hits))
    if not any(hit.right for hit in query.hits):
        hits.append(_hit(query.answer, direction.target, media, answer=True))
    return tag("div", asked, tag("ol", hits, class_="hits"), class_="query")


def _besides(media: Media, row: int, modality: str) -> list[Any]:
    """The caption of a picture; elsewhere it stands there already."""
    return [] if not media.kind(modality).draws else [short(media.caption(row), 60), tag("br")]


def _hit(hit: Hit, modality: str, media: Media, answer: bool = False) -> Markup:
    said = tag("b", "✓ ", silent("right, ")) if hit.right else None
    place = f"right answer, {hit.place:,}." if answer else f"{hit.place}."
    kind = " ".join(["right"] * hit.right + ["answer"] * answer)
    return tag(
        "li", media.show(hit.row, modality, THUMB), tag("small", said, place, f" {hit.score:.2f}"), class_=kind or None
    )


def embedding_map(found: Findings, media: Media) -> Markup | None:
    """The embeddings of examples drawn at random in two dimensions (PCA), all modalities in one space.

    There are two maps: of the embeddings, and of these without the mean of each modality. In contrastive models the
    modalities are separate ("modality gap", Liang et al. 2022, arXiv:2203.02053), and that gap alone is what the first
    map may show.
    """
    embedded, column = found.embedded, label_column(found)
    draw = np.random.default_rng(SEED)
    chosen = np.sort(draw.choice(len(embedded), min(MAPPED, len(embedded)), replace=False))
    modalities = [m for m in embedded.embeddings if embedded.valid[m][chosen].any()]
    rows = [(kind, int(row)) for kind, m in enumerate(modalities) for row in chosen if embedded.valid[m][row]]
    kinds = np.array([kind for kind, _ in rows])
    if len(rows) < 3:
        return None
    vectors = np.nan_to_num(np.stack([embedded.embeddings[modalities[kind]][row] for kind, row in rows]))
    means = np.stack([vectors[kinds == kind].mean(axis=0) for kind in range(len(modalities))])
    labels = _labels(embedded, column, chosen)
    names = list(labels)

    drawn_as = next((m for m in modalities if embedded.kind(m).draws), None)
    seen = [row for row in chosen.tolist() if drawn_as is not None and embedded.valid[drawn_as][row]]
    pictures = {row: uri for row in seen if (uri := media.uri(row, drawn_as or "", THUMB)) is not None}

    def drawn(values: Float[np.ndarray, "n e"], said: str, class_: str) -> Markup:
        places, shares = principal(values)
        points = []
        for (kind, row), (x, y) in zip(rows, places.tolist(), strict=True):
            value = None if column is None else embedded.columns[column][row]
            tip = f"{noun(modalities[kind])}: {media.caption(row)}" + ("" if value is None else f"\n{column}: {value}")
            shown = media.anchor("example", row) if row in pictures else ""
            points.append(Point(x, y, kind, names.index(value) if value in labels else -1, tip, shown))
        axes = [f"principal component {i + 1} ({shares[i]:.0%} of the variance)" for i in range(2)]
        return plane(
            points, title=f"map of {len(points)} embeddings, {said}", x_name=axes[0], y_name=axes[1], class_=class_
        )

    maps = drawn(vectors, "as they lie", "plain"), drawn(vectors - means[kinds], "modalities centred", "centred")
    shapes = [
        tag("li", mark(k, f"fill c{k}"), f" {noun(m)} ({np.sum(kinds == k):,})") for k, m in enumerate(modalities)
    ]
    coloured = [tag("li", mark(0, f"fill l{i}"), f" {short(name, 30)}") for i, name in enumerate(names)]
    rest = tag("li", mark(0, "fill c7"), " other")
    switches = [
        _switch("colour", media.name, [("by modality", "by-modality"), (f"by {column}", "by-label")])
        if names
        else None,
        _switch("place", media.name, [("as they lie", "as-is"), ("each modality centred", "centre")]),
    ]
    stored = [
        tag("span", tag("img", src=uri, alt="", loading="lazy"), id=media.anchor("example", row))
        for row, uri in pictures.items()
    ]
    return tag(
        "div",
        switches,
        tag("figure", maps, tag("ul", shapes, class_="legend modalities"),
            tag("ul", coloured, rest, class_="legend labels") if names else None, class_="panel"),
        tag("div", stored, hidden=True),
        class_="map",
    )  # fmt: skip


def _labels(embedded: Embedded, column: str | None, rows: np.ndarray) -> dict[Any, int]:
    """The most frequent labels among the rows, with their counts."""
    if column is None:
        return {}
    values = (embedded.columns[column][row] for row in rows)
    return dict(Counter(v for v in values if isinstance(v, str | int | float | bool)).most_common(MOST_LABELS))


def _switch(name: str, split: str, choices: Sequence[tuple[str, str]]) -> Markup:
    radios = [
        tag("label", tag("input", type="radio", name=f"{name}-{split}", class_=class_, checked=i == 0), " ", text)
        for i, (text, class_) in enumerate(choices)
    ]
    return tag("fieldset", tag("legend", f"{name}:"), radios)


def principal(vectors: Float[np.ndarray, "n e"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " 2"]]:
    """The first two principal components of each vector, and the share of the variance that each explains."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of a direction is arbitrary: the largest entry is made positive.
    axes = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    variance = sizes**2
    return centred @ axes.T, variance[:2] / max(variance.sum(), 1e-30)
