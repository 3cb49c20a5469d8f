"""Starts a program in several processes that find each other, as a cluster's launcher would."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmjax.runtime.launch import ADDRESS, COUNT, INDEX
from tests.ports import unused_port

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 150  # seconds for one run, which takes some ten: a hang fails, instead of stopping the suite


@dataclass(frozen=True)
class Ended:
    """How the processes ended, by index: exit codes, what they said and what they complained of; seconds in all."""

    codes: list[int]
    said: list[str]
    errors: list[str]
    seconds: float

    def __str__(self) -> str:
        sides = zip(self.codes, self.said, self.errors, strict=True)
        return "\n".join(f"--- process {i}, code {c}:\n{s}\n{e}" for i, (c, s, e) in enumerate(sides))


class Group:
    """Running processes."""

    def __init__(self, processes: list[subprocess.Popen], folder: Path):
        self._processes, self._folder = processes, folder

    def said(self, index: int) -> str:
        return (self._folder / f"{index}.out").read_text(errors="replace")

    def errors(self, index: int) -> str:
        return (self._folder / f"{index}.err").read_text(errors="replace")

    def wait_for(self, text: str, index: int = 0) -> None:
        """Returns when that process has said `text`."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.said(index):
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.said(index)}\n{self.errors(index)}"
            assert self._processes[index].poll() is None, f"ended:\n{self.said(index)}\n{self.errors(index)}"
            time.sleep(0.02)

    def send(self, number: signal.Signals, indices: Sequence[int]) -> None:
        for index in indices:
            self._processes[index].send_signal(number)

    def send_groups(self, number: signal.Signals, indices: Sequence[int]) -> None:
        """As `send`, to all that the processes have started too."""
        for index in indices:
            os.killpg(self._processes[index].pid, number)

    def running(self) -> bool:
        """Whether none has ended."""
        return all(process.poll() is None for process in self._processes)

    def wait(self, index: int) -> None:
        """Returns when that process has ended."""
        self._processes[index].wait(PATIENCE)

    def children(self, index: int) -> list[int]:
        """The processes that it has started itself."""
        tasks = Path(f"/proc/{self._processes[index].pid}/task").iterdir()
        found: list[int] = []
        for task in tasks:
            with contextlib.suppress(OSError):  # a thread that has ended since
                found += map(int, (task / "children").read_text().split())
        return found


def launch(
    *words: str,
    processes: int = 2,
    devices: int = 4,
    meanwhile: Callable[[Group], None] = lambda group: None,
    timeout: float = PATIENCE,
    variables: Mapping[str, str] | None = None,
) -> Ended:
    """Runs `python WORDS` in so many processes, of so many fake devices each, to their ends.

    None is left behind, however it ends: a hang fails after `timeout` seconds, with what was said. variables: of the
    environment, besides.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, began, running = Path(name), time.monotonic(), []
        try:
            port = unused_port()
            for index in range(processes):
                environment = _environment(devices) | (_address(port, processes, index) if processes > 1 else {})
                environment |= variables or {}
                with (folder / f"{index}.out").open("w") as out, (folder / f"{index}.err").open("w") as err:
                    options = {"cwd": ROOT, "env": environment, "start_new_session": True}  # a group of its own
                    running.append(subprocess.Popen([sys.executable, *words], stdout=out, stderr=err, **options))
            group = Group(running, folder)
            meanwhile(group)
            late = False
            for process in running:
                try:
                    process.wait(max(0.1, began + timeout - time.monotonic()))
                except subprocess.TimeoutExpired:
                    late = True
        finally:
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        everyone = range(processes)
        said, errors = [group.said(i) for i in everyone], [group.errors(i) for i in everyone]
        ended = Ended([process.returncode for process in running], said, errors, time.monotonic() - began)
        assert not late, f"not over after {timeout} s\n{ended}"
        return ended


def mmjax(*words: str, **options) -> Ended:
    """`launch` of the command line."""
    return launch("-m", "mmjax", *words, **options)


def _environment(devices: int) -> dict[str, str]:
    """The suite's (platform, cache of compiled code), or that of a fresh shell, with other devices; of a terminal of
    one width."""
    variables = {name: value for name, value in os.environ.items() if name not in (ADDRESS, COUNT, INDEX)}
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", variables.get("XLA_FLAGS", ""))
    return (
        {"JAX_PLATFORMS": "cpu"}
        | variables
        | {
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}".strip(),
            "COLUMNS": "200",
            "PYTHONUNBUFFERED": "1",
        }
    )


def _address(port: int, count: int, index: int) -> dict[str, str]:
    return {ADDRESS: f"localhost:{port}", COUNT: str(count), INDEX: str(index)}
