"""Shows how far the build of a dataset is: a bar on a terminal, a line every tenth in a log."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINES = 10


class BuildProgress:
    """Shows the progress of a build, as a context manager; `start` sets the number of examples, `advance` adds one."""

    def __init__(self, title: str) -> None:
        self._title = title
        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        # A log file gets lines instead of a bar that is redrawn.
        self._bar = Progress(TextColumn(title), *columns, console=console) if console.is_terminal else None

    def __enter__(self) -> "BuildProgress":
        self._done, self._total, self._began = 0, 0, time.monotonic()
        if self._bar is not None:
            self._bar.start()
        return self

    def start(self, total: int) -> None:
        """Sets the number of examples to be made."""
        self._total = total
        if self._bar is not None:
            self._task = self._bar.add_task(self._title, total=total)

    def advance(self) -> None:
        """Counts one more example."""
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._task)
        elif self._done * _LINES // self._total > (self._done - 1) * _LINES // self._total:
            seconds = time.monotonic() - self._began
            print(f"{self._title}: {self._done}/{self._total} in {seconds:.0f} s", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
