"""An experiment, or the difference of two, on the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fiddle as fdl
import jax
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from mmjax.data.pipeline import batch_spec
from mmjax.experiment.definition import Experiment
from mmjax.experiment.diff import Difference
from mmjax.experiment.graph import callable_name, children, defaults, holds_configs, short_repr, target

UNLIMITED = 1 << 20
LETTERS = 400  # characters shown of a value that differs
READABLE = 40  # columns of a longer value in a table


def tree(config: fdl.Config, name: str) -> RenderableType:
    """The experiment as a tree: a line for each part with its fields, those left at their defaults dimmed."""
    root = Tree(_label(name, config), guide_style="dim")
    _grow(root, config)
    return root


def _grow(node: Tree, value: Any) -> None:
    for name, item in children(value).items():
        if holds_configs(item):
            _grow(node.add(_label(name, item)), item)


def _label(name: str, value: Any) -> Text:
    """`image: ViT  patch=8 width=64`: the name, the class, and the fields that hold no further parts."""
    label = Text(name, style="bold")
    usual = {}
    if isinstance(value, fdl.Config):
        label.append(": ", style="not bold").append(callable_name(value), style="not bold cyan")
        usual = defaults(target(value))
    for field, item in children(value).items():
        if holds_configs(item):
            continue
        left_alone = field in usual and type(usual[field]) is type(item) and usual[field] == item
        label.append("  ").append(
            f"{field}={short_repr(item, UNLIMITED)}", style="not bold dim" if left_alone else "not bold"
        )
    return label


def parameters(experiment: Experiment) -> RenderableType:
    """A table of the number of parameters of each tower, fusion and objective. Nothing is initialised, and no data is
    read.

    Raises:
        UserError: the parts don't fit together: pictures don't divide into patches, say.
    """
    pretrainer, batch = experiment.pretrainer(), batch_spec(experiment.data, batch_size=1)

    def init() -> Any:
        keys = {name: jax.random.key(0) for name in ("params", "mask", "dropout")}
        return pretrainer.init(keys, batch, train=False)["params"]

    leaves = {name: jax.tree.leaves(tree) for name, tree in jax.eval_shape(init).items()}
    kinds = {"towers": experiment.towers, "fusions": experiment.fusions, "objectives": experiment.objectives}
    order = [f"{kind}_{name}" for kind, by in kinds.items() for name in by]
    counts = {name: sum(leaf.size for leaf in leaves[name]) for name in order if name in leaves}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for name, count in {**counts, "parameters in all": sum(counts.values())}.items():
        table.add_row(name, Text(f"{count:,}", justify="right"))
    return table


def told_differences(found: list[Difference], left: str, right: str) -> RenderableType:
    """The paths at which two experiments differ, with both values: one line each where the screen is wide enough, else
    three.
    """
    if not found:
        return Text(f"no difference between {left} and {right}")
    return Group(Differences(found, left, right), Text(f"{len(found)} difference{'s' * (len(found) > 1)}", style="dim"))


@dataclass(frozen=True)
class Differences:
    """The differences of two experiments, which are named `left` and `right`, as a table."""

    found: Sequence[Difference]
    left: str
    right: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [("path", self.left, self.right)]
        rows += [(path, short_repr(left, LETTERS), short_repr(right, LETTERS)) for path, left, right in self.found]
        paths, *values = ([cell_len(cell) for cell in column] for column in zip(*rows, strict=True))
        if max(paths) + sum(2 + min(max(widths), READABLE) for widths in values) <= options.max_width:
            yield _table(rows)
            return
        yield _sides("", self.left, self.right)
        for path, left, right in rows[1:]:
            yield Text(path, style="bold", overflow="fold")
            yield _sides("  ", left, right)


def _table(rows: Sequence[tuple[str, str, str]]) -> Table:
    """A head, and a line for each path."""
    (path, left, right), *rest = rows
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(path, style="bold", no_wrap=True)
    table.add_column(Text(left), style="red", overflow="fold")
    table.add_column(Text(right), style="green", overflow="fold")
    for path, left, right in rest:
        table.add_row(path, Text(left), Text(right))
    return table


def _sides(indent: str, left: str, right: str) -> Table:
    """Both values, as a diff shows them."""
    sides = Table.grid(padding=(0, 1, 0, 0))
    sides.add_column(no_wrap=True)
    sides.add_column(overflow="fold")
    for sign, said, style in (("-", left, "red"), ("+", right, "green")):
        sides.add_row(Text(indent + sign, style=style), Text(said, style=style))
    return sides
