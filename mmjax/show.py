"""An experiment, or the difference of two, on the terminal."""

from typing import Any

import fiddle as fdl
import jax
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from mmjax.configs import Difference, children, defaults, holds_configs, name_of, short, target
from mmjax.data.pipeline import batch_spec
from mmjax.experiment import Experiment

UNLIMITED = 1 << 20


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
        label.append(": ", style="not bold").append(name_of(value), style="not bold cyan")
        usual = defaults(target(value))
    for field, item in children(value).items():
        if holds_configs(item):
            continue
        left_alone = field in usual and type(usual[field]) is type(item) and usual[field] == item
        label.append("  ").append(
            f"{field}={short(item, UNLIMITED)}", style="not bold dim" if left_alone else "not bold"
        )
    return label


def parameters(experiment: Experiment) -> RenderableType:
    """How many parameters each tower and objective has. Counted without making any, and without reading data.

    Raises:
        ValueError: the parts don't fit together, say pictures that don't divide into patches.
    """
    pretrainer, batch = experiment.pretrainer(), batch_spec(experiment.data, batch_size=1)

    def init() -> Any:
        keys = {name: jax.random.key(0) for name in ("params", "mask", "dropout")}
        return pretrainer.init(keys, batch, train=False)["params"]

    leaves = {name: jax.tree.leaves(tree) for name, tree in jax.eval_shape(init).items()}
    order = [f"towers_{name}" for name in experiment.towers] + [f"objectives_{name}" for name in experiment.objectives]
    counts = {name: sum(leaf.size for leaf in leaves[name]) for name in order if name in leaves}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for name, count in {**counts, "parameters in all": sum(counts.values())}.items():
        table.add_row(name, Text(f"{count:,}", justify="right"))
    return table


def differences(found: list[Difference], left: str, right: str) -> RenderableType:
    """A line for each path at which two experiments differ, with both values."""
    if not found:
        return Text(f"no difference between {left} and {right}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("path", style="bold", no_wrap=True)
    table.add_column(left, style="red", overflow="fold")
    table.add_column(right, style="green", overflow="fold")
    for path, a, b in found:
        table.add_row(path, Text(short(a, 400)), Text(short(b, 400)))
    return Group(table, Text(f"{len(found)} difference{'s' * (len(found) > 1)}", style="dim"))
