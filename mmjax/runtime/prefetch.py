"""Puts batches on the devices ahead of the step that takes them."""

import multiprocessing
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import jax
import numpy as np

from mmjax.errors import PassingError, UserError
from mmjax.runtime.mesh import put


class StalledError(PassingError):
    """No data came within the time allowed."""


class DevicePrefetch(Iterator[dict[str, jax.Array]]):
    """Iterates over global device batches, with the next `size` of them already there; a thread reads and copies them.

    `waited` is the time in seconds that the consumer has spent in `next` waiting for data. `next` raises the source's
    exceptions, and StalledError where the source gives nothing for `patience` seconds (0: no limit). `close` (or
    leaving the `with`) stops the thread; a source that blocks for ever can't keep the process alive, since the thread
    is a daemon.
    """

    def __init__(
        self, source: Iterator[dict[str, np.ndarray]], mesh: jax.sharding.Mesh, size: int = 2, patience: float = 0.0
    ):
        if size < 1:
            raise UserError(f"device_prefetch: size={size} must be at least 1.")
        self.waited, self._patience = 0.0, patience or None
        self._source, self._mesh = source, mesh
        self._slots = threading.Semaphore(size)
        self._ready: queue.SimpleQueue[tuple[dict[str, jax.Array] | None, BaseException | None]] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="device_prefetch", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        try:
            while True:
                self._slots.acquire()  # before reading, so that the source is never more than `size` ahead
                if self._closed.is_set():
                    return
                self._ready.put((put(next(self._source), self._mesh), None))
        except BaseException as error:  # StopIteration ends it; anything else is raised in the consumer
            self._ready.put((None, error))
        finally:
            if close := getattr(self._source, "close", None):
                close()  # a generator closes files and workers here, in the thread that ran it

    def __next__(self) -> dict[str, jax.Array]:
        if self._closed.is_set():
            raise StopIteration
        start = time.perf_counter()
        try:
            batch, error = self._ready.get(timeout=self._patience)
        except queue.Empty:
            self._closed.set()
            raise StalledError(
                f"no batch has come for {self._patience:g} s (patience={self._patience:g}): {_hanging()}. Start the "
                "same command again to go on"
            ) from None
        self.waited += time.perf_counter() - start
        if batch is None:
            self._closed.set()
            raise error if error is not None else StopIteration
        self._slots.release()
        return batch

    def close(self, timeout: float = 5.0) -> None:
        """Stops the thread, waiting at most `timeout` seconds for a read in flight; the batches ahead are dropped."""
        self._closed.set()
        self._slots.release()
        self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hanging() -> str:
    """Names the likely cause that no data comes: reader processes that were stopped, or else all of them."""
    readers = sorted(child.pid for child in multiprocessing.active_children() if child.pid)
    if stopped := [pid for pid in readers if _stopped(pid)]:
        which = f"process {stopped[0]}" if len(stopped) == 1 else f"processes {', '.join(map(str, stopped))}"
        return f"{which}, which should read, {'is' if len(stopped) == 1 else 'are'} stopped (SIGSTOP)"
    named = f" ({', '.join(map(str, readers))})" if readers else ""
    return f"the disk, the network or a process that reads{named} hangs"


def _stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")  # proc(5)
    except OSError:  # it has ended, or this is no Linux
        return False


def device_prefetch(
    source: Iterator[dict[str, np.ndarray]], mesh: jax.sharding.Mesh, size: int = 2, patience: float = 0.0
) -> DevicePrefetch:
    """`put`s the batches of `source` ahead of their use: see `DevicePrefetch`."""
    return DevicePrefetch(source, mesh, size, patience)
