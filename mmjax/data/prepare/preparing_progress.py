"""Shows how far the preparation of videos is: a line on a terminal that is rewritten, a line a minute in a log."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_EVERY = 60.0  # seconds from one line in a log to the next


class PreparingProgress:
    """Counts videos, their hours, and their files' bytes, by which the time left is estimated: as a context manager."""

    def __init__(self, videos: int, size: int, done: int, console: Console | None = None):
        """videos, size: how many are to be prepared, and their bytes; done: those that were before."""
        self._console = console or Console(stderr=True, highlight=False)
        self._videos, self._size, self._before = videos, size, done
        self._done, self._seconds, self._bytes = 0, 0.0, 0
        columns = (BarColumn(20), TextColumn("{task.fields[numbers]}"))
        self._bar = Progress(*columns, console=self._console) if self._console.is_terminal else None

    def __enter__(self) -> Self:
        self._began = self._last = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task("prepare", total=self._size or 1, numbers=self.numbers())
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, seconds: float, size: int) -> None:
        """Counts a video of so many seconds and bytes."""
        self._done, self._seconds, self._bytes = self._done + 1, self._seconds + seconds, self._bytes + size
        if self._bar is not None:
            self._bar.update(self._task, completed=self._bytes, numbers=self.numbers())
        elif time.monotonic() - self._last >= _EVERY or self._done == self._videos:
            self._last = time.monotonic()
            self._console.print(self.numbers(), soft_wrap=True)

    def numbers(self) -> str:
        """The counts in words: `12/100 videos  0.41 videos/s  3.2 h of video  0:03:35 left`."""
        took = time.monotonic() - self._began
        pace = self._done / took if took else 0.0
        left = _clock(took * (self._size - self._bytes) / self._bytes) if self._bytes else "?"
        return (
            f"{self._before + self._done:,}/{self._before + self._videos:,} videos  {pace:,.2f} videos/s  "
            f"{self._seconds / 3_600:,.2f} h of video  {left} left"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
