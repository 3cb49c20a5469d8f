"""Sends batches from reader processes to the training process, in shared memory that is always removed.

A batch is one file in /dev/shm from the moment it is made until it is taken, and taken it is copied: Grain's own way
frees it with the arrays' last user, which may be jax until the process ends. The names begin with a sender's address,
and `/dev/shm/<address>.lock` is locked by the training process as long as it lives: files of a dead one are recognised
by that, also where a kill ended a whole process group, and are removed by its readers or by the next run.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path("/dev/shm")  # where Linux shows shared memory; elsewhere there is none, and batches go through a pipe
PREFIX = "mmjax-"
ALIGNED = 64  # bytes

Row = dict[str, np.ndarray]


class Parcel:
    """A batch in shared memory: its name there, and of each array the name, dtype, shape and offset in bytes."""

    def __init__(self, name: str, arrays: tuple[tuple[str, str, tuple[int, ...], int], ...]):
        self.name, self.arrays = name, arrays


class Address(NamedTuple):
    """The prefix that a sender gives to its parcels' names."""

    text: str

    @property
    def lock(self) -> Path:
        """The file that is locked as long as the receiver lives."""
        return FOLDER / f"{self.text}.lock"

    def discard(self) -> None:
        """Removes parcels that were sent and not taken."""
        for path in FOLDER.glob(f"{self.text}-*"):
            with contextlib.suppress(FileNotFoundError):
                try:
                    memory = SharedMemory(path.name)
                except ValueError:  # empty: its sender was killed before it set the size
                    path.unlink()
                else:
                    memory.close()
                    memory.unlink()  # unlinking the file would work too, but Python's resource tracker would miss it

    def discard_dead(self, wait: bool) -> None:
        """Calls `discard` once the receiver is dead; with `wait` False, does nothing if it lives."""
        with contextlib.suppress(OSError), _opened(self.lock) as descriptor:  # missing: another process has removed it
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.discard()
            self.lock.unlink(missing_ok=True)


class Mailbox:
    """Receives parcels: while it is open, those of its `address` are its own. Removes what dead receivers have left."""

    def __init__(self) -> None:
        self.address = Address(PREFIX + secrets.token_hex(8))
        self._lock: int | None = None
        for path in FOLDER.glob(f"{PREFIX}*.lock"):
            Address(path.stem).discard_dead(wait=False)
        with contextlib.suppress(OSError):  # no such folder: `Pack` sends no parcels then
            self._lock = os.open(self.address.lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Removes parcels that were not taken; no sender may be running any more."""
        if self._lock is not None:
            self.address.discard()
            self.address.lock.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


class Pack:
    """Puts a batch into a parcel; returns the batch itself where there is no shared memory, or no space in it."""

    def __init__(self, address: Address):
        self._address, self._sent = address, 0

    def __call__(self, batch: Row) -> Row | Parcel:
        arrays, end = [], 0
        for name, array in batch.items():
            arrays.append((name, array.dtype.str, array.shape, end))
            end += -(-array.nbytes // ALIGNED) * ALIGNED
        self._sent += 1
        memory = _memory(f"{self._address.text}-{os.getpid()}-{self._sent}", end)
        if memory is None:
            return batch
        parcel = Parcel(memory.name, tuple(arrays))
        for name, view in _views(parcel, memory):
            view[...] = batch[name]
            del view
        memory.close()
        return parcel


def unpacked(sent: Row | Parcel) -> Row:
    """Copies the batch into private memory and removes the parcel. Raises FileNotFoundError where it was
    taken already.
    """
    if not isinstance(sent, Parcel):
        return sent
    memory = SharedMemory(sent.name)
    try:
        return {name: view.copy() for name, view in _views(sent, memory)}
    finally:
        memory.close()
        memory.unlink()


def _views(parcel: Parcel, memory: SharedMemory) -> Iterator[tuple[str, np.ndarray]]:
    for name, dtype, shape, start in parcel.arrays:
        yield name, np.ndarray(shape, dtype, memory.buf, start)


def _memory(name: str, size: int) -> SharedMemory | None:
    """Shared memory of that name and size in bytes, fully allocated: writing beyond would kill the process (SIGBUS)."""
    if not FOLDER.is_dir():
        return None
    try:
        memory = SharedMemory(name, create=True, size=max(size, 1))
    except OSError:
        return None
    try:
        with _opened(FOLDER / name) as descriptor:
            os.posix_fallocate(descriptor, 0, max(size, 1))
    except OSError:
        memory.close()
        memory.unlink()
        return None
    return memory


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
