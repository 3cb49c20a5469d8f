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

from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import latest_step
from mmjax.runtime.counts import scores
from mmjax.train.loop import train
from tests.multiprocess.judge import judge
from tests.multiprocess.launcher import ROOT, Ended, Group, launch, mmjax
from tests.trained import Trained, tiny_config

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
def single(couple_trained: Trained) -> Path:
    """The workdir of one process with eight devices: this one."""
    return couple_trained.workdir


@pytest.fixture(scope="module")
def table(couple_trained: Trained) -> str:
    return couple_trained.table


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


def test_what_is_cut_off_is_counted_over_both(single, double: Run):
    found, alone = (
        {line["step"]: line["truncated/shapes"] for line in metrics.read(workdir) if "truncated/shapes" in line}
        for workdir in (double.workdir, single)
    )
    assert found == alone
    assert list(found) == list(range(1, STEPS + 1))
    assert 0 < min(found.values()) <= max(found.values()) <= 1


def test_one_device_does_too(single, couple_alone: Trained):
    assert_same_losses(couple_alone.workdir, single)


@pytest.fixture(scope="module")
def judgements(single, tmp_path_factory) -> tuple[Path, Path, Ended]:
    """What `tests/multiprocess/judge.py` wrote in one process, and in two."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for folder in folders:
        shutil.copytree(single, folder / "run")
    judge(str(single), str(folders[0] / "run"), folders[0])
    ended = launch("-m", "tests.multiprocess.judge", str(single), str(folders[1] / "run"), str(folders[1]))
    assert ended.codes == [0, 0], str(ended)
    return folders[0], folders[1], ended


def test_evaluation_gives_the_very_numbers_of_one_process(single, double: Run, judgements):
    """24 examples in batches of 16: of the second one, the second process has nothing but padding."""
    assert judged(double.workdir).keys() == judged(single).keys()
    one, two, ended = judgements
    there, here = (json.loads((folder / "test.json").read_text())["test"] for folder in (two, one))
    own_numbers = {name: value for name, value in judged(single).items() if name in there}
    assert len(scores(own_numbers)) == 11
    rounded = {name: pytest.approx(here[name], rel=1e-6) for name in here if name.startswith("losses/")}
    assert len(rounded) > 5
    assert there == here | rounded
    assert own_numbers.items() <= here.items()
    assert "retrieval/image->text" in ended.said[0]
    assert own(ended.said[1]) == own(ended.errors[1]) == ""


def test_what_learns_from_a_split_is_among_them_and_decides_the_same(judgements):
    one, two, _ = judgements
    names = json.loads((two / "test.json").read_text())["test"]
    assert {"knn/shape/top1", "probe/shape/top1", "probe/shape/2shot/top1"} <= names.keys()
    pages = [(folder / "test.html").read_text() for folder in (one, two)]
    matrices = [re.findall(r"<h3>(?:knn|probe|zeroshot)/shape.*?</table>", page, re.DOTALL) for page in pages]
    assert len(matrices[0]) == 3
    assert matrices[1] == matrices[0]


def test_two_processes_embed_to_the_bytes_of_one(judgements):
    here, there = ({p.name: p.read_bytes() for p in (f / "embeddings").iterdir()} for f in judgements[:2])
    assert len(here) == 3 * 2 + 1
    assert there == here


def test_two_processes_watch_as_one_does(judgements):
    here, there = (metrics.watched(folder / "run") for folder in judgements[:2])
    assert [line["step"] for line in here] == [10]  # the run judged its last step itself
    assert there == here
    assert "the run has ended; 1 checkpoints were judged" in judgements[2].said[0]


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
    assert {path.name for path in workdir.iterdir()} == names | {".lock", "data.json", "tokenizers"}


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
