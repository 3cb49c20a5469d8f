"""A tiny trained run, shared by all tests that only look at it."""

import io
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import fiddle as fdl
import pytest
from rich.console import Console

from tests.tiny import write_shapes

TINY, COUPLE = "tests/tiny.py:tiny", "tests/tiny.py:couple"


@dataclass(frozen=True)
class Trained:
    """A finished run: its data's table, its workdir, what it printed."""

    table: str
    workdir: Path
    said: str


def tiny_config(table: str, *overrides: str, name: str = "tiny") -> fdl.Config:
    """An experiment of `tests/tiny.py` on the data of `table`."""
    from mmjax.experiment.load import load_experiment

    path = Path(__file__).parent / "tiny.py"
    return load_experiment(f"{path}:{name}", [f"data.sources.shapes.table={table}", *overrides])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The tiny experiment, trained to its end. Not to be changed: `trained_copy` is."""
    from mmjax.train import progress
    from mmjax.train.loop import train

    table = write_shapes(tmp_path_factory.mktemp("shapes"))
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "Console", lambda **arguments: Console(file=screen, width=100, **arguments))
        train(tiny_config(table), workdir, name=TINY)
    return Trained(table, workdir, screen.getvalue())


@pytest.fixture(scope="session")
def couple_trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Its smaller kin, trained to its end in this process on all of its devices. Not to be changed."""
    from mmjax.train.loop import train

    table = write_shapes(tmp_path_factory.mktemp("shapes"))
    workdir = tmp_path_factory.mktemp("runs") / "couple"
    train(tiny_config(table, name="couple"), workdir, name=COUPLE)
    return Trained(table, workdir, "")


@pytest.fixture(scope="session")
def couple_alone(couple_trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same by a process with one device. Not to be changed."""
    from tests.multiprocess.launcher import mmjax

    workdir = tmp_path_factory.mktemp("runs") / "alone"
    words = ("train", COUPLE, "--workdir", str(workdir), f"data.sources.shapes.table={couple_trained.table}")
    ended = mmjax(*words, processes=1, devices=1)
    assert ended.codes == [0], str(ended)
    return Trained(couple_trained.table, workdir, ended.said[0])


@pytest.fixture
def trained_copy(trained: Trained, tmp_path: Path) -> Trained:
    """The same in a workdir of one's own."""
    workdir = tmp_path / "copy"
    shutil.copytree(trained.workdir, workdir)
    return replace(trained, workdir=workdir)


def without_copies(workdir: Path) -> None:
    """Makes its checkpoints such as mmjax wrote before they held copies (`copies`)."""
    from etils import epath

    from mmjax.runtime import checkpoints, copies
    from mmjax.runtime.files import digests

    for step in checkpoints.saved_steps(workdir):
        folder = copies.of_step(workdir, step)
        shutil.rmtree(folder)
        digests.write(epath.Path(folder.parent), leave_out=(checkpoints.CHANGING,))
