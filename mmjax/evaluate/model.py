"""Evaluates a model: a workdir, an export, or another project's checkpoint."""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from mmjax.data.chains import Chains
from mmjax.data.sources.splits import WHOLE
from mmjax.errors import UserError, nearest
from mmjax.evaluate import published
from mmjax.evaluate.benchmarks import On, benchmark
from mmjax.evaluate.contract import Evaluator, check_evaluators, protocols, splits_read
from mmjax.evaluate.evaluate import check_judged, evaluate, not_finite_paths
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.prepared_model import prepared_model, resolved
from mmjax.evaluate.report.of_model import collectors, write_report
from mmjax.evaluate.reranking import with_reranked
from mmjax.evaluate.tables import Protocols, Results, tables
from mmjax.experiment.confined import Record, check_folder
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.record import RECORD
from mmjax.experiment.workdir import going_on, prepared
from mmjax.interop import hub
from mmjax.interop.bundle import PARAMS, is_bundle
from mmjax.interop.projects import PROJECTS
from mmjax.runtime import copies, hosts
from mmjax.runtime.checkpoints import latest_step
from mmjax.runtime.files import output

BATCH = 64  # batch size for a model that comes without data


def evaluate_model(
    source: str | Path,
    *,
    split: str | None = None,
    step: int | None = None,
    code: Any = None,
    evaluators: Sequence[str | Evaluator] | None = None,
    on: str | None = None,
    data_dir: str | None = None,
    labels: Sequence[str] = (),
    templates: Sequence[str] = (),
    rerank: int | None = None,
    json_path: str | Path | None = None,
    report: str | Path | None = None,
    console: Console | None = None,
) -> Results:
    """Judges any model that `mmjax.load` takes. For a workdir it is the latest checkpoint, with its moving average
    where it has one.

    split: for all evaluators; default: each one's own, and all rows of a table (`benchmarks.benchmark`).
    code: as in `mmjax.load`.
    evaluators: names, of the experiment's; or evaluators. on: another dataset than the experiment's own, by the name of
    a benchmark ("cifar100", with the evaluators that it comes with) or as a table of one's own files (with the
    experiment's, or where it has none with Retrieval); its pictures, captions and sounds go through the experiment's
    own transforms. labels: columns of the table that ZeroShot classifies too, by prompts made with `templates`.
    rerank: the number of the towers' candidates that each of the experiment's `Matching` objectives puts in order
    (`Reranked`), on every split that is judged; None: none.
    data_dir: the folder where its dataset is, or is built. Prints tables, and writes `{"step": 400, "test":
    {"retrieval/image->text/R@1": 0.41, ...}}` to `json_path`. A page of HTML with all results goes to `report`. For a
    model by name, on a benchmark, all three have published numbers beside the measured ones (`published.beside`), as
    far as these are measured in the benchmark's own way.

    Raises:
        UserError: there is no such model, or no such step, evaluator, split or benchmark; or nothing to re-rank by.
    """
    hosts.join()
    workdir = Path(source) if hosts.first(lambda: _is_workdir(source, (json_path, report))) else None
    if workdir is not None and step is None:
        step = hosts.first(lambda: latest_step(workdir))
    fetching = print if hub.is_name(str(source)) else lambda text: None
    bundle = resolved(source, step, fetching, code)
    experiment: Experiment = build(bundle.config)
    if workdir is not None:
        hosts.first(partial(check_folder, workdir))
    if on is None and (labels or templates):
        raise UserError("the evaluators of a model know their labels: --label and --templates are for a table, --on")
    say = partial((console or Console(highlight=False)).print, soft_wrap=True, markup=False)
    other = None if on is None else benchmark(on, experiment, data_dir, labels, templates)
    if other is None and not experiment.data.weights:
        raise UserError(f"{source} brings no data of its own: say --on what it is to be judged")
    every = experiment.evaluators if other is None else other.evaluators
    every = every or ([Retrieval()] if rerank is not None else [])
    chosen = choose(every, evaluators, split)
    if other is not None and evaluators is None:
        chosen = [evaluator for evaluator in chosen if evaluator.name in other.default] or chosen
    if other is not None:
        chosen = _readable(chosen, other, on or "", evaluators is not None, console)
    if rerank is not None:
        chosen = with_reranked(chosen, experiment.objectives, rerank)
    for evaluator in chosen:
        if evaluator.fit_split is not None and evaluator.split == WHOLE:
            raise UserError(
                f"{evaluator.name} learns from the {evaluator.fit_split} split, and the split {WHOLE!r}, on which it "
                "is to be judged, holds those rows too: give --split test, say, or --evaluators without it"
            )
    given = Record(str(source), bundle.tokenizers, data=other is None)
    mixture = experiment.data if other is None else other.data
    data = prepared(mixture, workdir, splits_read(chosen), bundle.tokenizers, given, say)
    prompts = Chains(experiment.data.transforms, {**bundle.tokenizers, **data.chains.tokenizers})
    size = experiment.batch_size if experiment.data.weights else BATCH  # another project's model has no batch size
    model = prepared_model(experiment, data, size, prompts)
    with model.holding(bundle.variables) as variables:
        collected = collectors(chosen, data) if report is not None else []
        results = evaluate(model.embedder, variables, [*chosen, *collected], step=step or 0, workdir=workdir)
    check_judged(results, chosen, on or "its own data")
    if hosts.leads():
        own = [] if other is None else [evaluator for evaluator in chosen if evaluator in other.evaluators]
        beside = published.beside(str(source), on or "", results, own)
        if report is not None:
            about: dict[str, Any] = dict(source=str(source), step=step, on=on, experiment=experiment, workdir=workdir)
            write_report(report, collected, params=bundle.variables["params"], beside=beside, **about)
        where = {"model": str(source), "step": step} | ({} if on is None else {"on": on})
        bad = not_finite_paths(bundle.variables)
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
    """Prints results, and writes them to a file if one is named. where: the first entries of the file, `step` and `on`
    for the screen too. beside: published numbers, of `model`. how: the protocols.
    """
    console, on = console or Console(highlight=False), where.get("on", "")
    for table in tables(results, where["step"], on, how):
        console.print(table)
    if beside:
        published.show(console, beside, model, on)
    if json_path is not None:
        also: dict[str, Any] = {"published": {"model": model, "numbers": beside}} if beside else {}
        also |= {"protocols": {split: list(said) for split, said in how.items() if said}}
        text = json.dumps({**where, **results, **also}, indent=2, ensure_ascii=False)
        output.write(json_path, text + "\n")


def _is_workdir(source: str | Path, written: Iterable[str | Path | None]) -> bool:
    """True if `source` is a workdir; also checks that `written` can be written.

    Raises:
        UserError: a workdir has no checkpoints, or a file's path is a folder, or lacks its folder.
    """
    for path in written:
        output.check_writable(path)
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


def _readable(chosen: list[Evaluator], other: On, on: str, asked: bool, console: Console | None) -> list[Evaluator]:
    """The evaluators whose columns the table has; the others are reported, or raise where they were named or none is
    left.
    """
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


def choose(every: Sequence[Evaluator], names: Sequence[str | Evaluator] | None, split: str | None) -> list[Evaluator]:
    """The evaluators of those names (all, if None), reading `split`; two that become the same are one.

    names: evaluators among them are used unchanged.

    Raises:
        UserError: a name is unknown (the message has the nearest), there is nothing to run, or one isn't an
            `Evaluator`.
    """
    given = [evaluator for evaluator in names or () if not isinstance(evaluator, str)]
    check_evaluators([*every, *given])
    asked = None if names is None else [name for name in names if isinstance(name, str)]
    known = list(dict.fromkeys(evaluator.name for evaluator in every))
    if not known and not given:
        raise UserError("the experiment has no evaluators: set its field evaluators, [Retrieval()] say")
    for name in asked or ():
        if name not in known:
            has = ", ".join(known)
            raise UserError(f"there is no evaluator {name!r}, the experiment has {has}{nearest(name, known)}")
    chosen: list[Evaluator] = []
    for evaluator in [*(e for e in every if asked is None or e.name in asked), *given]:
        if split is not None:
            evaluator = evaluator.on(split)
        if evaluator not in chosen:
            chosen.append(evaluator)
    return chosen
