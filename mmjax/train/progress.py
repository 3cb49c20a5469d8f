"""Shows a person how a run goes: a live line on a terminal, plain lines in a log, and tables of results."""

import time
from collections.abc import Mapping
from typing import Self

from rich import progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

BAR = 20  # columns


class Progress:
    """Shows how far training is, how fast, and how long it will take.

    On a terminal a line that is rewritten as steps go by; elsewhere a line at each `log`. Time left is computed from
    the pace since the second step (the first one compiles), evaluations and saves included.
    """

    def __init__(self, steps: int, start: int, console: Console | None = None, quiet: bool = False):
        """quiet: prints nothing at all (only one of several hosts prints)."""
        self.console = console or Console(highlight=False, quiet=quiet)
        self._steps, self._start = steps, start
        self._began: float | None = None
        self._live: progress.Progress | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.quiet:
            self._live = progress.Progress(
                progress.TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
                progress.BarColumn(BAR),
                progress.TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=False)),  # never cut off
                console=self.console,
            )
            self._task = self._live.add_task("train", total=self._steps, completed=self._start, numbers="compiling")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def step(self, step: int) -> None:
        """Shows that `step` steps are done (or queued: it may be one ahead)."""
        if self._began is None:
            self._began, self._first = time.perf_counter(), step
        if self._live is not None:
            self._live.update(self._task, completed=step)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Prints a few metrics of a logged step: the loss, the learning rate, each objective's logit scale, and the
        pace, as far as there are such.
        """
        told = [f"loss {numbers['loss']:.3f}"]
        if "lr" in numbers:
            told.append(f"lr {numbers['lr']:.2e}")
        if scales := [value for name, value in numbers.items() if name.endswith("/logit_scale")]:
            told.append(f"logit scale {', '.join(f'{scale:.1f}' for scale in scales)}")
        if "examples_per_second" in numbers:
            told.append(f"{numbers['examples_per_second']:,.0f} examples/s")
        line = "  ".join([*told, f"{self.left(step)} left"])
        if self._live is not None:
            self._live.update(self._task, numbers=line)
        else:
            self.say(f"step {step}/{self._steps}  {line}")

    def left(self, step: int) -> str:
        """The time of the steps after `step`, as `2:31`; `?` before the pace is known."""
        if self._began is None or step <= self._first:
            return "?"
        pace = (time.perf_counter() - self._began) / (step - self._first)
        return duration(pace * (self._steps - step))

    def say(self, text: str) -> None:
        """Prints a line that stays (above the live one); never wrapped, so that paths and commands can be copied."""
        self.console.print(Text(text), soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as `0:05`, `2:31`, `1:02:31`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
