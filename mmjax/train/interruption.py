"""Handles Ctrl-C and SIGTERM (preemption): a run finishes its step and saves before it stops."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAVE = 1  # the value all-reduced for "save now"; smaller than any signal's number, so that max() prefers a signal


@contextmanager
def nothing_begun() -> Iterator[None]:
    """While entered, SIGTERM ends the process with exit code 0, as there is nothing to save: while a run starts (or has
    ended), around its `Interruption`. In a thread other than the main one signals are left as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, b"\nSIGTERM: no step is being taken, so there is nothing to save\n")
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interruption:
    """While entered, the first SIGINT or SIGTERM only sets `signal`; a second Ctrl-C interrupts at once.

    SIGTERM comes to a process more than once where a whole machine goes down (its system sends it to all, and so does
    whoever started them): only the first counts.

    In a thread other than the main one, signals are left as they are.
    """

    def __init__(self, agree: Callable[[int], int] = int) -> None:
        """agree: takes the signal received on this host (0: none) and returns the one that all hosts follow."""
        self._before: dict[signal.Signals, Any] = {}
        self._agree = agree
        self._agreed = 0
        self.signal: signal.Signals | None = None  # received on this host
        self.save = False  # True if some host's clock asks for a checkpoint now; the same on all

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.signal = signal.Signals(number)
        heard = f"\n{self.signal.name}: finishing this step and saving; Ctrl-C again stops at once, without saving\n"
        os.write(2, heard.encode())  # a handler may interrupt a print, which isn't reentrant

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self, save: bool = False) -> bool:
        """True if the run is to stop now; the same on all hosts, which must all call it, equally often. `save`: this
        host's clock asks for a checkpoint.
        """
        if not self._agreed:
            word = self._agree(self.signal or (SAVE if save else 0))
            self.save = word == SAVE
            self._agreed = word if word > SAVE else 0
        return bool(self._agreed)

    def end(self) -> BaseException:
        """The exception to raise once the state is saved: `SystemExit(0)` after SIGTERM, `KeyboardInterrupt` after
        Ctrl-C."""
        return SystemExit(0) if self._agreed == signal.SIGTERM else KeyboardInterrupt()
