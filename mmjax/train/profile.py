"""A profile of a few steps, for XProf (`pip install xprof`, then `xprof WORKDIR/profile`)."""

import contextlib
from pathlib import Path
from typing import Any, Self

import jax

from mmjax.errors import UserError

STEP = "train"  # a step's name in a trace


class Trace:
    """Traces the steps `first` to `last`, both included, into `<workdir>/profile`; nothing if `steps` is None.

    Each step is marked by its number, for XProf's views by step. The device is a step behind: a mark lasts
    from the wait for a batch until the step before is done, and the last one until its own is, so that on average they
    are as long as a step. Saves and evaluations in between are in no mark.
    """

    def __init__(self, steps: tuple[int, int] | None, workdir: Path, start: int, total: int):
        """Raises UserError where the run, which goes from after `start` to `total`, does not take those steps."""
        if steps is not None and not start < steps[0] <= steps[1] <= total:
            raise UserError(f"profile={steps[0]}:{steps[1]} must lie in the steps that are left, {start + 1}:{total}")
        self._steps, self._folder, self._running = steps, workdir / "profile", False
        self._marked = contextlib.ExitStack()  # the mark of the present step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:  # interrupted within the trace
            self._stop()

    def _stop(self) -> None:
        self._running = False
        self._marked.close()
        jax.profiler.stop_trace()

    def before(self, step: int, state: Any) -> None:
        """Begins the trace if it is due; call it before a step. `state` is the state that the step starts from."""
        if self._steps is not None and step == self._steps[0]:
            jax.block_until_ready(state)  # the step before is not part of the trace
            jax.profiler.start_trace(self._folder)
            self._running = True
        if self._running:
            self._marked.enter_context(jax.profiler.StepTraceAnnotation(STEP, step_num=step))

    def after(self, step: int, state: Any) -> None:
        """Ends the trace if it is due; call it after a step, when the one before it has been waited for. `state` is the
        step's result.
        """
        if self._steps is not None and step == self._steps[1]:
            jax.block_until_ready(state)
            self._stop()
        self._marked.close()
