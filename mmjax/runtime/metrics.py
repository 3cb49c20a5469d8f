"""Writes the metrics of a run: as JSON lines, to TensorBoard and, where asked for, to Weights & Biases."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from etils import epath

from mmjax.errors import UserError
from mmjax.runtime import copies, jsonl
from mmjax.runtime.checkpoints import latest_step, set_aside
from mmjax.runtime.files import json_text, output
from mmjax.runtime.metric_families import tensorboard_tag
from mmjax.runtime.tensorboard import Event, FileWriter, SessionLog, Summary

FILE = "metrics.jsonl"
WATCHED = "evaluations.jsonl"  # written by `mmjax evaluate --watch` alone: no file has two writers
TENSORBOARD = "tensorboard"

log = logging.getLogger(__name__)


class Metrics:
    """Writes metrics by flat name into a workdir.

    `metrics.jsonl` has one flat object a line: `{"step": 20, "loss": 5.2, ...}` for training, and
    `{"step": 20, "split": "test", "retrieval/image->text/R@1": 0.41, ...}` for an evaluation; a number that isn't
    finite is null. `tensorboard/train` and `tensorboard/<split>` have the same, those of training that are no scores in
    groups (`metric_families.tag`: `batch_hash` is `health/batch_hash` there).
    """

    def __init__(
        self,
        workdir: Path,
        *,
        step: int = 0,
        wandb: str | None = None,
        config: Any = None,
        writes: bool = True,
        say: Callable[[str], None] = lambda text: None,
    ):
        """Goes on after `step`: lines of later steps, left by a run that was cut off, are dropped. Lost lines are
        restored from the step's checkpoint (`copies`); `say` gets a message of them, and of those that can't be
        restored.

        wandb: the project to mirror everything to; needs the extra `wandb` (UserError without it). config: shown there.
        writes: False (only one of several hosts writes) keeps evaluations in memory, and leaves the workdir as it is.
        """
        self._step, self._writes = step, writes
        found = jsonl.read(workdir / FILE)
        kept, told, damaged = _whole(workdir, found, step) if step else ([], "", False)
        if told:
            say(told)
        # The time of the runs before, dropped lines included, and the part of it that wasn't lost (`goodput`).
        self.seconds: float = max((line.get("seconds") or 0.0 for line in (*found, *kept)), default=0.0)
        self.stepped: float = max(
            ((line.get("goodput") or 0.0) * (line.get("seconds") or 0.0) for line in kept), default=0.0
        )
        trained = [line for line in kept if "split" not in line]
        self.last: dict[str, Any] = trained[-1] if trained else {}  # the last line of training written so far
        idle = [line.get("loss") == 0 and line.get("grad_norm") == 0 for line in trained]
        self.nothing = all(idle) if trained else not step  # True if no step so far had a valid example
        self._evaluations = {(line["step"], line["split"]): line for line in kept if "split" in line}
        self._watched: dict[tuple[int, str], dict[str, Any]] = {}
        self._tensorboard = workdir / TENSORBOARD
        self._writers: dict[str, FileWriter] = {}
        self._wandb = None
        if writes:
            workdir.mkdir(parents=True, exist_ok=True)
            if damaged and (workdir / FILE).exists():
                set_aside(epath.Path(workdir / FILE), epath.Path(workdir))
            jsonl.rewrite(workdir / FILE, kept)
            if (workdir / WATCHED).exists() or step:  # a watcher reopens it for every line
                _rewrite_watched(workdir, step)
            self._file = (workdir / FILE).open("a", encoding="utf-8")
            self._wandb = _wandb_run(wandb, workdir, config) if wandb else None

    def write(self, step: int, values: Mapping[str, float], split: str | None = None) -> None:
        """Writes one line of `values`; `split` marks those of an evaluation."""
        line: dict[str, Any] = {"step": step} | ({"split": split} if split else {})
        line |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        if split:
            self._evaluations[step, split] = line
        if not self._writes:
            return
        self._file.write(jsonl.lines_text(line))
        self._file.flush()
        writer = self._writer(split or "train")
        writer.add_summary(
            _summary(values if split else {tensorboard_tag(name): value for name, value in values.items()}), step
        )
        writer.flush()
        if self._wandb is not None:
            self._wandb.log({f"{split}/{name}" if split else name: value for name, value in values.items()}, step=step)

    def evaluations(self, step: int) -> dict[str, dict[str, float]]:
        """The evaluations written for that step: `{split: {name: value}}`."""
        return {
            split: {name: value for name, value in line.items() if name not in ("step", "split")}
            for (at, split), line in self._evaluations.items()
            if at == step
        }

    def take(self, watched: Iterable[Mapping[str, Any]]) -> None:
        """Stores a watcher's evaluations (`watched`), for `known`."""
        self._watched = {(line["step"], line["split"]): dict(line) for line in watched if "split" in line}

    def known(self, step: int) -> dict[str, dict[str, float]]:
        """The evaluations of a step, as `evaluations` has them, and those of a watcher."""
        mine = self.evaluations(step)
        for (at, split), line in self._watched.items():
            if at == step:
                mine[split] = {n: v for n, v in line.items() if n not in ("step", "split")} | mine.get(split, {})
        return mine

    def _writer(self, run: str) -> FileWriter:
        if run not in self._writers:  # a TensorBoard run for each split, so that one chart shows them all
            suffix = f".{self._step}"  # names hold the time in seconds: a run that goes on at once must not overwrite
            self._writers[run] = FileWriter(str(self._tensorboard / run), filename_suffix=suffix)
            if self._step:  # TensorBoard then drops later steps of the run that was cut off
                start = SessionLog(status=SessionLog.START)
                self._writers[run].add_event(Event(session_log=start, step=self._step + 1))
        return self._writers[run]

    def close(self) -> None:
        """Closes the files, TensorBoard's and the mirror."""
        if self._writes:
            self._file.close()
        for writer in self._writers.values():
            writer.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _key(line: jsonl.Line) -> Any:
    return line["step"], line.get("split")


def _whole(workdir: Path, found: Sequence[jsonl.Line], step: int) -> tuple[list[jsonl.Line], str, bool]:
    """The lines up to `step`, completed from the checkpoint's copy; the message about it; and whether the file is
    damaged.
    """
    file, kept = workdir / FILE, [line for line in found if line["step"] <= step]
    copy = copies.of_step(workdir, step) / FILE
    if not copy.is_file():  # a checkpoint of an older version
        steps = [line["step"] for line in kept]
        last, gaps = max(steps, default=0), [1, *(after - before for before, after in pairwise(steps))]
        lost = f"{file} ends at step {last}, and the run goes on after step {step}: what lay between is lost"
        apart = set(steps) != {1}  # one line alone doesn't tell the distance to the next
        return kept, lost if apart and step - last > max(gaps) else "", False
    copied = [line for line in jsonl.read(copy) if line["step"] <= step]
    keys = {_key(line) for line in copied}  # the copy has all but evaluations of its own step
    kept = [line for line in kept if _key(line) in keys or (line["step"] == step and "split" in line)]
    kept, lacked = jsonl.completed(kept, copied, _key)
    if not lacked:
        return kept, "", False
    which = (
        f"{len(lacked)} of its {len(kept)} lines to step {step}, of steps {lacked[0]['step']} to {lacked[-1]['step']}"
    )
    return kept, f"{file} lacked {which}: they are back, from the checkpoint", True


def _rewrite_watched(workdir: Path, step: int) -> None:
    def names(line: jsonl.Line) -> Any:
        return *_key(line), *line

    kept = [line for line in jsonl.read(workdir / WATCHED) if line["step"] <= step]
    copied = [line for line in jsonl.read(copies.of_step(workdir, step) / WATCHED) if line["step"] <= step]
    whole = jsonl.completed(kept, copied, names)[0] if step else []
    if whole or (workdir / WATCHED).exists():
        jsonl.rewrite(workdir / WATCHED, whole)


def read(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a workdir's metrics; one that was cut off in the middle (a killed run) is left out.

    Where the file is shorter than its copy in the latest checkpoint, the missing lines come from there, with a warning.
    A watcher's metrics of a step and split are merged into the run's own line of them, if any, whose values win; else
    they are a line of their own, after the last one of an earlier step.
    """
    found = _unshortened(workdir)
    places = {(line["step"], line["split"]): i for i, line in enumerate(found) if "split" in line}
    others: dict[tuple[int, str], dict[str, Any]] = {}
    for line in watched(workdir):
        key = line["step"], line["split"]
        if key in places:
            found[places[key]] = line | found[places[key]]
        else:
            others[key] = others.get(key, {}) | line
    return sorted([*found, *others.values()], key=lambda line: line["step"]) if others else found


def _unshortened(workdir: Path) -> list[jsonl.Line]:
    found = jsonl.read(workdir / FILE)
    there = None if "://" in str(workdir) else latest_step(workdir)
    if there is None:
        return found
    workdir = Path(workdir)
    file = workdir / FILE
    copy = copies.of_step(workdir, there) / FILE
    if not (copy.is_file() and file.is_file() and file.stat().st_size < copy.stat().st_size):
        return found
    copied = [line for line in jsonl.read(copy) if line["step"] <= there]  # it was made while the run went on
    whole, lacked = jsonl.completed(found, copied, _key)
    if lacked:
        log.warning("%s lacks %d lines, which are read from %s", file, len(lacked), copy)
    return sorted(whole, key=lambda line: line["step"])


def watched(workdir: Path) -> list[dict[str, Any]]:
    """The evaluations that a watcher wrote, as lines."""
    return [line for line in jsonl.read(workdir / WATCHED) if isinstance(line.get("split"), str)]


def write_watched(workdir: Path, step: int, split: str, values: Mapping[str, float]) -> None:
    """Writes one evaluation of a watcher, into its own file and TensorBoard run, `tensorboard/<split>-watch`.

    The file is opened for this line alone: a run that goes on may put another in its place.
    """
    numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
    with (workdir / WATCHED).open("a", encoding="utf-8") as file:
        file.write(jsonl.lines_text({"step": step, "split": split, **numbers}))
    # TensorBoard reads only the newest file of a folder, so a watcher has a folder of its own.
    writer = FileWriter(str(workdir / TENSORBOARD / f"{split}-watch"), filename_suffix=f".{step}")
    writer.add_summary(_summary(values), step)
    writer.close()


def _summary(values: Mapping[str, float]) -> Any:
    # Not add_scalar: it would write `image->text/R@1` as `image-_text/R_1`, which TensorBoard doesn't ask for.
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _wandb_run(project: str, workdir: Path, config: Any) -> Any:
    try:
        import wandb  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(f'wandb={project!r} needs the extra: pip install "mmjax[wandb]"') from error
    run_id = workdir / "wandb-id"  # the same W&B run when the workdir's run is resumed
    if not run_id.exists():
        output.write(run_id, os.urandom(4).hex())
    name = workdir.resolve().name
    return wandb.init(
        project=project, name=name, id=json_text.text(run_id), resume="allow", dir=str(workdir), config=config
    )
