"""The checkpoints of a run, on the terminal."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import filesize
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmjax.errors import UserError
from mmjax.evaluate.tables import number
from mmjax.runtime import counts, metrics
from mmjax.runtime.checkpoints import saved
from mmjax.runtime.files import output

LETTERS = 8  # letters of a score's name in a column's head


def checkpoint_listing(workdir: Path) -> RenderableType:
    """A table of a run's checkpoints: step, time, size, the metrics of the step, and whether each is whole. Below it
    are the full names of the metrics, how much each was judged on, and the damage of checkpoints that aren't whole.

    Raises UserError where the workdir has none.
    """
    found = saved(output.local(workdir, "the workdir"))
    if not found:
        raise UserError(f"there are no checkpoints in {workdir}")
    steps = {each.step for each in found}
    lines = [line for line in metrics.read(workdir) if line["step"] in steps]
    losses = {line["step"]: number(line.get("loss"), "loss") for line in lines if "split" not in line}
    judged: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}  # keyed by split and the first score of its lines
    for line in lines:
        if "split" in line and (name := next(iter(counts.scores(_numbers(line))), None)) is not None:
            judged.setdefault((line["split"], name), {})[line["step"]] = line
    heads = [f"{_short(name.rpartition('/')[2])}\n({place})" for place, (_, name) in enumerate(judged, start=1)]
    table = Table("step", "saved", "size", *["loss"] * bool(losses), *heads, "whole", box=None, pad_edge=False)
    for each in found:
        when = datetime.fromtimestamp(each.saved_at).strftime("%Y-%m-%d %H:%M")
        row = [losses.get(each.step, "")] * bool(losses)
        row += [number(at[each.step].get(name), name) if each.step in at else "" for (_, name), at in judged.items()]
        table.add_row(f"{each.step:,}", when, filesize.decimal(each.bytes), *row, "no" if each.problems else "yes")
    below = [f"({i}) {_told(*key, at[max(at)])}" for i, (key, at) in enumerate(judged.items(), start=1)]
    below += [f"step {each.step:,} isn't whole: {each.problems[0]}" for each in found if each.problems]
    return Group(table, *(Text(line, overflow="fold") for line in below))


def _short(score: str) -> str:
    """A score's name shortened for a column's head, no wider than its numbers: the whole name is below the table."""
    return score if len(score) <= LETTERS else f"{score[: LETTERS - 1]}…"


def _numbers(line: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: value for name, value in line.items() if "/" in name}


def _told(split: str, name: str, line: Mapping[str, Any]) -> str:
    """The description of a column: `test split, retrieval/image->text/R@1: 24 pictures, among 24 captions; at random
    R@1 0.042, ...`.
    """
    row = name.rpartition("/")[0]
    said = "".join(counts.below(counts.told(_numbers(line)), [row])).partition(": ")[2]
    return f"{split} split, {name}" + (f": {said}" if said else "")
