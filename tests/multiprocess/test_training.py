"""Two processes of four devices train and evaluate as one of eight does, and as one device: losses, files, numbers."""

import json
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import fiddle as fdl
import numpy as np
import pytest

from mmjax import metrics
from mmjax.checkpoint import latest_step
from mmjax.evaluate import evaluate_model
from mmjax.train import train
from tests.multiprocess.launcher import ROOT, Ended, Group, mmjax
from tests.trained import tiny_config

EXPERIMENT = f"{ROOT / 'tests' / 'tiny.py'}:couple"
STEPS = 20
AXES = ("mesh.data=2", "mesh.fsdp=4")  # fsdp within a process, data over both
LOSSES = ("loss", "image_text/loss", "masked_image/loss")


def losses(workdir: Path) -> dict[int, list[float]]:
    """The losses of every step; a step that was written twice fails."""
    lines = [line for line in metrics.read(workdir) if "split" not in line]
    found = {line["step"]: [line[name] for name in LOSSES] for line in lines}
    assert len(found) == len(lines)
    return found


def judged(workdir: Path) -> dict[str, float]:
    (line,) = (line for line in metrics.read(workdir) if "split" in line)
    return line


def assert_same_losses(workdir: Path, other: Path) -> None:
    ours, theirs = losses(workdir), losses(other)
    assert list(ours) == list(theirs) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-5)


def start(table: str, workdir: Path, *overrides: str, **options) -> Ended:
    words = ("train", EXPERIMENT, "--workdir", str(workdir), f"data.sources.shapes.table={table}", *overrides)
    return mmjax(*words, **options)


@dataclass(frozen=True)
class Run:
    workdir: Path
    ended: Ended


@pytest.fixture(scope="module")
def single(table, tmp_path_factory) -> Path:
    """The workdir of one process with eight devices: this one."""
    workdir = tmp_path_factory.mktemp("runs") / "single"
    train(couple(table), workdir)
    return workdir


def couple(table: str, *overrides: str) -> fdl.Config:
    return tiny_config(table, *overrides, name="couple")


@pytest.fixture(scope="module")
def double(table, tmp_path_factory) -> Run:
    """The same by two processes with four devices each."""
    workdir = tmp_path_factory.mktemp("runs") / "double"
    ended = start(table, workdir, *AXES)
    assert ended.codes == [0, 0], str(ended)
    return Run(workdir, ended)


def test_two_processes_train_to_the_losses_of_one(single, double: Run):
    assert_same_losses(double.workdir, single)


def test_one_device_does_too(single, table, tmp_path):
    ended = start(table, tmp_path / "run", processes=1, devices=1)
    assert ended.codes == [0], str(ended)
    assert_same_losses(tmp_path / "run", single)


def test_evaluation_gives_the_very_numbers_of_one_process(single, double: Run, tmp_path):
    """24 examples in batches of 16: of the second one, the second process has nothing but padding."""
    assert judged(double.workdir).keys() == judged(single).keys()
    file = tmp_path / "test.json"
    ended = mmjax("evaluate", str(single), "--json", str(file))
    assert ended.codes == [0, 0], str(ended)
    there = json.loads(file.read_text())["test"]
    here = evaluate_model(single)["test"]
    assert len(there) == 11
    assert there == here == {name: value for name, value in judged(single).items() if name in there}
    assert "retrieval/image->text" in ended.said[0]
    assert own(ended.said[1]) == own(ended.errors[1]) == ""


GLOO = r"\[Gloo\]|\bRank\b|is connected to|Expected number of connected|peer ranks\.?|is :|\b\d+\b"


def own(text: str) -> str:
    """What a process said itself, without what jax's transport between processes and XLA's partitioner say.

    The transport's threads write their one sentence in pieces, which may stand in any order and on any line.
    """
    lines = [line for line in text.splitlines() if "spmd_partitioner" not in line]
    return re.sub(GLOO, "", "\n".join(lines)).strip()


def test_the_first_process_alone_writes_and_speaks(double: Run):
    workdir = double.workdir
    assert "stopped" not in double.ended.said[0]
    assert f"{STEPS} steps, {STEPS * 16} examples" in double.ended.said[0]
    assert own(double.ended.said[1]) == own(double.ended.errors[1]) == ""
    assert latest_step(workdir) == STEPS
    assert [line["step"] for line in metrics.read(workdir)] == [*range(1, STEPS + 1), STEPS]
    for folder in ("train", "test"):
        assert len(list((workdir / "tensorboard" / folder).iterdir())) == 1
    names = {"checkpoints", "curves.png", "experiment.json", "gallery-test.png", "metrics.jsonl", "tensorboard"}
    assert {path.name for path in workdir.iterdir()} == names | {".lock", "tokenizers"}


def stopped(
    number: signal.Signals, indices: list[int], after: int, code: int, table: str, workdir: Path, *overrides: str
) -> int:
    """Trains until those processes get a signal after a step; gives the step that was saved."""

    def meanwhile(group: Group) -> None:
        group.wait_for(f"step {after}/{STEPS} ")
        group.send(number, indices)

    ended = start(table, workdir, *overrides, meanwhile=meanwhile)
    assert ended.codes == [code, code], str(ended)
    said = re.search(r"stopped after step (\d+) of 20, which is saved", ended.said[0])
    assert said, str(ended)
    assert "Traceback" not in ended.errors[0] + ended.errors[1]
    assert latest_step(workdir) == int(said[1])
    assert after <= int(said[1]) <= after + 4
    return int(said[1])


def test_sigterm_stops_all_and_one_process_goes_on(single, table, tmp_path):
    assert stopped(signal.SIGTERM, [0, 1], 3, 0, table, tmp_path, *AXES) < STEPS
    train(couple(table), tmp_path)
    assert_same_losses(tmp_path, single)


def test_what_one_process_began_two_go_on_with_tensor_over_both_until_ctrl_c_in_one(single, table, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(single, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    stop = stopped(signal.SIGINT, [1], 13, 130, table, workdir, "mesh.data=1", "mesh.tensor=8")
    assert list(losses(workdir)) == list(range(1, stop + 1))
    train(couple(table), workdir)
    assert_same_losses(workdir, single)
    assert judged(workdir)["step"] == STEPS


def test_the_workdir_of_another_experiment_ends_both_with_the_message(single, table, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(single, workdir)
    before = (workdir / "experiment.json").read_text()
    ended = start(table, workdir, "optimizer.peak_lr=0.5")
    assert ended.codes == [2, 2], str(ended)
    for said in ended.errors:
        assert "belongs to another experiment" in said
        assert "optimizer.peak_lr: 0.003 there, 0.5 here" in said
        assert "Traceback" not in said
    assert ended.seconds < 30  # it takes six on a free machine; the others would wait for minutes if nobody told them
    assert (workdir / "experiment.json").read_text() == before


def test_missing_data_ends_both_with_the_message(tmp_path):
    ended = start("nowhere.csv", tmp_path / "run")
    assert ended.codes == [2, 2], str(ended)
    for said in ended.errors:
        assert "there is no table nowhere.csv" in said
        assert "Traceback" not in said
