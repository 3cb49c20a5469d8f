"""Evaluation: a split is embedded once, and every evaluator that reads it judges the embeddings."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float
from rich.console import Console

from mmjax import copies, counts, files, hosts, metrics, published
from mmjax.benchmarks import On, benchmark
from mmjax.checkpoint import latest_step
from mmjax.confined import Record, check_folder
from mmjax.data.chains import Chains
from mmjax.data.pipeline import CONTENT, Prepared, class_names, evaluation_batches
from mmjax.data.sources import WHOLE
from mmjax.errors import UserError, nearest
from mmjax.evaluators.classified import Classified, judged
from mmjax.evaluators.embedded import Embedded, Evaluator, fit_split, protocols, reads_classified, reads_embeddings
from mmjax.experiment import RECORD, Experiment, build
from mmjax.held_out import HeldOut
from mmjax.interop import hub
from mmjax.interop.bundle import PARAMS, Bundle, is_bundle
from mmjax.interop.projects import PROJECTS
from mmjax.interop.resolve import resolve
from mmjax.mesh import ACTIVATION_RULES, Mesh, put, replicated
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.progress import Protocols, Results, tables
from mmjax.report import collectors, write_report
from mmjax.workdir import going_on, prepared

Variables = dict[str, Any]  # Linen's collections
BATCH = 64  # of a model that comes without data


class Embedder:
    """Embeds a split, or strings, with the given variables (`params`, and batch statistics where there are any), in
    padded batches over the mesh; compiled once.

    Of several hosts each reads its part of every batch, and all get the whole: all must ask for the same.
    """

    def __init__(
        self,
        pretrainer: Pretrainer,
        data: Prepared,
        mesh: jax.sharding.Mesh,
        batch_size: int,
        prompts: Chains | None = None,
    ):
        """batch_size: over all hosts; the mesh must divide it.  prompts: whose text chain they go through, if not the
        data's (which may have no text)."""
        self._data, self._mesh, self._batch_size = data, mesh, batch_size
        self._prompts = data.chains if prompts is None else prompts
        self._part = hosts.reader(mesh, batch_size)

        def embed(variables: Variables, batch: dict[str, jax.Array], kept: tuple[str, ...]) -> tuple[Any, Any]:
            with nn.logical_axis_rules(ACTIVATION_RULES):
                vectors = pretrainer.apply(variables, batch, method="embed")
            return vectors, {name: batch[name] for name in kept}

        self._embed = jax.jit(embed, static_argnames="kept", out_shardings=replicated(mesh))
        self.losses = HeldOut(pretrainer, data, mesh, batch_size)

    def split(
        self, variables: Variables, split: str, inputs: Iterable[str] = (), rows: range | None = None
    ) -> Embedded:
        """Every example of the split (or those in `rows`), once; of the batches' entries those in `inputs` are kept."""
        embedded: list[dict[str, np.ndarray]] = []
        known: list[dict[str, list[Any]]] = []  # what is told of this host's examples, by batch
        kept: list[dict[str, np.ndarray]] = []
        stream = evaluation_batches(self._data, split, self._batch_size, host=self._part, rows=rows, contents=True)
        for batch, names in stream:
            wanted = [f"{modality}_valid" for modality in self._data.chains.specs] + [n for n in inputs if n in batch]
            vectors, entries = self._whole(variables, batch, wanted)
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
        contents = {m: columns.pop(m + CONTENT) for m in list(vectors) if m + CONTENT in columns}
        kept_inputs = {name: entries[name] for name in inputs if name in entries}
        named = class_names(self._data, split)
        return Embedded(vectors, valid, columns, kept_inputs, split, class_names=named, contents=contents)

    def text(self, variables: Variables, strings: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Unit vectors of prompts, which go through the experiment's own text transforms."""
        if "text" not in self._prompts.specs:
            raise UserError(f"prompts need a text tower; the data has {', '.join(self._prompts.specs)}")
        found = []
        index, count = self._part
        rows = slice(index * self._batch_size // count, (index + 1) * self._batch_size // count)
        for start in range(0, len(strings), self._batch_size):
            part = list(strings[start : start + self._batch_size])
            batch = self._prompts.encode(text=part + [None] * (self._batch_size - len(part)))
            vectors, _ = self._whole(variables, {name: array[rows] for name, array in batch.items()})
            found.append(vectors["text"][: len(part)])
        return np.concatenate(found)

    def _whole(
        self, variables: Variables, batch: dict[str, np.ndarray], kept: Iterable[str] = ()
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Embeddings, and the entries in `kept`, of the batch of all hosts, from this host's rows of it."""
        embedded = self._embed(variables, put(batch, self._mesh), kept=("index", *sorted(kept)))
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


class Embeds(Protocol):
    """What gives embeddings: an `Embedder`, or a folder of those that one gave before."""

    def split(self, variables: Variables, split: str, inputs: Iterable[str] = ()) -> Embedded: ...
    def text(self, variables: Variables, strings: Sequence[str]) -> Float[np.ndarray, "n e"]: ...
    @property
    def losses(self) -> HeldOut | None: ...


def evaluate(
    embedder: Embeds,
    variables: Variables,
    evaluators: Sequence[Evaluator],
    *,
    step: int,
    workdir: Path | None,
    found: Callable[[str, dict[str, float]], None] = lambda split, values: None,
) -> Results:
    """Metrics by split and flat name, `{"test": {"retrieval/image->text/R@1": 0.41}}`.

    workdir: of the run, whose metrics so far evaluators may look at, and where those that draw do; None: of none.
    Each split is embedded once, for all evaluators that are judged on it or learn from it (`fit_split`); not at all
    where they don't look at embeddings.
    found: is told each split's metrics as soon as they are there. Of several hosts all judge, and the first one draws.

    Raises:
        UserError: two evaluators of a split give a metric of the same name.
    """
    results: dict[str, dict[str, float]] = {}
    judged_on = list(dict.fromkeys(evaluator.split for evaluator in evaluators))
    splits: dict[str, Embedded] = {}

    def once(split: str) -> Embedded:
        if split not in splits and not any(map(reads_embeddings, _readers(evaluators, split))):
            splits[split] = Embedded({}, {}, split=split)
        elif split not in splits:
            wanted = {name for evaluator in evaluators if evaluator.split == split for name in evaluator.inputs}
            splits[split] = embedder.split(variables, split, wanted)
        return splits[split]

    for number, split in enumerate(judged_on):
        mine = [evaluator for evaluator in evaluators if evaluator.split == split]
        losses = embedder.losses and partial(embedder.losses, variables, split, step=step)
        embedded = replace(once(split), workdir=workdir if hosts.leads() else None, losses=losses)
        values: dict[str, float] = {}
        classified: list[Classified] = []
        telling = any(reads_classified(evaluator) for evaluator in mine)
        lines = metrics.read(workdir) if workdir is not None and hosts.leads() else []
        before = [line for line in lines if line.get("split") != split or line["step"] != step]
        for evaluator in mine:
            history = [*before, {"step": step, "split": split, **values}]
            learnt = once(name) if (name := fit_split(evaluator)) is not None else None
            given = replace(embedded, history=history, fit=learnt, classified=list(classified))
            text = partial(embedder.text, variables)
            if telling:
                scores, decided = hosts.together(partial(judged, evaluator, given, text))
            else:
                scores, decided = hosts.together(partial(evaluator, given, text)), []
            if twice := sorted(values.keys() & scores.keys()):
                raise UserError(f"two evaluators of the {split} split give {twice[0]!r}: set the field name= of one")
            values |= scores
            classified += decided
        results[split] = values
        found(split, values)
        later = {name for e in evaluators if e.split in judged_on[number + 1 :] for name in (e.split, fit_split(e))}
        splits = {name: kept for name, kept in splits.items() if name in later}  # the others' memory is free again
    return results


def _readers(evaluators: Sequence[Evaluator], split: str) -> list[Evaluator]:
    """Those that are judged on a split, or learn from it."""
    return [evaluator for evaluator in evaluators if split in (evaluator.split, fit_split(evaluator))]


def evaluate_model(
    source: str | Path,
    *,
    split: str | None = None,
    step: int | None = None,
    evaluators: Sequence[str | Evaluator] | None = None,
    on: str | None = None,
    data_dir: str | None = None,
    labels: Sequence[str] = (),
    templates: Sequence[str] = (),
    json_path: str | Path | None = None,
    report: str | Path | None = None,
    console: Console | None = None,
) -> Results:
    """Judges a model: what `mmjax.load` takes. Of a workdir the latest checkpoint, and its moving average where it has
    one.

    split: what all evaluators read; default: what each of them says, and all rows of a table (`benchmarks.benchmark`).
    evaluators: names, of the experiment's; or evaluators. on: another dataset than the experiment's own, by the name of
    a benchmark ("cifar100", with the evaluators that it comes with) or as a table of one's own files (with the
    experiment's, or where it has none with Retrieval); its pictures, captions and sounds go through the experiment's
    own transforms. labels: columns of the table that ZeroShot is to find besides, by prompts made with `templates`.
    data_dir: where its dataset is, or is to be built.
    Prints tables, and writes `{"step": 400, "test": {"retrieval/image->text/R@1": 0.41, ...}}` to `json_path`.
    A page of HTML with all of it goes to `report`. Of a model by name, on a benchmark, all three have what is published
    of it beside what is measured (`published.beside`), as far as it is measured in the benchmark's own way.

    Raises:
        UserError: there is no such model, or no such step, evaluator, split or benchmark.
    """
    hosts.join()
    workdir = Path(source) if hosts.first(lambda: _is_workdir(source, (json_path, report))) else None
    if workdir is not None and step is None:
        step = hosts.first(lambda: latest_step(workdir))
    if hub.is_name(str(source)):
        hosts.first(lambda: hub.fetched(str(source), print).source)  # the others find it in the cache
    bundle: Bundle = hosts.together(lambda: resolve(source, step=step, say=lambda text: None))
    experiment: Experiment = build(bundle.config)
    if workdir is not None:
        hosts.first(partial(check_folder, workdir))
    if on is None and (labels or templates):
        raise UserError("the evaluators of a model know their labels: --label and --templates are for a table, --on")
    say = partial((console or Console(highlight=False)).print, soft_wrap=True, markup=False)
    other = None if on is None else benchmark(on, experiment, data_dir, labels, templates)
    if other is None and not experiment.data.weights:
        raise UserError(f"{source} brings no data of its own: say --on what it is to be judged")
    chosen = choose(experiment.evaluators if other is None else other.evaluators, evaluators, split)
    if other is not None and evaluators is None:
        chosen = [evaluator for evaluator in chosen if evaluator.name in other.default] or chosen
    if other is not None:
        chosen = _readable(chosen, other, on or "", evaluators is not None, console)
    for evaluator in chosen:
        if fit_split(evaluator) is not None and evaluator.split == WHOLE:
            raise UserError(
                f"{evaluator.name} learns from the {fit_split(evaluator)} split, and the split {WHOLE!r}, on which it "
                "is to be judged, holds those rows too: give --split test, say, or --evaluators without it"
            )
    mesh = Mesh().build()  # whatever the run was sharded over, this machine's devices are what there is
    size = experiment.batch_size if experiment.data.weights else BATCH  # another project's model says nothing of it
    size = -(-size // mesh.size) * mesh.size
    with jax.set_mesh(mesh):
        read = [name for e in chosen for name in (e.split, fit_split(e)) if name is not None]
        given = Record(str(source), bundle.tokenizers, data=other is None)
        mixture = experiment.data if other is None else other.data
        data = prepared(mixture, workdir, read, bundle.tokenizers, given, say)
        prompts = Chains(experiment.data.transforms, {**bundle.tokenizers, **data.chains.tokenizers})
        embedder = Embedder(experiment.pretrainer(), data, mesh, size, prompts)
        variables = hosts.placed(bundle.variables, replicated(mesh))
        collected = collectors(chosen, data) if report is not None else []
        results = evaluate(embedder, variables, [*chosen, *collected], step=step or 0, workdir=workdir)
    check_judged(results, chosen, on or "its own data")
    if hosts.leads():
        own = [] if other is None else [evaluator for evaluator in chosen if evaluator in other.evaluators]
        beside = published.beside(str(source), on or "", results, own)
        if report is not None:
            about: dict[str, Any] = dict(source=str(source), step=step, on=on, experiment=experiment, workdir=workdir)
            write_report(report, collected, params=bundle.variables["params"], beside=beside, **about)
        where = {"model": str(source), "step": step} | ({} if on is None else {"on": on})
        bad = not_finite(bundle.variables)
        if bad:
            say = console or Console(highlight=False, stderr=True)
            more = f" and {len(bad) - 1:,} others" if len(bad) > 1 else ""
            say.print(f"the model's weights hold NaN or infinity: {bad[0]}{more}", soft_wrap=True)
        tell(results, where, beside, bundle.source, json_path, console, protocols(chosen))
    hosts.wait()
    return results


def tell(
    results: Results,
    where: dict[str, Any],
    beside: Sequence[dict[str, Any]],
    model: str,
    json_path: str | Path | None,
    console: Console | None,
    how: Protocols,
) -> None:
    """Prints results, and writes them where that is asked for. where: what the file says of them first, `step` and `on`
    for the screen too. beside: what is published of them, by `model`. how: was counted."""
    console, on = console or Console(highlight=False), where.get("on", "")
    for table in tables(results, where["step"], on, how):
        console.print(table)
    if beside:
        published.show(console, beside, model, on)
    if json_path is not None:
        also: dict[str, Any] = {"published": {"model": model, "numbers": beside}} if beside else {}
        also |= {"protocols": {split: list(said) for split, said in how.items() if said}}
        text = json.dumps({**where, **results, **also}, indent=2, ensure_ascii=False)
        Path(json_path).write_text(text + "\n", encoding="utf-8")


def check_judged(results: Results, chosen: Sequence[Any], on: str) -> None:
    """Raises UserError where evaluators that compare found nothing to: no number at all is no result."""
    comparing = [e for e in chosen if hasattr(e, "protocol") or hasattr(e, "label")]
    if comparing and not any(counts.scores(values) for values in results.values()):
        names, splits = (", ".join(dict.fromkeys(getattr(e, n) for e in comparing)) for n in ("name", "split"))
        raise UserError(
            f"{on}, split {splits}: there was nothing to judge for {names}: no example holds both of what is to be "
            "compared (two of picture, caption and sound, or one of them and a label), in cells that aren't empty and "
            "files that can be read"
        )


def _is_workdir(source: str | Path, written: Iterable[str | Path | None]) -> bool:
    """Whether `source` is a run's, or another kind of model; if `written` can be written.

    Raises:
        UserError: a workdir without checkpoints, or a folder where a file is to be written, or none for it.
    """
    for path in written:
        files.check_writable(path)
    workdir = Path(source)
    if (workdir / PARAMS).exists() or not copies.whole(workdir, RECORD).exists():
        if (
            workdir.is_dir()
            and not any(project.owns(workdir) for project in PROJECTS.values())
            and not is_bundle(workdir)
        ):
            raise UserError(f"{workdir} is not a workdir of a run: it has no {RECORD}")
        return False
    if latest_step(workdir) is None:
        raise UserError(f"{workdir} has no checkpoint yet; `{going_on(workdir)}` goes on with it")
    return True


def _readable(chosen: list[Any], other: On, on: str, asked: bool, console: Console | None) -> list[Any]:
    """The evaluators for which the table has what they read; the others are told, or an error where they were asked for
    or none stays."""
    lacking = {evaluator: column for evaluator in chosen if (column := other.lacking(evaluator)) is not None}
    there = [evaluator for evaluator in chosen if evaluator not in lacking]
    if lacking and (asked or not there):
        evaluator, column = next(iter(lacking.items()))
        raise UserError(f"{evaluator.name} reads a column {column!r}, which {on} lacks: {other.labels}")
    for evaluator, column in lacking.items():
        if hosts.leads():
            screen = console or Console(highlight=False)
            screen.print(f"{evaluator.name} is left out: {on} has no column {column!r}; {other.labels}", soft_wrap=True)
    return there


def not_finite(variables: Variables) -> list[str]:
    """The paths of arrays that hold NaN or infinity."""
    flat = flatten_dict(variables, sep="/")
    return [path for path, leaf in sorted(flat.items()) if not np.isfinite(np.asarray(leaf, np.float32)).all()]


def choose(every: Sequence[Any], names: Sequence[str | Evaluator] | None, split: str | None) -> list[Any]:
    """The evaluators of those names (all, if None), reading `split`; two that become the same are one.

    names: evaluators among them are taken as they are.

    Raises:
        UserError: an unknown name (the nearest is named), or nothing to run.
    """
    given = [evaluator for evaluator in names or () if not isinstance(evaluator, str)]
    asked = None if names is None else [name for name in names if isinstance(name, str)]
    known = list(dict.fromkeys(evaluator.name for evaluator in every))
    if not known and not given:
        raise UserError("the experiment has no evaluators: set its field evaluators, [Retrieval()] say")
    for name in asked or ():
        if name not in known:
            has = ", ".join(known)
            raise UserError(f"there is no evaluator {name!r}, the experiment has {has}{nearest(name, known)}")
    chosen: list[Any] = []
    for evaluator in [*(e for e in every if asked is None or e.name in asked), *given]:
        if split is not None:
            evaluator = replace(evaluator, split=split, when="always")
        if evaluator not in chosen:
            chosen.append(evaluator)
    return chosen
