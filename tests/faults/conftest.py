"""A run whose reader hung, which two files of tests look at."""

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.soak import Run, data
from tests.multiprocess.launcher import Ended, Group
from tests.trained import UNJUDGED

PATIENCE = 15  # seconds after which it is to see that its reader stands still
LONG = ("steps=100", "save_every=10")  # so many that its reader can't have read all when it is stopped


@dataclass(frozen=True)
class Hung:
    """It at its end, on data of which some examples are bad; and the process that read for it until it was stopped."""

    table: str
    run: Run
    reader: int
    ended: Ended


@pytest.fixture(scope="session")
def hung(tmp_path_factory: pytest.TempPathFactory) -> Hung:
    """Of one host, with a process that reads: SIGSTOP makes it stand still for ever. Not to be changed."""
    folder, stopped = tmp_path_factory.mktemp("hung"), []
    table = data(folder)

    def meanwhile(group: Group) -> None:
        group.wait_for("step 12/100 ")
        (run,) = group.children(0)
        stopped.extend(readers(run))
        os.kill(stopped[0], signal.SIGSTOP)

    run = Run(table, folder / "run", *LONG, "data.workers=1", f"patience={PATIENCE}.0", experiment=UNJUDGED)
    ended = run.live(meanwhile=meanwhile, more=("--supervise", "1"))
    return Hung(table, run, stopped[0], ended)


def readers(pid: int) -> list[int]:
    """The processes that read data for a run."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def resumed(ended: Ended) -> int:
    """The step after which a run says that it goes on."""
    (found,) = re.findall(r"goes on after step (\d+)", ended.said[0])
    return int(found)
