"""Evaluation: a split is embedded once, and every evaluator that reads it judges the embeddings."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from rich.console import Console

from mmjax import metrics, serialization
from mmjax.checkpoint import latest_step, restore_params
from mmjax.data.pipeline import Prepared, evaluation_batches
from mmjax.errors import UserError, nearest
from mmjax.evaluators.embedded import Embedded, Evaluator
from mmjax.experiment import RECORD, Experiment, build
from mmjax.mesh import Mesh, put, replicated
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.progress import Results, tables
from mmjax.workdir import going_on, prepared

Params = dict[str, Any]


class Embedder:
    """Embeds a split, or strings, with the given parameters, in padded batches over the mesh; compiled once."""

    def __init__(self, pretrainer: Pretrainer, data: Prepared, mesh: jax.sharding.Mesh, batch_size: int):
        """batch_size: over all hosts; the mesh must divide it."""
        self._data, self._mesh, self._batch_size = data, mesh, batch_size
        embed = lambda params, batch: pretrainer.apply({"params": params}, batch, method="embed")  # noqa: E731
        self._embed = jax.jit(embed, out_shardings=replicated(mesh))

    def split(self, params: Params, split: str, inputs: Iterable[str] = ()) -> Embedded:
        """Every example of the split, once; of the batches' entries those in `inputs` are kept too."""
        embeddings: dict[str, list[np.ndarray]] = {}
        valid: dict[str, list[np.ndarray]] = {}
        kept: dict[str, list[np.ndarray]] = {}
        columns: dict[str, list[Any]] = {}
        for batch, names in evaluation_batches(self._data, split, self._batch_size):
            rows = len(names["id"])  # the last batch is padded, its columns aren't
            for modality, vectors in self._vectors(params, batch).items():
                embeddings.setdefault(modality, []).append(vectors[:rows])
                valid.setdefault(modality, []).append(batch[f"{modality}_valid"][:rows])
            for name in inputs:
                if name in batch:
                    kept.setdefault(name, []).append(batch[name][:rows])
            for name, values in names.items():
                columns.setdefault(name, []).extend(values)
        together = [{name: np.concatenate(parts) for name, parts in d.items()} for d in (embeddings, valid, kept)]
        return Embedded(together[0], together[1], columns, together[2], split)

    def text(self, params: Params, strings: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Unit vectors of prompts, which go through the experiment's own text transforms."""
        if "text" not in self._data.chains.specs:
            raise UserError(f"prompts need a text tower; the data has {', '.join(self._data.chains.specs)}")
        found = []
        for start in range(0, len(strings), self._batch_size):
            part = list(strings[start : start + self._batch_size])
            batch = self._data.chains.encode(text=part + [None] * (self._batch_size - len(part)))
            found.append(self._vectors(params, batch)["text"][: len(part)])
        return np.concatenate(found)

    def _vectors(self, params: Params, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return jax.device_get(self._embed(params, put(batch, self._mesh)))


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

    found: is told each split's metrics as soon as they are there.

    Raises:
        UserError: two evaluators of a split give a metric of the same name.
    """
    results: dict[str, dict[str, float]] = {}
    for split in dict.fromkeys(evaluator.split for evaluator in evaluators):
        mine = [evaluator for evaluator in evaluators if evaluator.split == split]
        inputs = {name for evaluator in mine for name in evaluator.inputs}
        embedded = replace(embedder.split(params, split, inputs), workdir=workdir)
        values: dict[str, float] = {}
        before = [line for line in metrics.read(workdir) if line.get("split") != split or line["step"] != step]
        for evaluator in mine:
            history = [*before, {"step": step, "split": split, **values}]
            judged = evaluator(replace(embedded, history=history), lambda strings: embedder.text(params, strings))
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
    if json_path is not None and not (folder := Path(json_path).absolute().parent).is_dir():
        raise UserError(f"{json_path} can't be written: there is no folder {folder}")
    if not (workdir / RECORD).exists():
        raise UserError(f"{workdir} is not a workdir of a run: it has no {RECORD}")
    if (latest := latest_step(workdir)) is None:
        raise UserError(f"{workdir} has no checkpoint yet; `{going_on(workdir)}` goes on with it")
    experiment: Experiment = build(serialization.loads((workdir / RECORD).read_text(encoding="utf-8")))
    chosen = choose(experiment.evaluators, evaluators, split)
    step = latest if step is None else step
    mesh = Mesh().build()  # whatever the run was sharded over, this machine's devices are what there is
    size = -(-experiment.batch_size // mesh.size) * mesh.size
    with jax.set_mesh(mesh):
        embedder = Embedder(experiment.pretrainer(), prepared(experiment.data, workdir), mesh, size)
        params = jax.device_put(restore_params(workdir, step, ema=True), replicated(mesh))
        results = evaluate(embedder, params, chosen, step=step, workdir=workdir)
    console = console or Console(highlight=False)
    for table in tables(results, step):
        console.print(table)
    if json_path is not None:
        text = json.dumps({"step": step, **results}, indent=2, ensure_ascii=False)
        Path(json_path).write_text(text + "\n", encoding="utf-8")
    return results


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
