"""`mmjax evaluate --report`: the page of an evaluation, of what the experiment and its workdir tell of it."""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from mmjax import __version__, metrics
from mmjax.data.pipeline import Prepared, raw
from mmjax.experiment import Experiment
from mmjax.reporting.findings import Collector
from mmjax.reporting.page import About, write


def collectors(evaluators: Sequence[Any], data: Prepared) -> list[Collector]:
    """What is to run after the evaluators, on each split that they read, so that a page can be made."""
    splits = dict.fromkeys(evaluator.split for evaluator in evaluators)
    return [
        Collector(split, [e for e in evaluators if e.split == split], partial(raw, data, split)) for split in splits
    ]


def write_report(
    path: str | Path,
    collected: Sequence[Collector],
    *,
    name: str,
    experiment: Experiment,
    params: dict[str, Any],
    step: int,
    workdir: Path,
) -> Path:
    """Writes the page. name: what the experiment is called. params: of which the sizes are told."""
    sizes = {tower: _size(params.get(f"towers_{tower}", {})) for tower in experiment.towers}
    towers = ", ".join(
        f"{tower} {type(module).__name__}" + (f" {sizes[tower]:,}" if sizes[tower] else "")
        for tower, module in experiment.towers.items()
    )
    facts = [
        ("experiment", name or "without a name"),
        ("workdir", str(workdir)),
        ("checkpoint", f"step {step:,} of {experiment.steps:,}, batches of {experiment.batch_size:,}"),
        ("data", ", ".join(experiment.data.weights)),
        ("parameters", f"{_size(params):,} in all: {towers}"),
        ("mmjax", __version__),
        ("again by", shlex.join(["mmjax", "evaluate", str(workdir), "--step", str(step), "--report", str(path)])),
    ]
    findings = [found for each in collected for found in each.kept]
    title = name.rpartition("/")[2] or Path(workdir).absolute().name
    return write(path, About(title, step, facts), findings, metrics.read(workdir))


def _size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
