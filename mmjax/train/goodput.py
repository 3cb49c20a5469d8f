"""Measures where a run's time goes: to steps that count, or to starting, waiting, saving and lost steps."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from mmjax.train.progress import duration


class Goodput:
    """Measures a run's time over all its processes: goodput is the share of it spent on steps that the run still has.

    The rest is starting (reading, compiling and restoring, until the first step is done), waiting for data and for
    saves, evaluations, and steps that were lost after the last checkpoint. The time between two processes, when there
    were perhaps no machines, isn't counted.
    """

    def __init__(self, began: float, seconds: float = 0.0, stepped: float = 0.0):
        """began: when this process began, by `time.perf_counter`. seconds: of all processes before; stepped: the part
        of those in steps that the restored checkpoint has.
        """
        self._began, self._before, self._stepped = began, seconds, stepped
        self._apart: dict[str, float] = defaultdict(float)
        self._started: tuple[float, float] | None = None  # when, and seconds waited for data until then

    def started(self, waited: float) -> None:
        """Marks the end of this process's first step. waited: for data, in seconds so far."""
        if self._started is None:
            self._started = time.perf_counter(), waited
            self._apart.clear()  # an evaluation before it is part of the start

    @contextmanager
    def apart(self, what: str) -> Iterator[None]:
        """Times a block that isn't training."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._apart[what] += time.perf_counter() - start

    def numbers(self, waited: float) -> dict[str, float]:
        """`seconds` of all processes so far, and `goodput`."""
        seconds = self._before + time.perf_counter() - self._began
        return {"seconds": seconds, "goodput": (self._stepped + self._steps(waited)) / seconds}

    def _steps(self, waited: float) -> float:
        """Seconds of this process in steps, without the first one."""
        if self._started is None:
            return 0.0
        since, before = self._started
        return max(0.0, time.perf_counter() - since - (waited - before) - sum(self._apart.values()))

    def summary(self, waited: float) -> str:
        """A line such as `goodput 91% of 2:31; this time: steps 2:18, start 0:09, data 0:01, saves 0:02, evaluation
        0:01`.
        """
        numbers, now = self.numbers(waited), time.perf_counter()
        since, before = self._started or (now, waited)
        parts = {"steps": self._steps(waited), "start": since - self._began, "data": waited - before, **self._apart}
        told = ", ".join(f"{what} {duration(seconds)}" for what, seconds in parts.items())
        return f"goodput {numbers['goodput']:.0%} of {duration(numbers['seconds'])}; this time: {told}"
