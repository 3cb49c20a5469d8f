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
from tests.faults.conftest import PATIENCE, Hung
from tests.multiprocess.launcher import Group, launch, mmjax
from tests.trained import UNJUDGED, Trained

STEPS = 20
HEARTBEAT = 5  # seconds, instead of the default's 30
PATIENT = {hosts.HEARTBEAT_VARIABLE: str(HEARTBEAT)}


# Meets the others again and again, as a training run does at every step.
MEETS = """
import time
from mmjax.runtime import hosts
hosts.join()
for meeting in range(1_000_000):
    hosts.wait()
    print(f"meeting {meeting} is over", flush=True)
    time.sleep(0.02)
"""


def test_a_host_that_hangs_ends_the_other_within_a_minute():
    waited = []

    def meanwhile(group: Group) -> None:
        group.wait_for("meeting 2 is over")
        group.send(signal.SIGSTOP, [1])
        since = time.monotonic()
        group.wait(0)
        waited.append(time.monotonic() - since)
        group.send(signal.SIGKILL, [1])

    ended = launch("-c", MEETS, devices=1, meanwhile=meanwhile, variables=PATIENT)
    assert ended.codes[0] not in (0, 2), str(ended)
    assert waited[0] < 30  # and with the default heartbeat, 25 s more, within the minute
    assert hosts.HEARTBEAT - HEARTBEAT + waited[0] < 60


def test_a_host_that_dies_ends_the_other_and_the_supervisors_bring_both_back(couple_alone: Trained, tmp_path):
    def meanwhile(group: Group) -> None:
        group.wait_for(f"step 6/{STEPS} ")
        (run,) = group.children(1)
        os.kill(run, signal.SIGKILL)

    table = f"data.sources.shapes.table={couple_alone.table}"
    words = ("train", UNJUDGED, "save_every=5", "--workdir", str(tmp_path / "run"), table, "--supervise", "3")
    ended = mmjax(*words, devices=1, meanwhile=meanwhile, variables=PATIENT)
    assert ended.codes == [0, 0], str(ended)
    assert "the run ended by SIGKILL (most likely the machine's memory was full; or" in ended.errors[1]
    assert "starting it again in 5 s (1 of 3 times)" in ended.errors[0]
    assert "goes on after step" in ended.said[0]
    lines = [line for line in metrics.read(tmp_path / "run") if "split" not in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    whole = [line for line in metrics.read(couple_alone.workdir) if "split" not in line]
    assert [line["batch_hash"] for line in lines] == [line["batch_hash"] for line in whole]
    np.testing.assert_allclose([line["loss"] for line in lines], [line["loss"] for line in whole], rtol=1e-5)


def test_a_reader_that_hangs_ends_the_run_and_the_supervisor_brings_it_back(hung: Hung):
    assert hung.ended.codes == [0], str(hung.ended)
    errors, workdir = hung.ended.errors[0], hung.run.workdir
    told = f"no batch has come for {PATIENCE} s (patience={PATIENCE}): process {hung.reader}, which should read"
    assert f"{told}, is stopped (SIGSTOP)" in errors
    assert not Path(f"/proc/{hung.reader}").exists()
    assert "leaked" not in errors
    assert "the run ended with exit code 1: starting it again" in errors
    lines = [line for line in metrics.read(workdir) if "split" not in line]
    assert [line["step"] for line in lines] == list(range(1, 101))
    assert json.loads((workdir / "experiment.json").read_text())


@pytest.mark.parametrize("value", ["1", "soon", "2.5"])
def test_a_heartbeat_that_cannot_be_is_refused(value, monkeypatch):
    monkeypatch.setenv(hosts.HEARTBEAT_VARIABLE, value)
    with pytest.raises(UserError, match=f"MMJAX_HEARTBEAT='{value}' must be a whole number of seconds, at least 2"):
        hosts.join()
