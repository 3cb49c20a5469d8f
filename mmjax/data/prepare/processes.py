"""Processes that write shards: each runs this file, and ends when the process that started it does, however it ends.

Those that `multiprocessing` spawns would import the caller's script first.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from mmjax.data.prepare.listing import ListedVideo
from mmjax.data.prepare.settings import PrepareSettings
from mmjax.data.prepare.shard import write_segments
from mmjax.errors import PassingError

Job = tuple[int, list[ListedVideo]]
PATIENCE = 5  # seconds that a process has to end by itself


class ShardWorkerError(PassingError):
    """A process that writes shards died."""


class ShardWorkers:
    """Runs `count` processes that write shards of a folder."""

    def __init__(self, count: int, out: Path, settings: PrepareSettings):
        self._idle: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[tuple[float, int] | BaseException | None] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._threads = ThreadPoolExecutor(count, "prepare")  # each waits for one process at a time
        # -P and this path: they import what this process would, and nothing else (an av.py in the current folder, say).
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        for number in range(count):
            ours, theirs = multiprocessing.Pipe()
            words = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
            environment = {**os.environ, "PYTHONPATH": path}
            self._processes.append(
                subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], env=environment)
            )
            theirs.close()
            ours.send((out, settings))
            self._connections.append(ours)
            self._idle.put(number)

    def write(self, jobs: Iterable[Job]) -> Iterator[tuple[float, int]]:
        """Writes shards; gives the seconds and the file's bytes of each video when it is done.

        Raises:
            ShardWorkerError: a process died.
            OSError: the disk is full, or can't be written to.
        """
        jobs = list(jobs)
        for job in jobs:
            self._threads.submit(self._written, job)
        left = len(jobs)
        while left:
            told = self._told.get()
            if isinstance(told, BaseException):
                raise told
            if told is None:
                left -= 1
            else:
                yield told

    def _written(self, job: Job) -> None:
        number = self._idle.get()
        connection = self._connections[number]
        try:
            connection.send(job)
            while True:
                told = connection.recv()
                self._told.put(told)
                if told is None or isinstance(told, BaseException):
                    return
        except (EOFError, OSError) as error:
            code = self._processes[number].wait()
            by = f"by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"with the code {code}"
            first = job[1][0].id
            gone = ShardWorkerError(
                f"a process ended {by} at the shard {job[0]}, whose videos begin with {first!r}: for want of memory "
                "maybe (fewer --workers). Shards that are done are kept: the same command goes on"
            )
            gone.__cause__ = error
            self._told.put(gone)
        finally:
            self._idle.put(number)

    def close(self) -> None:
        """Ends the processes; a shard that isn't done is dropped."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._threads.shutdown(cancel_futures=True)
        for connection in self._connections:
            connection.close()


def main() -> None:
    """Writes the shards that the socket asks for, until the standard input is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, which then closes
    threading.Thread(target=_follow, daemon=True, name="follow").start()
    connection = Connection(int(sys.argv[1]))
    out, settings = connection.recv()
    with contextlib.suppress(EOFError, ConnectionError):  # of the socket, where the other process has died
        while True:
            shard, videos = connection.recv()
            try:
                write_segments(out, shard, videos, settings, lambda seconds, size: connection.send((seconds, size)))
                connection.send(None)
            except Exception as error:  # raised by the process that asked
                connection.send(error.with_traceback(None))


def _follow() -> None:
    """Ends this process when the one that holds the other end of the standard input closes it or dies."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
