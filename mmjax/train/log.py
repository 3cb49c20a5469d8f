"""Brings the steps' metrics from the device to the files and the screen, without delaying the device."""

import time
from typing import Any, Protocol, Self

import jax

from mmjax.runtime.metrics import Metrics
from mmjax.train.goodput import Goodput
from mmjax.train.progress import Progress

UNWRITTEN = ("bad/", "clipped/", "truncated/")  # metrics that are left out where they are 0


class Waits(Protocol):
    """Something that waits for data: `waited`, in seconds so far."""

    waited: float


class Log:
    """Takes the metrics of every step, still on the device, and writes those of every `log_every`-th step.

    A step's numbers are read when the next step is under way, so the device never waits for the host; and no more than
    that one step is ahead, so that the numbers are fresh and Ctrl-C is quick.

    Adds `examples_per_second`, `data_wait` (the share of the time spent waiting for data) since the last line, and
    `seconds` and `goodput` of all runs in the workdir so far (see there). Counts of zero are not written (UNWRITTEN):
    kinds of bad examples, modalities without clipping, sources without truncation.
    """

    def __init__(
        self,
        metrics: Metrics,
        progress: Progress,
        stream: Waits,
        clock: Goodput,
        log_every: int,
        batch_size: int,
        last: int,
        nothing: bool = False,
    ):
        """last: the last step, which is always written, as the first is. nothing: whether loss and gradient were
        exactly 0 at every step before.
        """
        self._metrics, self._progress, self._stream, self._clock = metrics, progress, stream, clock
        self._every, self._batch_size, self._last = log_every, batch_size, last
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._read: tuple[int, float, float] | None = None  # step, time, waited at the last reading
        self.loss: float | None = None  # the last loss written
        self._nonfinite: dict[str, int] = {}  # counts of the step before
        self.read = 0  # the last step whose metrics were read
        self.values: dict[str, jax.Array] = {}  # they
        self.bad_in_a_row = 0  # steps up to that one whose update was skipped
        self.nothing = nothing  # whether loss and gradient were exactly 0 at every step so far

    def step(self, step: int, values: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that was just dispatched; waits for the one before it."""
        self.flush()
        self._pending = step, values
        self._progress.step(step)

    def due(self, step: int) -> bool:
        """True if the metrics of that step are written."""
        return step in (1, self._last) or step % self._every == 0

    def flush(self) -> None:
        """Waits for the last step, and writes its metrics if they are due."""
        if self._pending is None:
            return
        (step, values), self._pending = self._pending, None
        jax.block_until_ready(values)
        self._clock.started(self._stream.waited)
        self._complain(step, values)
        if self.due(step):
            numbers = {name: float(value) for name, value in jax.device_get(values).items()}
            numbers = {name: value for name, value in numbers.items() if value or not name.startswith(UNWRITTEN)}
            numbers |= self._pace(step) | self._clock.numbers(self._stream.waited)
            self.loss = numbers["loss"]
            self._metrics.write(step, numbers)
            self._progress.log(step, numbers)
        elif self._read is None:
            self.restart(step)

    def _complain(self, step: int, values: dict[str, jax.Array]) -> None:
        """Reports, when it begins, that an update was skipped, or which tower's embeddings, in which objective, aren't
        finite.
        """
        counts = jax.device_get({name: value for name, value in values.items() if "/nonfinite/" in name})
        self.read, self.values = step, values
        if self.nothing:  # nearly every run ends this at its first step
            self.nothing = float(values["loss"]) == 0 and float(values["grad_norm"]) == 0
        before, self.bad_in_a_row = self.bad_in_a_row, int(values.get("guard/in_a_row", 0))
        if self.bad_in_a_row and not before:
            loss, norm = float(values["loss"]), float(values["grad_norm"])
            self._progress.say(
                f"step {step}: loss {loss:.4g}, norm of the gradient {norm:.4g}: its update is skipped, and so are the "
                "next ones while that lasts (metrics guard/skipped, guard/in_a_row)"
            )
        for name, count in counts.items():
            if count and not self._nonfinite.get(name):
                objective, _, modality = name.split("/")
                self._progress.say(
                    f"step {step}: {int(count)} of {self._batch_size} embeddings of {modality!r} in objective "
                    f"{objective!r} are not finite (metric {name})"
                )
        self._nonfinite = counts

    def restart(self, step: int) -> None:
        """Measures the pace from here on: the time before (compiling, an evaluation) was no training."""
        self._read = step, time.perf_counter(), self._stream.waited

    def _pace(self, step: int) -> dict[str, float]:
        before, now = self._read, time.perf_counter()
        self._read = step, now, self._stream.waited
        if before is None or step <= before[0]:
            return {}
        seconds = now - before[1]
        return {
            "examples_per_second": (step - before[0]) * self._batch_size / seconds,
            "data_wait": min(1.0, (self._stream.waited - before[2]) / seconds),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            self.flush()
