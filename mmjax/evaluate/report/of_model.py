"""`mmjax evaluate --report`: the page of an evaluation, with facts of the experiment and its workdir."""

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from mmjax import __version__
from mmjax.data.evaluation import raw
from mmjax.data.pipeline import Prepared
from mmjax.data.transforms.spans import heard_of
from mmjax.evaluate.contract import Evaluator
from mmjax.evaluate.report.findings import Collector
from mmjax.evaluate.report.page import About, write_page
from mmjax.experiment import record as records
from mmjax.experiment.definition import Experiment
from mmjax.experiment.record import RECORD
from mmjax.runtime import copies, metrics
from mmjax.runtime.files import json_text


def collectors(evaluators: Sequence[Evaluator], data: Prepared) -> list[Collector]:
    """The evaluators that run last on each split, and collect the results for a page."""
    splits = dict.fromkeys(evaluator.split for evaluator in evaluators)
    most = {name: heard_of(spec) for name, spec in data.chains.specs.items() if spec.kind.plays}
    return [
        Collector([e for e in evaluators if e.split == split], partial(raw, data, split), split, heard=most)
        for split in splits
    ]


def write_report(
    path: str | Path,
    collected: Sequence[Collector],
    *,
    source: str,
    step: int | None,
    on: str | None,
    experiment: Experiment,
    params: dict[str, Any],
    workdir: Path | None,
    beside: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes the page. source: the model's name as given. params: for the sizes. on: the dataset, if not the
    experiment's own. workdir: of the run whose record and metrics are shown, if any. beside: published numbers
    (`published.beside`).
    """
    record = None if workdir is None else json_text.text(copies.whole(workdir, RECORD))
    name = "" if record is None else records.name_of(record)
    sizes = {tower: _size(params.get(f"towers_{tower}", {})) for tower in experiment.towers}
    towers = ", ".join(
        f"{tower} {type(module).__name__}" + (f" {sizes[tower]:,}" if sizes[tower] else "")
        for tower, module in experiment.towers.items()
    )
    again = [] if step is None else ["--step", str(step)]
    again += [] if on is None else ["--on", on]
    again += [] if record is None or workdir is None else records.code_options(record, workdir)
    facts = [
        *([("experiment", name or "without a name")] if record is not None else []),
        ("model", source),
        *(
            []
            if step is None
            else [("checkpoint", f"step {step:,} of {experiment.steps:,}, batches of {experiment.batch_size:,}")]
        ),
        ("data", on or ", ".join(experiment.data.weights)),
        ("parameters", f"{_size(params):,} in all: {towers}"),
        ("mmjax", __version__),
        ("again by", shlex.join(["mmjax", "evaluate", source, *again, "--report", str(path)])),
    ]
    findings = [found for each in collected for found in each.kept]
    title = name.rpartition("/")[2] or source.rpartition("/")[2]
    return write_page(
        path, About(title, step, facts, beside), findings, [] if workdir is None else metrics.read(workdir)
    )


def _size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
