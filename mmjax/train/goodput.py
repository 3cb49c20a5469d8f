"""Measures where a run's time goes: to steps that count, or to starting, waiting, saving and lost steps."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from mmjax.train.progress import duration


class Goodput:
    """The clock of a run over all its lives: goodput is the share of its time that went to steps it still has.

    What is not: starting (reading, compiling and restoring, until the first step is done), waiting for data, being held
    up by a save, evaluations, and the steps of a life that was cut off after its last checkpoint. The time between two
    lives, when there were perhaps no machines, is in neither.
    """

    def __init__(self, began: float, seconds: float = 0.0, stepped: float = 0.0):
        """began: when this life did, by `time.perf_counter`. seconds: of all lives before; stepped: of those, in steps
        that the restored checkpoint has."""
        self._began, self._before, self._stepped = began, seconds, stepped
        self._apart: dict[str, float] = defaultdict(float)
        self._started: tuple[float, float] | None = None  # when, and what was waited for data until then

    def started(self, waited: float) -> None:
        """The first step of this life is done. waited: for data, in seconds so far."""
        if self._started is None:
            self._started = time.perf_counter(), waited
            self._apart.clear()  # an evaluation before it is part of the start

    @contextmanager
    def apart(self, what: str) -> Iterator[None]:
        """What is done in it is no training."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._apart[what] += time.perf_counter() - start

    def numbers(self, waited: float) -> dict[str, float]:
        """`seconds` of all lives so far, and `goodput`."""
        seconds = self._before + time.perf_counter() - self._began
        return {"seconds": seconds, "goodput": (self._stepped + self._steps(waited)) / seconds}

    def _steps(self, waited: float) -> float:
        """Seconds of this life in steps, the first one not counted."""
        if self._started is None:
            return 0.0
        since, before = self._started
        return max(0.0, time.perf_counter() - since - (waited - before) - sum(self._apart.values()))

    def summary(self, waited: float) -> str:
        """`goodput 91% of 2:31; this time: steps 2:18, start 0:09, data 0:01, saves 0:02, evaluation 0:01`."""
        numbers, now = self.numbers(waited), time.perf_counter()
        since, before = self._started or (now, waited)
        parts = {"steps": self._steps(waited), "start": since - self._began, "data": waited - before, **self._apart}
        told = ", ".join(f"{what} {duration(seconds)}" for what, seconds in parts.items())
        return f"goodput {numbers['goodput']:.0%} of {duration(numbers['seconds'])}; this time: {told}"
