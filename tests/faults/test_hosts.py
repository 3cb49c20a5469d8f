"""A host that dies or hangs ends the others soon, and what supervises them brings all back."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.runtime import hosts, metrics
from tests.multiprocess.launcher import ROOT, Group, mmjax
from tests.trained import Trained

STEPS = 20
HEARTBEAT = 5  # seconds, instead of the default's 30
WORDS = ("train", f"{ROOT / 'tests' / 'tiny.py'}:couple", "save_every=2")


@pytest.fixture(scope="module")
def table(couple_alone: Trained) -> str:
    return couple_alone.table


def start(table: str, workdir: Path, meanwhile, *more: str, **options):
    words = (*WORDS, "--workdir", str(workdir), f"data.sources.shapes.table={table}", *more)
    return mmjax(*words, meanwhile=meanwhile, variables={hosts.HEARTBEAT_VARIABLE: str(HEARTBEAT)}, **options)


def test_a_host_that_hangs_ends_the_other_within_a_minute(table, tmp_path):
    waited = []

    def meanwhile(group: Group) -> None:
        group.wait_for(f"step 2/{STEPS} ")
        group.send(signal.SIGSTOP, [1])
        since = time.monotonic()
        group.wait(0)
        waited.append(time.monotonic() - since)
        group.send(signal.SIGKILL, [1])

    ended = start(table, tmp_path, meanwhile, devices=1)
    assert ended.codes[0] not in (0, 2), str(ended)
    assert waited[0] < 30  # and with the default heartbeat, 25 s more, within the minute
    assert hosts.HEARTBEAT - HEARTBEAT + waited[0] < 60


def test_a_host_that_dies_ends_the_other_and_the_supervisors_bring_both_back(couple_alone: Trained, table, tmp_path):
    def meanwhile(group: Group) -> None:
        group.wait_for(f"step 6/{STEPS} ")
        (run,) = group.children(1)
        os.kill(run, signal.SIGKILL)

    ended = start(table, tmp_path / "run", meanwhile, "--supervise", "3", devices=1)
    assert ended.codes == [0, 0], str(ended)
    assert "the run ended by SIGKILL (most likely the machine's memory was full; or" in ended.errors[1]
    assert "starting it again in 5 s (1 of 3 times)" in ended.errors[0]
    assert "goes on after step" in ended.said[0]
    lines = [line for line in metrics.read(tmp_path / "run") if "split" not in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    whole = [line for line in metrics.read(couple_alone.workdir) if "split" not in line]
    assert [line["batch_hash"] for line in lines] == [line["batch_hash"] for line in whole]
    np.testing.assert_allclose([line["loss"] for line in lines], [line["loss"] for line in whole], rtol=1e-5)


def test_a_reader_that_hangs_ends_the_run_and_the_supervisor_brings_it_back(table, tmp_path):
    """Of one host, with a process that reads: SIGSTOP makes it stand still for ever."""
    stopped: list[int] = []

    def meanwhile(group: Group) -> None:
        group.wait_for("step 8/100 ")
        (run,) = group.children(0)
        stopped.extend(readers(run))
        os.kill(stopped[0], signal.SIGSTOP)

    words = ("data.workers=1", "patience=15.0", "steps=100", "save_every=10", "--supervise", "1")
    ended = start(table, tmp_path / "run", meanwhile, *words, processes=1, devices=1)
    assert ended.codes == [0], str(ended)
    told = f"no batch has come for 15 s (patience=15): process {stopped[0]}, which should read, is stopped (SIGSTOP)"
    assert told in ended.errors[0]
    assert not Path(f"/proc/{stopped[0]}").exists()
    assert "leaked" not in ended.errors[0]
    assert "the run ended with exit code 1: starting it again" in ended.errors[0]
    lines = [line for line in metrics.read(tmp_path / "run") if "split" not in line]
    assert [line["step"] for line in lines] == list(range(1, 101))
    assert json.loads((tmp_path / "run" / "experiment.json").read_text())


def readers(pid: int) -> list[int]:
    """The processes that read data for a run."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


@pytest.mark.parametrize("value", ["1", "soon", "2.5"])
def test_a_heartbeat_that_cannot_be_is_refused(value, monkeypatch):
    monkeypatch.setenv(hosts.HEARTBEAT_VARIABLE, value)
    with pytest.raises(UserError, match=f"MMJAX_HEARTBEAT='{value}' must be a whole number of seconds, at least 2"):
        hosts.join()
