"""Reads files within tars by where they lie, from many tars and by several threads."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from mmjax.data.tar_index import Member
from mmjax.data.tar_index_store import tar_changed
from mmjax.errors import UserError

_OPEN = 256  # tars that are open at once
_APART = 2**16  # bytes between two files of an example that are read for nothing, rather than read twice


class TarReader:
    """Reads files of some tars.

    of: `of(tar)` gives a tar's path, and its size and time in nanoseconds when it was indexed.
    """

    def __init__(self, of: Callable[[int], tuple[str, int, int]]):
        self._of, self._lock = of, threading.Lock()
        self._files: OrderedDict[int, _OpenTar] = OrderedDict()

    def __call__(self, tar: int, members: Sequence[Member]) -> dict[str, bytes]:
        """The contents of files of an example, by suffix: in one piece where little lies between them.

        Raises UserError where the tar can't be read, or has changed.
        """
        if not members:
            return {}
        opened = self._opened(tar)
        begin, end = members[0].offset, members[-1].offset + members[-1].size
        if end - begin > sum(member.size for member in members) + _APART * len(members):
            return {each.suffix: opened.read(each.offset, each.size) for each in members}
        whole = opened.read(begin, end - begin)
        return {each.suffix: whole[each.offset - begin : each.offset - begin + each.size] for each in members}

    def _opened(self, tar: int) -> "_OpenTar":
        with self._lock:
            opened = self._files.pop(tar, None) or _OpenTar(*self._of(tar))
            while len(self._files) >= _OPEN:
                self._files.popitem(last=False)  # it is closed when the last thread that reads it is done
            self._files[tar] = opened
        return opened


class _OpenTar:
    """A tar that is open for reading, until nobody holds it."""

    def __init__(self, path: str, size: int, modified: int):
        self._path, self._file, self._indexed = path, -1, (size, modified)
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from error

    def read(self, offset: int, size: int) -> bytes:
        """Returns the bytes from a place on. Raises UserError where the tar isn't what was indexed."""
        facts = os.fstat(self._file)
        if (facts.st_size, facts.st_mtime_ns) != self._indexed:
            raise UserError(tar_changed(self._path))
        pieces, at = [], offset
        while at < offset + size:
            piece = os.pread(self._file, offset + size - at, at)
            if not piece:
                raise UserError(tar_changed(self._path))
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)
