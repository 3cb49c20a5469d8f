"""Judging checkpoints as they come: beside a run, into files that the run's readers read."""

import io
import shutil
import threading
import time

import pytest
from rich.console import Console

from mmjax.cli.main import main
from mmjax.errors import UserError
from mmjax.evaluate import watch
from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import checkpoint_identity, saved_steps
from tests.trained import Trained


def screen() -> Console:
    return Console(file=io.StringIO(), width=120)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def bare(trained: Trained, tmp_path):
    """The run's workdir as it was before anything was saved, or judged; and what gives it a step's checkpoint."""
    workdir = tmp_path / "bare"
    shutil.copytree(trained.workdir, workdir, ignore=shutil.ignore_patterns("checkpoints", "metrics.jsonl"))

    def save(step: int) -> None:
        part = workdir / "checkpoints" / f"{step}.part"
        shutil.copytree(trained.workdir / "checkpoints" / str(step), part)
        part.rename(part.with_name(str(step)))

    return workdir, save


def test_checkpoints_are_judged_as_they_come_and_the_watch_ends_with_the_run(trained: Trained, bare, monkeypatch):
    workdir, save = bare
    coming = iter([lambda: save(8), lambda: None, lambda: save(24)])
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: next(coming)())
    console = screen()
    record = (workdir / "experiment.json").read_bytes()
    files = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert watch.watch(workdir, evaluators=["retrieval"], poll=0.01, console=console) == 2
    assert said(console).count("waiting for a checkpoint") == 2  # once before each
    assert "the run has ended; 2 checkpoints were judged" in said(console)
    assert (workdir / "experiment.json").read_bytes() == record
    assert all(path.read_bytes() == content for path, content in files.items())  # it adds, and changes nothing
    assert not (workdir / "metrics.jsonl").exists()
    found = {(line["step"], line["split"]): line for line in metrics.read(workdir)}
    assert set(found) == {(8, "validation"), (24, "validation"), (24, "test")}  # the test split is for the end
    logged = {(line["step"], line.get("split")): line for line in metrics.read(trained.workdir)}
    for key in ((24, "validation"), (24, "test")):
        names = [name for name in logged[key] if name.startswith("retrieval/")]
        assert names
        assert {n: found[key][n] for n in names} == pytest.approx({n: logged[key][n] for n in names})
    assert {path.name for path in (workdir / "tensorboard").iterdir()} >= {"validation-watch", "test-watch"}


def test_what_is_scored_already_is_left_out(trained_copy: Trained):
    """The run judged steps 12 and 24; checkpoints are of 8, 16 and 24."""
    before = (trained_copy.workdir / "metrics.jsonl").read_bytes()
    assert watch.watch(trained_copy.workdir, evaluators=["zeroshot"], console=screen()) == 2
    steps = [line["step"] for line in metrics.watched(trained_copy.workdir)]
    assert steps == [8, 16]
    assert watch.watch(trained_copy.workdir, evaluators=["zeroshot"], console=screen()) == 0
    assert (trained_copy.workdir / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_that_is_deleted_while_it_is_read_is_left_out(bare, monkeypatch):
    workdir, save = bare
    save(8)
    save(24)
    restore = watch.restore_variables

    def deleted(workdir, step, **arguments):
        if step == 8:
            shutil.rmtree(workdir / "checkpoints" / "8")
        return restore(workdir, step, **arguments)

    monkeypatch.setattr(watch, "restore_variables", deleted)
    console = screen()
    assert watch.watch(workdir, split="test", evaluators=["zeroshot"], console=console) == 1
    assert "zeroshot/shape: 24 examples in 4 classes; at random top1 0.250, top5 1.000" in " ".join(
        said(console).split()
    )
    assert "the checkpoint of step 8 was deleted while it was read" in said(console)


def test_a_damaged_checkpoint_is_named_and_left_out(bare):
    workdir, save = bare
    save(8)
    save(24)
    victim = max((workdir / "checkpoints" / "8").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    console = screen()
    assert watch.watch(workdir, split="test", evaluators=["zeroshot"], console=console) == 1
    assert "is damaged" in said(console)


def test_what_is_no_longer_the_runs_is_not_written(bare, monkeypatch):
    """While a checkpoint is judged the run goes back, and saves another one of that step."""
    workdir, save = bare
    save(24)
    judge, seen = watch._Judge.__call__, []

    def changed(self, step, evaluators):
        results = judge(self, step, evaluators)
        if not seen:
            seen.append(checkpoint_identity(workdir, step))
            list_of = workdir / "checkpoints" / "24" / "digests.json"
            list_of.write_text(list_of.read_text() + "\n")
        return results

    monkeypatch.setattr(watch._Judge, "__call__", changed)
    assert watch.watch(workdir, split="test", evaluators=["zeroshot"], console=screen()) == 1
    assert len(metrics.watched(workdir)) == 1  # of the second one
    assert checkpoint_identity(workdir, 24) != seen[0]


def test_a_workdir_that_is_not_there_yet_is_waited_for(bare, monkeypatch, tmp_path):
    workdir, save = bare
    away = tmp_path / "away"
    workdir.rename(away)

    def come(seconds: float) -> None:
        away.rename(workdir)
        save(24)

    monkeypatch.setattr(watch.time, "sleep", come)
    console = screen()
    assert watch.watch(workdir, split="test", evaluators=["zeroshot"], console=console) == 1
    assert f"waiting for a run in {workdir}" in said(console)


def test_the_command_ends_by_ctrl_c_and_says_what_does_not_go_together(bare, monkeypatch, capsys):
    workdir, _ = bare

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupted)
    assert main(["evaluate", str(workdir), "--watch", "--poll", "5"]) == 130
    assert main(["evaluate", str(workdir), "--watch", "--step", "8"]) == 2
    assert "leave out --step" in capsys.readouterr().err
    with pytest.raises(UserError, match="did you mean retrieval"):
        watch.watch(workdir, evaluators=["retreival"])
    assert saved_steps(workdir) == []


def test_beside_a_run_with_the_lock_on_the_workdir(trained_copy: Trained):
    from mmjax.runtime.lock import Lock

    with Lock(trained_copy.workdir):
        began = time.monotonic()
        thread = threading.Thread(
            target=watch.watch, args=(trained_copy.workdir,), kwargs={"evaluators": ["zeroshot"], "console": screen()}
        )
        thread.start()
        thread.join(120)
        assert time.monotonic() - began < 120
    assert len(metrics.watched(trained_copy.workdir)) == 2
