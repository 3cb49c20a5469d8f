"""Processes that read and transform ahead of the training process, and end when it does, however it ends."""

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import util
from typing import Any, Self

import numpy as np
from etils import epy

from mmjax.data.workers import semaphores
from mmjax.data.workers.main_guard import check_main_guard
from mmjax.data.workers.parcels import Address, Mailbox, Pack, unpacked
from mmjax.errors import PassingError
from mmjax.runtime.files import own_code
from mmjax.runtime.files.own_code import Code

with epy.lazy_imports():  # it brings jax and Orbax, which nothing else here needs
    import grain

Row = dict[str, np.ndarray]

PR_SET_PDEATHSIG = 1  # linux/prctl.h
KILLED = re.compile(r"terminated unexpectedly with exit code (-?\d+)")  # Grain's message


class ReaderError(PassingError):
    """A reader process was killed."""


class Readers(Iterator[Row]):
    """Iterates over the batches of a Grain `MapDataset`, read by `workers` processes, in order.

    `close()` ends them, and so does the end of this process. Raises ReaderError where one of them was killed.
    """

    def __init__(self, dataset: Any, workers: int, prefetch: int, code: Code = ()):
        """prefetch: batches read ahead, at least one of each process. code: files of one's own whose classes are
        parts of the dataset.

        Raises:
            UserError: they would run this process's script again.
        """
        from absl import flags

        check_main_guard(f"data.workers={workers}", "set data.workers=0, which reads by threads")
        if not flags.FLAGS.is_parsed():  # Grain's workers read absl's flags, which aren't parsed yet
            flags.FLAGS.mark_as_parsed()
        semaphores.name_ours()
        self._mailbox, self._workers = Mailbox(), workers
        self._pids: set[int] = set()
        address = self._mailbox.address
        stream = dataset.map(Pack(address)).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
        self._batches = iter(
            stream.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=-(-prefetch // workers)),
                worker_init_fn=_Begin(address, code),
            )
        )
        # Called once: by `close`, when this is garbage-collected, or at the process's end, before Grain's own.
        self.close = util.Finalize(self, _close, (self._batches, self._mailbox), exitpriority=2)

    def __next__(self) -> Row:
        try:
            sent = next(self._batches)
            if len(self._pids) < self._workers:
                self._pids |= _pids()
            return unpacked(sent)
        except RuntimeError as error:
            if (found := KILLED.search(str(error))) is None:
                raise
            number = int(found[1])
            if number >= 0:
                raise ReaderError(
                    f"a process that reads data{self._dead()} ended with exit code {number} "
                    f"(data.workers={self._workers}): what it said stands above"
                ) from error
            by = signal.Signals(-number).name if -number in set(signal.Signals) else f"signal {-number}"
            raise ReaderError(
                f"a process that reads data{self._dead()} was ended by {by}, for want of memory maybe "
                f"(data.workers={self._workers}, data.cache). Start the same command again to go on"
            ) from error

    def _dead(self) -> str:
        return "".join(f" ({pid})" for pid in sorted(self._pids - _pids()))

    def __iter__(self) -> Self:
        return self


def _pids() -> set[int]:
    """The ids of the live processes that Grain has started."""
    return {child.pid for child in multiprocessing.active_children() if child.pid and child.name.startswith("grain-")}


def _close(batches: Any, mailbox: Mailbox) -> None:
    for pid in _pids():  # a stopped process (SIGSTOP) wouldn't receive the request to end, and would be waited for
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    batches.close()
    mailbox.close()


class _Begin:
    """Prepares a reader process, before it does anything else."""

    def __init__(self, address: Address, code: Code):
        self._address, self._code = address, code

    def __call__(self, index: int, count: int) -> None:
        del index, count
        # Ctrl-C reaches every process of a terminal: a worker leaves it to the training process, which ends it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        parent = multiprocessing.parent_process()
        assert parent is not None
        threading.Thread(target=_follow, args=(parent, self._address), daemon=True, name="follow").start()
        if sys.platform == "linux":
            # Only wakes one that is stopped (SIGSTOP), so that it can follow: Linux sends it when the *thread* ends
            # that started this process, and Grain's end while their processes still have a queue to be emptied.
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
        for file in self._code:
            own_code.load_own(file)  # unpickling finds its classes by name


def _follow(parent: Any, address: Address) -> None:
    """Ends this process when its parent has ended, which closes a pipe that only the parent holds; also if it had ended
    before.
    """
    parent.join()
    address.discard_dead(wait=True)
    os._exit(1)
