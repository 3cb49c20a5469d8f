"""Two processes of four devices train and evaluate as one of eight does, and as one device: losses, files, numbers."""

import json
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import latest_step
from mmjax.runtime.counts import scores
from mmjax.train.loop import train
from tests.multiprocess.judge import judge
from tests.multiprocess.launcher import Ended, Group, launch, mmjax
from tests.trained import COUPLE, UNJUDGED, Trained, tiny_config

STEPS = 20
AXES = ("mesh.data=2", "mesh.fsdp=4")  # fsdp within a process, data over both
TENSOR = ("mesh.data=1", "mesh.tensor=8")
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


def start(experiment: str, table: str, workdir: Path, *overrides: str, **options) -> Ended:
    words = ("train", experiment, "--workdir", str(workdir), f"data.sources.shapes.table={table}", *overrides)
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


def begun(single: Path, workdir: Path) -> None:
    """Makes the run in `workdir` one that was trained to its tenth step, by one process."""
    shutil.copytree(single, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    shutil.rmtree(workdir / "tensorboard")
    for name in (".lock", "curves.png", "gallery-test.png"):
        (workdir / name).unlink()


@pytest.fixture(scope="module")
def resumed(single, table, tmp_path_factory) -> Run:
    """What one process began, by two with four devices each to its end, with `tensor` over both."""
    workdir = tmp_path_factory.mktemp("runs") / "resumed"
    begun(single, workdir)
    ended = start(COUPLE, table, workdir, *TENSOR)
    assert ended.codes == [0, 0], str(ended)
    return Run(workdir, ended)


def test_what_one_process_began_two_go_on_with_tensor_over_both(single, resumed: Run):
    assert "goes on after step 10" in resumed.ended.said[0]
    assert_same_losses(resumed.workdir, single)


def assert_same_cuts(workdir: Path, other: Path) -> None:
    found, alone = (
        {line["step"]: line["truncated/shapes"] for line in metrics.read(path) if "truncated/shapes" in line}
        for path in (workdir, other)
    )
    assert found == alone
    assert list(found) == list(range(1, STEPS + 1))
    assert 0 < min(found.values()) <= max(found.values()) <= 1


def test_what_is_cut_off_is_counted_once_where_both_read_it(single, resumed: Run):
    assert_same_cuts(resumed.workdir, single)


def test_one_device_does_too(single, couple_alone: Trained):
    assert_same_losses(couple_alone.workdir, single)


@pytest.fixture(scope="module")
def judgements(single, table, tmp_path_factory) -> tuple[Path, Path, Ended]:
    """What `tests/multiprocess/judge.py` wrote in one process, and in two."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for folder in folders:
        shutil.copytree(single, folder / "run")
    judge(str(single), str(folders[0] / "run"), folders[0])
    ended = launch("-m", "tests.multiprocess.judge", str(single), str(folders[1] / "run"), str(folders[1]), table)
    assert ended.codes == [2, 2], str(ended)  # the last that it asks for is refused
    return folders[0], folders[1], ended


def test_evaluation_gives_the_very_numbers_of_one_process(single, resumed: Run, judgements):
    """24 examples in batches of 16: of the second one, the second process has nothing but padding."""
    assert judged(resumed.workdir).keys() == judged(single).keys()
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


def test_the_first_process_alone_writes_and_speaks(resumed: Run):
    workdir, ended = resumed.workdir, resumed.ended
    assert "stopped" not in ended.said[0]
    assert f"{STEPS} steps, {STEPS * 16} examples" in ended.said[0]
    assert own(ended.said[1]) == own(ended.errors[1]) == ""
    assert latest_step(workdir) == STEPS
    assert [line["step"] for line in metrics.read(workdir)] == [*range(1, STEPS + 1), STEPS]
    for folder in ("train", "test"):
        assert len(list((workdir / "tensorboard" / folder).iterdir())) == 1
    names = {"checkpoints", "curves.png", "experiment.json", "gallery-test.png", "metrics.jsonl", "tensorboard"}
    assert {path.name for path in workdir.iterdir()} == names | {".lock", "data.json", "tokenizers"}


def stopped(number: signal.Signals, after: int, code: int, experiment: str, table: str, workdir: Path, *overrides: str):
    """Trains until the second process gets a signal after a step; how both ended."""

    def meanwhile(group: Group) -> None:
        group.wait_for(f"step {after}/{STEPS} ")
        group.send(number, [1])

    ended = start(experiment, table, workdir, *overrides, meanwhile=meanwhile)
    assert ended.codes == [code, code], str(ended)
    said = re.search(r"stopped after step (\d+) of 20, which is saved", ended.said[0])
    assert said, str(ended)
    assert "Traceback" not in ended.errors[0] + ended.errors[1]
    assert latest_step(workdir) == int(said[1])
    assert after <= int(said[1]) <= after + 4
    assert list(losses(workdir)) == list(range(1, int(said[1]) + 1))
    return ended


def test_sigterm_in_one_stops_both_and_one_process_goes_on(single, table, tmp_path):
    ended = stopped(signal.SIGTERM, 12, 0, UNJUDGED, table, tmp_path, *AXES)
    assert own(ended.said[1]) == ""
    assert len(list((tmp_path / "tensorboard" / "train").iterdir())) == 1
    train(tiny_config(table, name="unjudged"), tmp_path)
    assert_same_losses(tmp_path, single)
    assert_same_cuts(tmp_path, single)


@pytest.mark.slow  # one signal or the other is a number, on which all agree: the test above holds it, and what its end
# is, tests/train/test_interruption.py
def test_ctrl_c_in_one_stops_both_and_one_process_goes_on(single, table, tmp_path):
    workdir = tmp_path / "run"
    begun(single, workdir)
    stopped(signal.SIGINT, 13, 130, COUPLE, table, workdir, *TENSOR)
    train(tiny_config(table, name="couple"), workdir)
    assert_same_losses(workdir, single)
    assert judged(workdir)["step"] == STEPS


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing data", ["there is no table nowhere.csv"]),
        (
            "another experiment",
            ["belongs to another experiment", "optimizer.peak_lr: 0.003 there, 0.5 here"],
        ),
    ],
)
def test_what_can_not_be_ends_both_with_the_message(single, judgements, what, words):
    for index in range(2):
        answer = json.loads((judgements[1] / f"{index}.json").read_text())[what]
        assert answer["code"] == 2
        for word in words:
            assert word in answer["told"]
        assert answer["seconds"] < 30  # a few on a free machine; the others would wait for minutes if nobody told them
        assert "Traceback" not in answer["told"]
    assert (judgements[1] / "run" / "experiment.json").read_text() == (single / "experiment.json").read_text()
