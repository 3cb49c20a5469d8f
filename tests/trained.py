"""Tiny trained runs, shared by all tests that only look at them."""

import fcntl
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import fiddle as fdl
import pytest
from rich.console import Console

from tests.tiny import write_shapes

TINY, COUPLE, PAIR, UNJUDGED = (f"tests/tiny.py:{name}" for name in ("tiny", "couple", "pair", "unjudged"))
PAIR_SAVES = ("save_every=100", "save_minutes=1e-9", "keep=1", "keep_every=3")  # a save at every step, as it were


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


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, once for all workers of pytest-xdist: the first one that asks does, others wait."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def run_once(
    factory: pytest.TempPathFactory, shapes: str, name: str, train_in: Callable[[Path], str | None]
) -> Trained:
    """A worker's own copy of a run that `train_in` trains once for all; it gives what was printed."""

    def make(folder: Path) -> None:
        (folder / "said.txt").write_text(train_in(folder / "run") or "", encoding="utf-8")

    made, workdir = once(factory, name, make), factory.mktemp("runs") / name
    shutil.copytree(made / "run", workdir)
    said = (made / "said.txt").read_text(encoding="utf-8")
    return Trained(shapes, workdir, said.replace(str(made / "run"), str(workdir)))


def pair_config(table: str, *overrides: str) -> fdl.Config:
    """The smallest experiment of `tests/tiny.py`, of as many steps as `pair_trained`: their programs are the same."""
    return tiny_config(table, "steps=7", "log_every=1", *overrides, name="pair")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The table of the tiny experiment's data. Not to be changed."""
    return str(once(tmp_path_factory, "shapes", write_shapes) / "shapes.csv")


@pytest.fixture(scope="session")
def trained(shapes: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The tiny experiment, trained to its end. Not to be changed: `trained_copy` is."""

    def train_in(workdir: Path) -> str:
        from mmjax.train import progress
        from mmjax.train.loop import train
        from tests.programs import shared_programs

        screen = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, shared_programs():
            patch.setattr(progress, "Console", lambda **arguments: Console(file=screen, width=100, **arguments))
            train(tiny_config(shapes), workdir, name=TINY)
        return screen.getvalue()

    return run_once(tmp_path_factory, shapes, "tiny", train_in)


@pytest.fixture(scope="session")
def pair_trained(shapes: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Its smallest kin, with a save at every step, of which few stay (`PAIR_SAVES`). Not to be changed."""

    def train_in(workdir: Path) -> None:
        from mmjax.train.loop import train
        from tests.programs import shared_programs

        with shared_programs():
            train(pair_config(shapes, *PAIR_SAVES), workdir, name=PAIR)

    return run_once(tmp_path_factory, shapes, "pair", train_in)


@pytest.fixture(scope="session")
def couple_trained(shapes: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One between them, trained to its end in this process on all of its devices. Not to be changed."""

    def train_in(workdir: Path) -> None:
        from mmjax.train.loop import train

        train(tiny_config(shapes, name="couple"), workdir, name=COUPLE)

    return run_once(tmp_path_factory, shapes, "couple", train_in)


@pytest.fixture(scope="session")
def couple_alone(shapes: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same by a process with one device, without evaluators. Not to be changed."""

    def train_in(workdir: Path) -> str:
        from tests.multiprocess.launcher import mmjax

        words = ("train", UNJUDGED, "--workdir", str(workdir), f"data.sources.shapes.table={shapes}")
        ended = mmjax(*words, processes=1, devices=1)
        assert ended.codes == [0], str(ended)
        return ended.said[0]

    return run_once(tmp_path_factory, shapes, "alone", train_in)


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
