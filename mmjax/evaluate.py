"""Evaluation: a split is embedded once, and every evaluator that reads it judges the embeddings."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float
from rich.console import Console

from mmjax import hosts, metrics, serialization
from mmjax.checkpoint import latest_step, restore_params
from mmjax.data.pipeline import Prepared, evaluation_batches
from mmjax.errors import UserError, nearest
from mmjax.evaluators.embedded import Embedded, Evaluator
from mmjax.experiment import RECORD, Experiment, build
from mmjax.mesh import ACTIVATION_RULES, Mesh, put, replicated
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.progress import Results, tables
from mmjax.workdir import going_on, prepared

Params = dict[str, Any]


class Embedder:
    """Embeds a split, or strings, with the given parameters, in padded batches over the mesh; compiled once.

    Of several hosts each reads its part of every batch, and all get the whole: all must ask for the same.
    """

    def __init__(self, pretrainer: Pretrainer, data: Prepared, mesh: jax.sharding.Mesh, batch_size: int):
        """batch_size: over all hosts; the mesh must divide it."""
        self._data, self._mesh, self._batch_size = data, mesh, batch_size
        self._part = hosts.reader(mesh, batch_size)

        def embed(params: Params, batch: dict[str, jax.Array], kept: tuple[str, ...]) -> tuple[Any, Any]:
            with nn.logical_axis_rules(ACTIVATION_RULES):
                vectors = pretrainer.apply({"params": params}, batch, method="embed")
            return vectors, {name: batch[name] for name in kept}

        self._embed = jax.jit(embed, static_argnames="kept", out_shardings=replicated(mesh))

    def split(self, params: Params, split: str, inputs: Iterable[str] = ()) -> Embedded:
        """Every example of the split, once; of the batches' entries those in `inputs` are kept too."""
        embedded: list[dict[str, np.ndarray]] = []
        known: list[dict[str, list[Any]]] = []  # what is told of this host's examples, by batch
        kept: list[dict[str, np.ndarray]] = []
        for batch, names in evaluation_batches(self._data, split, self._batch_size, host=self._part):
            wanted = [f"{modality}_valid" for modality in self._data.chains.specs] + [n for n in inputs if n in batch]
            vectors, entries = self._whole(params, batch, wanted)
            embedded.append(vectors)
            kept.append(entries)
            known.append(names)
        columns = self._columns(known)
        count = len(columns["id"])  # the last batch is padded, its columns aren't
        vectors, entries = (
            {name: np.concatenate([batch[name] for batch in batches])[:count] for name in batches[0]}
            for batches in (embedded, kept)
        )
        valid = {modality: entries[f"{modality}_valid"] for modality in vectors}
        return Embedded(vectors, valid, columns, {name: entries[name] for name in inputs if name in entries}, split)

    def text(self, params: Params, strings: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Unit vectors of prompts, which go through the experiment's own text transforms."""
        if "text" not in self._data.chains.specs:
            raise UserError(f"prompts need a text tower; the data has {', '.join(self._data.chains.specs)}")
        found = []
        index, count = self._part
        rows = slice(index * self._batch_size // count, (index + 1) * self._batch_size // count)
        for start in range(0, len(strings), self._batch_size):
            part = list(strings[start : start + self._batch_size])
            batch = self._data.chains.encode(text=part + [None] * (self._batch_size - len(part)))
            vectors, _ = self._whole(params, {name: array[rows] for name, array in batch.items()})
            found.append(vectors["text"][: len(part)])
        return np.concatenate(found)

    def _whole(
        self, params: Params, batch: dict[str, np.ndarray], kept: Iterable[str] = ()
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Embeddings, and the entries in `kept`, of the batch of all hosts, from this host's rows of it."""
        embedded = self._embed(params, put(batch, self._mesh), kept=("index", *sorted(kept)))
        vectors, entries = jax.device_get(embedded)
        order = np.argsort(entries["index"])  # a mesh may have laid out the hosts' rows in an order of its own
        vectors, entries = ({name: array[order] for name, array in arrays.items()} for arrays in (vectors, entries))
        return vectors, entries

    def _columns(self, known: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
        """The columns of all hosts' examples, in the order of the data, from those of this host's by batch."""
        by_part = dict(hosts.gathered([self._part[0], known]))  # hosts that read the same part say the same
        columns: dict[str, list[Any]] = {}
        for batch in range(len(known)):
            for part in sorted(by_part):
                for name, values in by_part[part][batch].items():
                    columns.setdefault(name, []).extend(values)
        return columns


def evaluate(
    embedder: Embedder,
    params: Params,
    evaluators: Sequence[Evaluator],
    *,
    step: int,
    workdir: Path,
    found: Callable[[str, dict[str, float]], None] = lambda split, values: None,
) -> Results:
    """Metrics by split and flat name, `{"test": {"retrieval/image->text/R@1": 0.41}}`.

    found: is told each split's metrics as soon as they are there. Of several hosts all judge, and the first one draws.

    Raises:
        UserError: two evaluators of a split give a metric of the same name.
    """
    results: dict[str, dict[str, float]] = {}
    for split in dict.fromkeys(evaluator.split for evaluator in evaluators):
        mine = [evaluator for evaluator in evaluators if evaluator.split == split]
        inputs = {name for evaluator in mine for name in evaluator.inputs}
        embedded = replace(embedder.split(params, split, inputs), workdir=workdir if hosts.leads() else None)
        values: dict[str, float] = {}
        lines = metrics.read(workdir) if hosts.leads() else []
        before = [line for line in lines if line.get("split") != split or line["step"] != step]
        for evaluator in mine:
            history = [*before, {"step": step, "split": split, **values}]
            judged = hosts.together(
                partial(evaluator, replace(embedded, history=history), partial(embedder.text, params))
            )
            if twice := sorted(values.keys() & judged.keys()):
                raise UserError(f"two evaluators of the {split} split give {twice[0]!r}: set the field name= of one")
            values |= judged
        results[split] = values
        found(split, values)
    return results


def evaluate_workdir(
    workdir: str | Path,
    *,
    split: str | None = None,
    step: int | None = None,
    evaluators: Sequence[str] | None = None,
    json_path: str | Path | None = None,
    console: Console | None = None,
) -> Results:
    """Judges a checkpoint (default: the latest; its moving average where it has one), by what the workdir holds alone.

    split: what all evaluators read; default: what each of them says. evaluators: names, of the experiment's.
    Prints tables, and writes `{"step": 400, "test": {"retrieval/image->text/R@1": 0.41, ...}}` to `json_path`.

    Raises:
        UserError: no run in the workdir, or no such step, evaluator or split.
    """
    workdir = Path(workdir)
    hosts.join()
    record, latest = hosts.first(lambda: _found(workdir, json_path))
    experiment: Experiment = build(serialization.loads(record))
    chosen = choose(experiment.evaluators, evaluators, split)
    step = latest if step is None else step
    mesh = Mesh().build()  # whatever the run was sharded over, this machine's devices are what there is
    size = -(-experiment.batch_size // mesh.size) * mesh.size
    with jax.set_mesh(mesh):
        data = prepared(experiment.data, workdir, [evaluator.split for evaluator in chosen])
        embedder = Embedder(experiment.pretrainer(), data, mesh, size)
        params = hosts.placed(restore_params(workdir, step, ema=True), replicated(mesh))
        results = evaluate(embedder, params, chosen, step=step, workdir=workdir)
    if hosts.leads():
        console = console or Console(highlight=False)
        for table in tables(results, step):
            console.print(table)
        if json_path is not None:
            text = json.dumps({"step": step, **results}, indent=2, ensure_ascii=False)
            Path(json_path).write_text(text + "\n", encoding="utf-8")
    hosts.wait()
    return results


def _found(workdir: Path, json_path: str | Path | None) -> tuple[str, int]:
    """The experiment's record and the latest step in a workdir, if it can be evaluated."""
    if json_path is not None and not (folder := Path(json_path).absolute().parent).is_dir():
        raise UserError(f"{json_path} can't be written: there is no folder {folder}")
    if not (workdir / RECORD).exists():
        raise UserError(f"{workdir} is not a workdir of a run: it has no {RECORD}")
    if (latest := latest_step(workdir)) is None:
        raise UserError(f"{workdir} has no checkpoint yet; `{going_on(workdir)}` goes on with it")
    return (workdir / RECORD).read_text(encoding="utf-8"), latest


def choose(every: Sequence[Any], names: Sequence[str] | None, split: str | None) -> list[Any]:
    """The evaluators of those names (all, if None), reading `split`; two that become the same are one.

    Raises:
        UserError: an unknown name (the nearest is named), or nothing to run.
    """
    known = list(dict.fromkeys(evaluator.name for evaluator in every))
    if not known:
        raise UserError("the experiment has no evaluators: set its field evaluators, [Retrieval()] say")
    for name in names or ():
        if name not in known:
            has = ", ".join(known)
            raise UserError(f"there is no evaluator {name!r}, the experiment has {has}{nearest(name, known)}")
    chosen: list[Any] = []
    for evaluator in every:
        if split is not None:
            evaluator = replace(evaluator, split=split, when="always")
        if (names is None or evaluator.name in names) and evaluator not in chosen:
            chosen.append(evaluator)
    return chosen
