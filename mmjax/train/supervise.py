"""A small parent process that restarts a run when it dies of a machine's fault."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from mmjax.errors import UserError

FIRST, LONGEST = 5.0, 300.0  # seconds of pause before the first restart, doubled each time, and the longest pause
USER = 2  # the exit code of an error that would come again: a wrong setting, missing data, a full disk
CTRL_C = 130


def supervise(
    command: Sequence[str], restarts: int, *, pause: float = FIRST, say: Callable[[str], None] | None = None
) -> int:
    """Runs a command, and again when it dies, at most `restarts` times more; returns its last exit code.

    It is not started again after an end (0; also of a run that was asked to stop and has saved), after Ctrl-C, nor
    after an error that would come again (2). SIGTERM and Ctrl-C go on to the command, which then ends in its own way.
    A command that a signal killed counts as 128 + its number, as in a shell, but 0 if it was the SIGTERM passed on.

    say: gets messages of restarts; by default they go to stderr. pause: seconds before the second start.

    Raises UserError where restarts is less than 1.
    """
    if restarts < 1:
        raise UserError(f"--supervise {restarts}: how often the run may be started again, at least 1")
    say = say or (lambda text: print(text, file=sys.stderr, flush=True))
    with _Relay() as relay:
        restart = 0
        while True:
            code = relay.run(command)
            if relay.heard == signal.SIGTERM and code == -signal.SIGTERM:
                return 0  # the signal came before the command handled signals, so before there was anything to save
            ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            if code == -signal.SIGKILL:
                ended += " (most likely the machine's memory was full; or somebody did kill -9)"
            code = 128 - code if code < 0 else code
            if code in (0, USER, CTRL_C) or relay.heard:
                return code
            if restart == restarts:
                say(f"the run ended {ended}, after {restarts} new starts: it is not started again")
                return code
            wait = min(pause * 2**restart, LONGEST)
            say(f"the run ended {ended}: starting it again in {wait:g} s ({restart + 1} of {restarts} times)")
            if relay.stopped.wait(wait):
                say("stopped before it was started again; the last checkpoint stands")
                return code
            restart += 1


class _Relay:
    """Passes signals of this process on to the command, once each, while entered."""

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None
        self.stopped = threading.Event()
        self._missed: int | None = None  # a signal that came before there was a process
        self._process: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "_Relay":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.heard = signal.Signals(number)
        self.stopped.set()
        # A terminal's Ctrl-C reaches the command too, and a second one would interrupt its saving.
        if number == signal.SIGINT and _foreground():
            return
        if self._process is None:
            self._missed = number
        else:
            self._process.send_signal(number)

    def run(self, command: Sequence[str]) -> int:
        self._process = subprocess.Popen(command)
        if (number := self._missed) is not None:
            self._missed = None
            self._process.send_signal(number)
        code = self._process.wait()  # waits on after a signal
        self._process = None
        return code


def _foreground() -> bool:
    """True if the terminal's keys reach this process."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:  # there is no terminal
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)
