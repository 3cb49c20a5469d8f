"""Reads untrusted files: only regular ones, and of a bounded size."""

import os
import stat
from contextlib import suppress
from typing import Any

from mmjax.errors import UserError

LARGEST = 2**28  # bytes of a text that is read at once; the largest tokenizers have a tenth of it
PIECE = 2**20  # bytes that are read at a time
KINDS = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))


def check(path: Any) -> None:
    """Raises unless a path is a regular file: reading a pipe would wait, and a device never ends.

    Raises:
        UserError: it is something else than a file.
        OSError: nothing is there.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for matches, name in KINDS if matches(mode)), "device")
        raise UserError(f"{path} is a {kind} and no file, and isn't read: put the file in its place, or take it away")


def check_inside(folder: str | os.PathLike[str]) -> None:
    """Checks all files in a folder and in those below it as `check` does; links that lead nowhere are ignored.

    Raises:
        UserError: an entry is neither a file nor a folder.
    """
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                check(os.path.join(inside, name))


def content(path: Any, most: int = LARGEST) -> bytes:
    """The content of a file on this machine or in a bucket, of at most `most` bytes.

    Raises:
        UserError: it isn't a file, or holds more than so many bytes.
        OSError: it isn't there, or can't be read.
    """
    if "://" in str(path):
        return path.read_bytes()
    check(path)
    # Don't wait for a writer, if a pipe has replaced the file since the check.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = bytearray()
        while size <= most and (piece := file.read(PIECE)):  # a single read would allocate `most` bytes
            found += piece
            size = max(size, len(found))
    if size > most:
        raise UserError(f"{path} has {size:,} bytes, more than the {most:,} that are read")
    return bytes(found)
