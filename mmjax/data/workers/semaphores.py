"""Names of the semaphores between a process and those that it starts, by which they are found when it is dead.

Processes that start afresh, as Grain's do, open a semaphore by its name, so that it has to have one for as long as it
lives. Python removes it in the end, or its resource tracker does after a kill; where a kill takes that too, as one of
the process group does, the name stays in shared memory until the machine starts again. So names here tell who made
them, and the next run removes those of the dead.
"""

import contextlib
import os
from multiprocessing import process
from pathlib import Path

FOLDER = Path("/dev/shm")  # where Linux shows them, with `sem.` before their names; elsewhere they are left alone
PROC = Path("/proc")
PREFIX = "mmjax"


def name_ours() -> None:
    """Semaphores of this process are named after it from now on; removes those of processes that are dead."""
    if (maker := _maker(os.getpid())) is None or not FOLDER.is_dir():
        return
    # No public way leads there. Python reads it whenever it makes a semaphore, and hands it on to processes it starts.
    process.current_process()._config["semprefix"] = f"/{PREFIX}-{maker}"  # type: ignore[attr-defined]
    sweep()


def sweep() -> None:
    """Removes the names whose makers are dead; whoever has such a semaphore open keeps it."""
    space = _space()
    for path in FOLDER.glob(f"sem.{PREFIX}-*-*-*-*"):
        there, pid, started = path.name.split("-")[1:4]
        # Of another space of processes (a container that shares the memory) it can't be told here who lives.
        if there == space and pid.isdecimal() and _maker(int(pid)) != f"{there}-{pid}-{started}":
            with contextlib.suppress(OSError):  # somebody else has done it, or it is another user's
                path.unlink()


def _maker(pid: int) -> str | None:
    """A living process as no other one is called until the machine starts again; None where there is none.

    Its space of numbers, its number there, and when it began, in ticks since the machine started: proc(5).
    """
    try:
        told = (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    state, started = told[0], told[19]  # the third field and the 22nd: the name, cut off, may have blanks in it
    return None if state in "ZX" else f"{_space()}-{pid}-{started}"


def _space() -> str:
    return str((PROC / "self/ns/pid").stat().st_ino)
