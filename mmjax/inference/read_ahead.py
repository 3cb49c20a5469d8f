"""Reads the inputs of `Model.embed` into rows of batches: files by threads, ahead of the device."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from mmjax.inference.inputs import Inputs, Row
from mmjax.inference.row_embedder import chunks

READERS = 8  # threads that read and decode files, at most
AHEAD = 2  # chunks of files that are read while the device works on the one before them
TASK = 8  # files that a thread takes at a time
LONG = 4  # chunks above which there is a bar


def rows(inputs: Inputs, modality: str, items: Iterable[Any], size: int, progress: bool | None) -> Iterator[list[Row]]:
    """The rows of the inputs, in their order, in lists of `size`.

    progress: whether to draw a bar; None: for long lists, on a terminal.

    Raises:
        UserError: an input can't be used; the first such in their order, even if a thread found another one earlier.
    """
    total = len(items) if isinstance(items, Sequence | np.ndarray) else None
    threads = ThreadPoolExecutor(min(READERS, os.cpu_count() or 1), "mmjax-embed")  # threads start only with work
    waiting: deque[list[Future[list[Row]]]] = deque()

    def read(pairs: list[tuple[int, Any]]) -> list[Row]:
        return [inputs.row(modality, item, place) for place, item in pairs]

    def taken(chunk: list[Future[list[Row]]]) -> list[Row]:
        found = [row for task in chunk for row in task.result()]
        advance(len(found))
        return found

    try:
        with _bar(modality, total, size, progress) as advance:
            place = 0
            for chunk in chunks(items, size):
                pairs = list(enumerate(chunk, place))
                place += len(chunk)
                if not inputs.of[modality].words and all(isinstance(item, str | bytes | os.PathLike) for item in chunk):
                    waiting.append([threads.submit(read, part) for part in chunks(pairs, TASK)])
                    if len(waiting) > AHEAD:
                        yield taken(waiting.popleft())
                    continue
                while waiting:
                    yield taken(waiting.popleft())
                yield read(pairs)
                advance(len(pairs))
            while waiting:
                yield taken(waiting.popleft())
    finally:
        threads.shutdown(cancel_futures=True)


@contextmanager
def _bar(modality: str, total: int | None, size: int, wanted: bool | None) -> Iterator[Callable[[int], None]]:
    """A progress bar; yields the function that advances it."""
    if wanted is None:
        wanted = sys.stderr.isatty() and total is not None and total > LONG * size
    if not wanted:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(f"embedding {modality}", total=total)
        yield lambda count: bars.advance(task, count)
