"""Processes that make examples of `spoken_emoji`: each runs this file, and knows nothing of the program that builds.

Those that `multiprocessing` spawns import the caller's script first. One without `if __name__ == "__main__":` would
open its dataset there, too, and so begin to build it in every worker, for ever.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from mmjax.data.datasets.spoken_emoji.catalogue import Entry
from mmjax.data.datasets.spoken_emoji.example import make_example
from mmjax.errors import PassingError

PATIENCE = 10  # seconds that a worker has to finish its example


class WorkerError(PassingError):
    """A worker process died."""


class Workers:
    """Runs `count` processes that make examples. They end by `close`, and when this process does, however it ends, as
    their socket is closed then.
    """

    def __init__(self, count: int):
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._threads = ThreadPoolExecutor(count, "emoji")  # each waits for one worker at a time
        # -P and this path: workers import what this process would, and nothing else (a soxr.py in the current folder,
        # say).
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        for _ in range(count):
            ours, theirs = multiprocessing.Pipe()
            words = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
            environment = {**os.environ, "PYTHONPATH": path}
            self._processes.append(
                subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment)
            )
            theirs.close()
            self._connections.append(ours)
            self._idle.put(ours)

    def map(self, entries: Iterable[Entry], languages: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """Makes the example of each entry, in their order (`make_example`).

        Raises:
            WorkerError: a process died.
            UserError: `make_example` raised it.
        """
        return self._threads.map(lambda entry: self._made(entry, languages), entries)

    def _made(self, entry: Entry, languages: tuple[str, ...]) -> dict[str, Any]:
        connection = self._idle.get()
        try:
            connection.send((entry, languages))
            made = connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerError("a worker process died. Out of memory?") from error
        finally:
            self._idle.put(connection)
        if isinstance(made, BaseException):
            raise made
        return made

    def close(self) -> None:
        """Ends the processes, each after its present example; entries that wait are dropped."""
        self._threads.shutdown(cancel_futures=True)
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main() -> None:
    """Makes the examples that the socket asks for, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that builds, which then closes it
    connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, OSError):
        while True:
            entry, languages = connection.recv()
            made: dict[str, Any] | Exception
            try:
                made = make_example(entry, languages)
            except Exception as error:  # reported by the process that builds
                made = error.with_traceback(None)
            connection.send(made)


if __name__ == "__main__":
    main()
