"""`mmjax evaluate --watch`: judges each new checkpoint of a run that may be going on elsewhere.

It takes no lock, and writes into no file of the run's: its metrics go into `evaluations.jsonl`, which every reader of
the metrics reads too (`metrics.read`), and into a TensorBoard run of its own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from mmjax.data.tokenizers.files import load_tokenizers
from mmjax.evaluate.contract import Evaluator, protocols, splits_read
from mmjax.evaluate.evaluate import evaluate
from mmjax.evaluate.model import choose
from mmjax.evaluate.prepared_model import PreparedModel, prepared_model
from mmjax.evaluate.tables import Results, tables
from mmjax.experiment import own_parts
from mmjax.experiment import record as records
from mmjax.experiment.confined import Record, check_folder
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.record import RECORD
from mmjax.experiment.workdir import prepared
from mmjax.runtime import copies, hosts, metrics
from mmjax.runtime.checkpoints import CheckpointError, checkpoint_identity, restore_variables, saved_steps
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.runtime.copies import TOKENIZERS
from mmjax.runtime.files import json_text, output, own_code
from mmjax.runtime.files.own_code import Code

POLL = 30.0  # seconds between two checks of the folder


class _Judge:
    """The model and evaluators of one record's experiment, compiled once."""

    def __init__(
        self,
        record: str,
        workdir: Path,
        names: Sequence[str] | None,
        split: str | None,
        say: Callable[[str], None] = lambda text: None,
        code: Code = (),
    ):
        self.record, self._workdir, self._say = record, workdir, say
        self.experiment: Experiment = build(records.loads(record, code, lambda: own_parts.kept_code(workdir)))
        records.tell_changes(record, code, workdir / RECORD)
        self.evaluators = choose(self.experiment.evaluators, names, split)
        self._model: PreparedModel | None = None

    def due(self, step: int) -> list[Evaluator]:
        """The evaluators that the run itself would apply at a step."""
        return [e for e in self.evaluators if e.when == "always" or step >= self.experiment.steps]

    def __call__(self, step: int, evaluators: Sequence[Evaluator]) -> Results:
        if self._model is None:
            hosts.first(partial(check_folder, self._workdir))
            kept = load_tokenizers(copies.whole(self._workdir, TOKENIZERS))
            given = Record(str(self._workdir), kept)
            read = splits_read(self.evaluators)
            data = prepared(self.experiment.data, self._workdir, read, kept, given, self._say)
            self._model = prepared_model(self.experiment, data, self.experiment.batch_size)
        variables = hosts.together(lambda: restore_variables(self._workdir, step, ema=True))
        with self._model.holding(variables) as placed:
            return evaluate(self._model.embedder, placed, evaluators, step=step, workdir=self._workdir)


class _Next(NamedTuple):
    """The next thing to do, by host 0's view of the workdir."""

    record: str | None
    step: int | None
    identity: str | None
    evaluators: list[int]  # places among all evaluators
    ended: bool


def watch(
    workdir: str | Path,
    *,
    split: str | None = None,
    evaluators: Sequence[str] | None = None,
    code: Any = None,
    poll: float = POLL,
    console: Console | None = None,
) -> int:
    """Judges every checkpoint that appears, until that of the run's last step is judged; returns their number.

    Checkpoints are judged in order of steps, without those that the run, or an earlier watch, has judged already. It
    waits for an empty workdir to be filled. split, evaluators, code: as in `evaluate_model`. poll: seconds between two
    checks.

    Raises:
        UserError: no such evaluator or split.
    """
    workdir, judged = output.local(workdir, "the workdir"), 0
    files = own_code.named(code)
    use_compilation_cache()
    hosts.join()
    console = console or Console(highlight=False, quiet=not hosts.leads())
    say = partial(console.print, soft_wrap=True, markup=False)
    judge: _Judge | None = None
    hopeless: set[tuple[int, str | None]] = set()  # checkpoints that can't be read
    judged_here: set[tuple[int, str | None, int]] = set()  # with the evaluator, which may have had no metrics
    waiting = ""
    while True:
        record, step, seen, places, ended = hosts.first(partial(_next, workdir, judge, hopeless, judged_here))
        if record is not None and (judge is None or judge.record != record):
            # The record has changed: another run, or more steps.
            judge = _Judge(record, workdir, evaluators, split, say, files)
            judged_here.clear()
            continue
        if judge is None or step is None:
            if ended:
                say(f"the run has ended; {judged:,} checkpoints were judged")
                return judged
            if waiting != (waiting := f"waiting for {'a checkpoint' if judge else 'a run'} in {workdir}"):
                say(waiting)
            time.sleep(poll)
            continue
        waiting = ""
        try:
            results = judge(step, [judge.evaluators[place] for place in places])
        except Exception as error:
            if step in hosts.first(partial(saved_steps, workdir)):
                if not isinstance(error, CheckpointError):
                    raise
                say(f"{error}. It is left out")  # a run that goes on may save this step again
            else:
                say(f"the checkpoint of step {step:,} was deleted while it was read; it is left out")
            hopeless.add((step, seen))
            continue
        if hosts.first(partial(_written, workdir, judge.record, step, seen, results)):
            judged += 1
            judged_here |= {(step, seen, place) for place in places}
            for table in tables(results, step, protocols=protocols(judge.evaluators)):
                console.print(table)


def _next(
    workdir: Path,
    judge: _Judge | None,
    hopeless: set[tuple[int, str | None]],
    judged_here: set[tuple[int, str | None, int]],
) -> _Next:
    path = copies.whole(workdir, RECORD)
    record = json_text.text(path) if path.exists() else None
    if judge is None or record is None or record != judge.record:
        return _Next(record, None, None, [], False)
    lines = {(line["step"], line["split"]): line for line in metrics.read(workdir) if "split" in line}
    steps = saved_steps(workdir)
    for step in steps:
        pending = [e for e in judge.due(step) if not _scored(e, lines.get((step, e.split)))]
        if pending and (seen := checkpoint_identity(workdir, step)) is not None and (step, seen) not in hopeless:
            places = [judge.evaluators.index(e) for e in pending]
            if places := [place for place in places if (step, seen, place) not in judged_here]:
                return _Next(record, step, seen, places, False)
    return _Next(record, None, None, [], bool(steps) and steps[-1] >= judge.experiment.steps)


def _scored(evaluator: Evaluator, line: Mapping[str, Any] | None) -> bool:
    """True if the line has the evaluator's metrics; for an evaluator without metrics, if there is a line."""
    if line is None:
        return False
    return not evaluator.gives_numbers or any(name.startswith(f"{evaluator.name}/") for name in line)


def _written(workdir: Path, record: str, step: int, seen: str | None, results: Results) -> bool:
    """Writes the metrics, unless the run has meanwhile begun anew, or saved another checkpoint of that step."""
    now = checkpoint_identity(workdir, step)
    if json_text.text(copies.whole(workdir, RECORD)) != record or (now is not None and now != seen):
        return False
    for split, values in results.items():
        metrics.write_watched(workdir, step, split, values)
    return True
