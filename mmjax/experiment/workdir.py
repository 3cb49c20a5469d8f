"""Writes and reads the files of a workdir beside its checkpoints, by which it can be judged and resumed alone."""

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import fiddle as fdl
from etils import epath

from mmjax.data.pipeline import Mixture, Prepared, prepare
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.files import from_files, load_tokenizers, save_tokenizers, to_files
from mmjax.errors import UserError
from mmjax.experiment import own_parts
from mmjax.experiment import record as records
from mmjax.experiment.confined import Record, check_confined
from mmjax.experiment.confined import models as beside
from mmjax.experiment.definition import Experiment
from mmjax.experiment.diff import MISSING, Difference, diff
from mmjax.experiment.graph import short_repr
from mmjax.experiment.record import RECORD
from mmjax.experiment.resume import unresumable
from mmjax.runtime import copies, hosts
from mmjax.runtime.checkpoints import latest_step, saved_steps
from mmjax.runtime.copies import TOKENIZERS
from mmjax.runtime.files import digests, json_text, output
from mmjax.runtime.files.own_code import Code
from mmjax.runtime.metrics import Metrics, watched
from mmjax.runtime.retention import Keeping

PATIENCE = 30  # seconds in which the other hosts must see what host 0 writes: a network disk may take some


def record(config: fdl.Config, workdir: Path, name: str = "", fork: bool = False) -> None:
    """Writes `experiment.json`, if nothing was trained yet or the experiment may go on here (`resume.MAY_CHANGE`);
    and beside it the texts of the files that define parts of one's own, `code/own.py`.

    fork: go on with `config` from the checkpoint of another experiment; the old record stays as `experiment.json.old`,
    its code as `code.old`.
    Of several hosts the first one writes, and the others wait until they see it.

    Raises:
        UserError: the workdir belongs to another experiment (the message shows where they differ), or can't be written,
            or not all hosts see the same one.
    """
    hosts.first(lambda: _record(config, workdir, name, fork))
    _check_seen(workdir)


def _record(config: fdl.Config, workdir: Path, name: str, fork: bool) -> None:
    path, trained = workdir / RECORD, latest_step(workdir) is not None
    files = own_parts.files_of(config)
    if trained and not path.exists():
        raise UserError(f"{workdir} has checkpoints but no {RECORD} that says whose: give another --workdir")
    if path.exists():
        before, code = _before(path, trained, files)
        differences = unresumable(before, config) if before is not None else []
        differences += own_parts.code_differences(code, own_parts.digests_of(files))
        if trained and differences and not fork:
            raise UserError(_refusal(workdir, differences, files))
        if trained and differences:
            output.write(path.with_name(f"{RECORD}.old"), path.read_bytes())
            own_parts.put_by(workdir)
        if not trained and (before is None or diff(before, config)):
            shutil.rmtree(workdir / TOKENIZERS, ignore_errors=True)  # a run without steps left them
    if not trained and digests.problems(epath.Path(workdir / TOKENIZERS)):  # without checkpoints nothing is lost
        shutil.rmtree(workdir / TOKENIZERS, ignore_errors=True)
    text, folder = records.dumps(config, name), epath.Path(workdir / TOKENIZERS)
    try:
        if folder.is_dir() and not (folder / digests.NAME).exists():  # written by an older mmjax
            output.write(Path(folder / digests.NAME), digests.listed(folder))
        own_parts.write_code(files, workdir)  # written before the record that names them
        output.write(path, text)
    except OSError as error:
        raise UserError(f"{workdir} can't be written to ({error.strerror}): give another --workdir") from error


def _before(path: Path, trained: bool, files: Code) -> tuple[fdl.Config | None, dict[str, str]]:
    """The recorded experiment, to be compared, and the digests of its code; None where the record is damaged and there
    is no checkpoint. files: files of one's own that are run anyway; other parts of one's own are replaced by stand-ins.
    """
    try:
        text = json_text.text(path)
        return records.loads(text, files, stand_ins=True), records.code_of(text)
    except UserError as error:
        if trained:
            raise UserError(f"{path}: {error}") from error
        return None, {}


def _check_seen(workdir: Path) -> None:
    written = hosts.first(lambda: _contents(workdir / RECORD))

    def look() -> None:
        deadline = time.monotonic() + PATIENCE
        while _contents(workdir / RECORD) != written:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{workdir} isn't the one that host 0 writes to: give a --workdir on a disk that all hosts share"
                )
            time.sleep(0.1)

    hosts.together(look)


def _contents(path: Path) -> str | None:
    return json_text.text(path) if path.exists() else None


def _refusal(workdir: Path, differences: list[Difference], files: Code) -> str:
    paths = {f"{own_parts.CODE}.{file.name}": f" ({file.path})" for file in files}
    lines = []
    for path, left, right in differences:
        head, _, name = path.partition(".")
        there = f" ({workdir / own_parts.CODE / name})" if head == own_parts.CODE and left is not MISSING else ""
        lines.append(f"  {path}: {short_repr(left)} there{there}, {short_repr(right)} here{paths.get(path, '')}")
    return (
        f"{workdir} belongs to another experiment, which differs in\n"
        + "\n".join(lines)
        + "\ngive another --workdir, or --fork to go on from its last checkpoint with this experiment"
    )


def prepared(
    data: Mixture,
    workdir: Path | None,
    splits: Iterable[str] = (),
    tokenizers: Mapping[str, Tokenizer] | None = None,
    given: Record | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """The mixture, prepared with the tokenizers that the workdir keeps; else they are found or trained now, and kept
    there.

    workdir: None keeps nothing.
    tokenizers: the initial ones, by modality, where the workdir keeps none.
    given: where the experiment comes from a record, which may name less than a file of one's own (`confined`); `say`
    gets a message with the places that it names.
    splits: are opened, which builds the dataset that isn't there yet. Host 0 does all that first; the others get its
    tokenizers and find its data, or build their own where they have disks of their own.
    """

    def make(models: Mapping[str, Tokenizer]) -> Prepared:
        ready = prepare(data, tokenizers=models, progress=hosts.leads() and sys.stdout.isatty())
        for split in dict.fromkeys(splits):
            ready.open(split)
        return ready

    def lead() -> Prepared | None:
        if not hosts.leads():
            return None
        folder = copies.whole(workdir, TOKENIZERS) if workdir is not None else None
        kept = load_tokenizers(folder) if folder is not None else {}
        models = {**(tokenizers or {}), **kept}
        if given is not None:
            models = {**beside(given, data), **models}
            check_confined(given, data, models, say)
        ready = make(models)
        if workdir is not None and ready.chains.tokenizers.keys() - kept.keys():
            save_tokenizers(ready.chains.tokenizers, workdir / TOKENIZERS)
        return ready

    made = hosts.together(lead)
    models = hosts.first(lambda: to_files(made.chains.tokenizers) if made else {})
    return hosts.together(lambda: made or make(from_files(models)))


def keeping(experiment: Experiment, metrics: Metrics, workdir: Path, say: Callable[[str], None]) -> Keeping:
    """The policy by which the run's checkpoints are kept; those whose scores were lost are kept too, which `say`
    reports.
    """
    metrics.take(hosts.first(lambda: watched(workdir)))
    found = experiment.keeping(metrics.known).holding(hosts.first(lambda: saved_steps(workdir)))
    if experiment.keep_best and found.held:
        best, steps = experiment.keep_best, ", ".join(map(str, sorted(found.held)))
        say(
            f"the checkpoints of steps {steps} stay: they may have been among the best by {best.metric} of "
            f"{best.split!r}, and the metrics no longer say it"
        )
    return found


def going_on(workdir: Path) -> str:
    """The command that resumes the run: a workdir is an experiment too, overrides included."""
    return shlex.join(["mmjax", "train", str(workdir), "--workdir", str(workdir), *_code_options(workdir)])


def judging(workdir: Path) -> str:
    """The command that evaluates the last checkpoint."""
    return shlex.join(["mmjax", "evaluate", str(workdir), *_code_options(workdir)])


def _code_options(workdir: Path) -> list[str]:
    """The options that name the kept texts of parts of one's own; empty where there are none."""
    try:
        return records.code_options(json_text.text(workdir / RECORD), workdir)
    except (OSError, UserError):  # missing or damaged: its reader reports that
        return []
