"""Names the semaphores between a process and those that it starts, so that they are found when it is dead.

Spawned processes, as Grain's are, open a semaphore by its name, so it must have one as long as it is in use. Python
removes it in the end, or its resource tracker does after a kill; where a kill takes that too, as one of the process
group does, the name stays in shared memory until the machine starts again. So names here identify their process, and
the next run removes those of dead processes.
"""

import contextlib
import os
from multiprocessing import process
from pathlib import Path

FOLDER = Path("/dev/shm")  # Linux shows them here, with `sem.` before their names; elsewhere they are left alone
PROC = Path("/proc")
PREFIX = "mmjax"


def name_ours() -> None:
    """Names this process's semaphores after it from now on; removes those of dead processes."""
    if (maker := _maker(os.getpid())) is None or not FOLDER.is_dir():
        return
    # There is no public interface. Python reads it whenever it makes a semaphore, and passes it to processes it starts.
    process.current_process()._config["semprefix"] = f"/{PREFIX}-{maker}"  # type: ignore[attr-defined]
    sweep()


def sweep() -> None:
    """Removes the names whose makers are dead; a process that has such a semaphore open keeps it."""
    space = _space()
    for path in FOLDER.glob(f"sem.{PREFIX}-*-*-*-*"):
        there, pid, started = path.name.split("-")[1:4]
        # Processes of another PID namespace (a container that shares the memory) can't be seen here.
        if there == space and pid.isdecimal() and _maker(int(pid)) != f"{there}-{pid}-{started}":
            with contextlib.suppress(OSError):  # removed by another process, or another user's
                path.unlink()


def _maker(pid: int) -> str | None:
    """Identifies a living process uniquely until the machine restarts; None where there is none.

    Its PID namespace, its PID, and its start time in ticks since the machine started: proc(5).
    """
    try:
        told = (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    state, started = told[0], told[19]  # the third field and the 22nd: the name, cut off, may have blanks in it
    return None if state in "ZX" else f"{_space()}-{pid}-{started}"


def _space() -> str:
    return str((PROC / "self/ns/pid").stat().st_ino)
