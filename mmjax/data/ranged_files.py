"""Reads pieces of many files by where they lie, by several threads; a file that has changed since it was indexed is an
error, not other bytes.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from mmjax.errors import UserError

_OPEN = 256  # files that are open at once


class FileState(NamedTuple):
    """The state of a file by which it is known again: its size in bytes, and its time in nanoseconds."""

    size: int
    modified: int


class RangedFiles:
    """Files that are read in pieces; those that were read last stay open.

    of: `of(number)` gives the path of a file, and its state when it was indexed.
    """

    def __init__(self, of: Callable[[int], tuple[str, FileState]]):
        self._of, self._lock = of, threading.Lock()
        self._files: OrderedDict[int, _OpenFile] = OrderedDict()

    def read(self, number: int, offset: int, size: int) -> bytes:
        """The bytes of a file from a place on. Raises UserError where it can't be read, or has changed."""
        with self._lock:
            opened = self._files.pop(number, None) or _OpenFile(*self._of(number))
            while len(self._files) >= _OPEN:
                self._files.popitem(last=False)  # it is closed when the last thread that reads it is done
            self._files[number] = opened
        return opened.read(offset, size)


class _OpenFile:
    """A file that is open for reading, until nobody holds it."""

    def __init__(self, path: str, indexed: FileState):
        self._path, self._file, self._indexed = path, -1, indexed
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from error

    def read(self, offset: int, size: int) -> bytes:
        if _state(os.fstat(self._file)) != self._indexed:
            raise UserError(file_changed(self._path))
        pieces, at = [], offset
        while at < offset + size:
            piece = os.pread(self._file, offset + size - at, at)
            if not piece:
                raise UserError(file_changed(self._path))
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def file_state(path: str) -> FileState:
    """The state of a file. Raises UserError where it isn't there."""
    try:
        return _state(os.stat(path))
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error


def file_changed(path: str) -> str:
    """The message that a file isn't what was indexed."""
    return (
        f"{path} has changed since it was indexed, and its examples may lie elsewhere: start again, and it is indexed "
        "anew"
    )


def _state(facts: os.stat_result) -> FileState:
    return FileState(facts.st_size, facts.st_mtime_ns)
