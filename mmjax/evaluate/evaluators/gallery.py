"""Draws examples and curves of a run: the pictures that captions and sounds find, and the names that pictures find."""

import textwrap
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from mmjax.data.kinds import Kinds, ordered
from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, EmbedText, Evaluator, When
from mmjax.evaluate.metrics.chance import recall
from mmjax.evaluate.metrics.pairs import pairs
from mmjax.runtime.counts import noun
from mmjax.runtime.files import output
from mmjax.runtime.files.names import plain

TOP = 5
RIGHT, WRONG, INK = "#1a9641", "#dddddd", "#222222"
CELL = 0.82  # inches a picture
LETTERS = 52  # letters after which a name is cut


@dataclass(frozen=True)
class Gallery(Evaluator):
    """Draws `<workdir>/gallery-<split>.png` and the run's `<workdir>/curves.png`; it has no metrics.

    Panels: captions, sounds and whatever else is no picture with the five pictures nearest to each, and pictures with
    the five nearest names; what is right is green. What can't be drawn is told by its name. Examples are drawn at
    random by `seed`, the same for every run on the same data: they are not the best ones, and each title says the share
    (R@1) over the whole split.

    rows: examples a panel.  text: the column that holds names; where there is none of that name, the captions, or else
    the ids.  same: as in `Retrieval`.
    Needs matplotlib (extra `demo`): a UserError says so.
    """

    split: str = "test"
    rows: int = 8
    text: str = "text"
    same: str | None = None
    seed: int = 0
    when: When = "end"
    name: str = "gallery"
    inputs: tuple[str, ...] = ("image",)
    gives_numbers = False

    @property
    def columns(self) -> tuple[str, ...]:
        named = () if self.text == "text" else (self.text,)  # captions may be called otherwise
        return named if self.same is None else (*named, self.same)

    def keeps(self, kinds: Kinds) -> tuple[str, ...]:
        """The pictures, whatever they are called."""
        return tuple(dict.fromkeys((*self.inputs, *(name for name, kind in kinds.items() if kind.draws))))

    def __call__(self, embedded: Embedded, embed_text: EmbedText) -> dict[str, float]:
        panels = [(a, b) for a, b in _panels(embedded) if np.any(embedded.valid[a] & embedded.valid[b])]
        if not panels or embedded.workdir is None:
            return {}
        figure = _figure((0.2 + len(panels) * (2.6 + TOP * (CELL + 0.08)), 1.1 + self.rows * (CELL + 0.2)))
        parts = figure.subfigures(1, len(panels), squeeze=False)[0]
        for part, (source, target) in zip(parts, panels, strict=True):
            self._panel(part, embedded, source, target)
        name = plain(f"gallery-{self.split}.png", "the picture of Gallery(split=...)")
        _save(figure, embedded.workdir / name)
        draw_curves(embedded.history, embedded.workdir / "curves.png")
        return {}

    def _panel(self, figure: Any, embedded: Embedded, source: str, target: str) -> None:
        """One row for each chosen `source`: itself, and the five `target`s nearest to it."""
        names = [_short(name) for name in self._names(embedded)]
        found = pairs(embedded, source, target, self.same, "Gallery")
        candidates, chosen = found.columns, self.chosen(embedded, source, target)
        right = found.right(np.searchsorted(found.rows, chosen))
        ranks, _ = found.ranks(embedded, source, target)
        share, chance = np.mean(ranks[ranks > 0] == 1), recall(found.counts()[0][ranks > 0], len(candidates), 1)
        figure.suptitle(
            f"{noun(source)} → {noun(target)}\n"
            f"first of {len(candidates):,} is right for {share:.0%} (R@1; by chance {chance:.1%}); rows are drawn",
            fontsize=10,
            color=INK,
        )
        widths = [1.0 if embedded.kind(source).draws else 2.2] + [1.0] * TOP
        grid = figure.subplots(len(chosen), TOP + 1, squeeze=False, gridspec_kw={"width_ratios": widths})
        scores = embedded.embeddings[source][chosen] @ embedded.embeddings[target][candidates].T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
        for axes, row, first, fits in zip(grid, chosen, best, right, strict=True):
            _show(axes[0], embedded, source, row, names[row])
            for cell, i in zip(axes[1:], first, strict=False):
                at = candidates[i]
                _show(cell, embedded, target, int(at), names[at], RIGHT if fits[i] else WRONG)
            for cell in axes[1 + len(first) :]:  # fewer candidates than columns
                cell.set_axis_off()

    def _names(self, embedded: Embedded) -> list[Any]:
        if self.text in embedded.columns or self.text != "text":
            return embedded.column(self.text, "Gallery(text=...)")
        return embedded.captions or embedded.columns.get("id") or list(range(len(embedded)))

    def chosen(self, embedded: Embedded, source: str, target: str) -> Int[np.ndarray, " rows"]:
        """The rows that a panel shows, which have both modalities; chosen by `seed` alone, not by the
        model's results.
        """
        found = pairs(embedded, source, target)
        both = found.rows[found.counts()[0] > 0]
        draw = np.random.default_rng(self.seed)
        return np.sort(draw.choice(both, size=min(self.rows, len(both)), replace=False))


def draw_curves(lines: list[dict[str, Any]], path: Path) -> None:
    """Draws the loss and each objective's, and the shares (R@1, top 1) of evaluations, over steps.

    lines: as in metrics.jsonl.  A split that was evaluated once is a star, in the colour of the metric.
    """
    training = [line for line in lines if "split" not in line]
    tested = [line for line in lines if "split" in line]
    losses = [name for name in dict.fromkeys(n for line in training for n in line) if f"/{name}".endswith("/loss")]
    shares = sorted({name for line in tested for name in line if name.endswith(("/R@1", "/top1"))})
    figure = _figure((12, 4.2))
    left, right = figure.subplots(1, 2)
    for name in losses:
        left.plot(*_points(training, name), label=name, linewidth=2.2 if name == "loss" else 1.1)
    for i, name in enumerate(shares):
        label: str | None = name
        for split in dict.fromkeys(line["split"] for line in tested):
            steps, values = _points([line for line in tested if line["split"] == split], name)
            style = "*" if len(steps) == 1 else "o-"
            right.plot(steps, values, style, color=f"C{i}", markersize=9 if style == "*" else 3, label=label)
            label = None  # one legend entry for each metric
    once = [split for split in dict.fromkeys(line["split"] for line in tested) if _once(tested, split)]
    stars = f" (stars: {', '.join(once)})" if once else ""
    for axes, title in ((left, "training loss"), (right, f"evaluation, shares{stars}")):
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel("step")
        axes.grid(color="#eeeeee")
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    right.set_ylim(0, 1)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with output.replacing(path) as part:
        figure.savefig(part, format="png", dpi=110, facecolor="white")


def _points(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    found = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]


def _once(tested: list[dict[str, Any]], split: str) -> bool:
    return sum(line["split"] == split for line in tested) == 1


def _panels(embedded: Embedded) -> list[tuple[str, str]]:
    """What is asked with, and what is found: all else finds pictures, and pictures find texts."""
    names = ordered(embedded.valid, embedded.kinds)
    pictures = [name for name in names if embedded.kind(name).draws and name in embedded.inputs]
    asked = [(name, picture) for name in names for picture in pictures if name not in pictures]
    between = list(permutations(pictures, 2))
    return asked + between + [(picture, name) for picture in pictures for name in names if embedded.kind(name).words]


def _figure(size: tuple[float, float]) -> Any:
    """A figure without a window; the constrained layout keeps titles and legends apart."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('the gallery draws with matplotlib: pip install "mmjax[demo]"') from error
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _show(axes: Any, embedded: Embedded, modality: str, row: int, name: str, frame: str | None = None) -> None:
    """One example in one cell: its picture; or its name, and of what isn't text that it can't be seen."""
    axes.set(xticks=[], yticks=[])
    kind = embedded.kind(modality)
    if kind.draws and modality in embedded.inputs:
        axes.imshow(kind.drawn(embedded.inputs[modality][row]), interpolation="nearest")
    else:
        words = name if kind.words else f"♪ “{name}”" if kind.plays else f"{modality} (not shown) of “{name}”"
        words = textwrap.fill(words, 15)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=7, color=INK)
    for spine in axes.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=3 if frame == RIGHT else 0.8)


def _short(name: Any) -> str:
    name = str(name)
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"
