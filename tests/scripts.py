"""Scripts of a user's own, run to their end in a session of their own, which nothing may outlive."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

STARTED = "import os; open(__file__ + '.starts', 'a').write(f'{os.getpid()}\\n')\n"  # each time the script begins

GRACE = 5  # seconds that Python's own tracker of shared memory, say, has to see that it is no longer needed


class Ended(NamedTuple):
    """How it ended, what it said, how many processes have run it from its top, and how many outlived it."""

    code: int
    said: str
    complained: str
    starts: int
    left: int


def run(script: Path, text: str, *words: str, seconds: float = 120) -> Ended:
    """Writes the script and runs it; kills it, and all that it started, when it takes longer (code -9)."""
    script.write_text(STARTED + text, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, complained = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, complained = process.communicate()
    deadline = time.monotonic() + GRACE
    while (left := len(living(process.pid))) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        os.killpg(process.pid, signal.SIGKILL)
    starts = len(script.with_name(f"{script.name}.starts").read_text().split())
    return Ended(process.returncode, said, complained, starts, left)


def living(session: int) -> list[int]:
    """The processes of a session that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(") ")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(of) == session and state not in "ZX":
            found.append(int(stat.parent.name))
    return found
