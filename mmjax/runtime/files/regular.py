"""Reads files from strangers: only regular ones, and of a bounded size."""

import os
import stat
from contextlib import suppress
from typing import Any

from mmjax.errors import UserError

LARGEST = 2**28  # bytes of a text that is read at once; the largest tokenizers have a tenth of it
PIECE = 2**20  # bytes that are read at a time
KINDS = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))


def check(path: Any) -> None:
    """Whether a path of the disk may be opened: a pipe would be waited for, and a device never ends.

    Raises:
        UserError: it is something else than a file.
        OSError: nothing is there.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for matches, name in KINDS if matches(mode)), "device")
        raise UserError(f"{path} is a {kind} and no file, and isn't read: put the file in its place, or take it away")


def check_inside(folder: str | os.PathLike[str]) -> None:
    """As `check`, of all that is in a folder and in those below it; links that lead nowhere are no matter.

    Raises:
        UserError: something in it is neither a file nor a folder.
    """
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                check(os.path.join(inside, name))


def content(path: Any, most: int = LARGEST) -> bytes:
    """What a file holds, one of this machine or of a bucket.

    Raises:
        UserError: it isn't a file, or holds more than so many bytes.
        OSError: it isn't there, or can't be read.
    """
    if "://" in str(path):
        return path.read_bytes()
    check(path)
    # Not to wait for a writer, where a pipe has taken its place since.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = bytearray()
        while size <= most and (piece := file.read(PIECE)):  # all at once would make room for the most there may be
            found += piece
            size = max(size, len(found))
    if size > most:
        raise UserError(f"{path} has {size:,} bytes, more than the {most:,} that are read")
    return bytes(found)
