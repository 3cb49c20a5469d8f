"""Two runs on one workdir: the second is refused, unless the first is dead."""

import os
import re
import signal
import subprocess
import sys

import pytest

from mmjax.errors import UserError
from mmjax.runtime.lock import Lock

HOLDS = """
import sys, time
from pathlib import Path
from mmjax.runtime.lock import Lock
with Lock(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_and_told_who_has_it(other, tmp_path):
    with pytest.raises(UserError, match=rf"in use by process {other.pid} on \S+, since \d{{4}}-.* another --workdir"):
        Lock(tmp_path)


def test_a_dead_run_holds_nothing(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    with Lock(tmp_path):
        assert re.search(rf'"process": {os.getpid()}\b', (tmp_path / ".lock").read_text())


def test_a_host_that_does_not_lead_takes_none(other, tmp_path):
    with Lock(tmp_path, holds=False):
        pass


def test_a_disk_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("mmjax.runtime.lock.fcntl.lockf", refuse)
    said = []
    with Lock(tmp_path, said.append):
        pass
    assert said == [f"{tmp_path} lies on a disk without locks: see to it that only one run uses it"]


def test_a_workdir_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be written to .* give another --workdir"):
        Lock(tmp_path / "file" / "run")
