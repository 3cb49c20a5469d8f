"""Files and folders that are written whole or not at all, with the modes that the umask gives to any new file; and
files of others, which are read if they are files.

What is half written has a name of its own beside its place, with the process's number, so that two don't meet;
a kill leaves the old content in its place, or the new one.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmjax.errors import UserError

ANY = 0o666  # of a file, before the umask: what `open` asks for
LARGEST = 2**28  # bytes of a text that is read at once; the largest tokenizers have a tenth of it
PIECE = 2**20  # bytes that are read at a time
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # also of Path("gs://bucket"), which has but one slash
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


def local(path: str | Path, what: str) -> Path:
    """A path to be written to, `what` it was given as. Raises UserError where it is an address: gs://bucket/run, say.

    `Path` would take that for a folder `gs:` beside the others.
    """
    if _ADDRESS.match(os.fspath(path)):
        raise UserError(
            f"{what} {path}: that is an address, and only folders and files of this machine can be written to: mount "
            "the bucket (with gcsfuse, say), and give the path there, such as /mnt/bucket/run"
        )
    return Path(path)


def check_writable(path: str | Path | None) -> None:
    """Raises UserError where a file can't be written at the path, before there is anything to write."""
    if path is None:
        return
    local(path, "the file")
    if not (folder := Path(path).absolute().parent).is_dir():
        raise UserError(f"{path} can't be written: there is no folder {folder}")
    if Path(path).is_dir():
        raise UserError(f"{path} can't be written: it is a folder, name a file in it")


def write(path: str | Path, content: str | bytes) -> None:
    """Puts a file, text in UTF-8, in the place of what is there; the folder above it is made.

    Raises:
        OSError: it can't be written.
    """
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives the name to write a file to; once that is done it takes the place of `path`.

    Raises:
        OSError: it can't be written.
    """
    path = local(path, "the file")
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # whoever wrote it may have made another file, for its owner alone
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """Gives an empty folder to write into; once that is done it takes the place of `folder` and all that is in it.

    Raises:
        OSError: it can't be written.
    """
    folder = local(folder, "the folder")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    part = _beside(folder)
    shutil.rmtree(part, ignore_errors=True)  # of a process of the same number that was killed
    part.mkdir()
    try:
        yield part
        mode = part.stat().st_mode
        for inner in part.rglob("*"):
            inner.chmod(mode if inner.is_dir() else mode & ANY)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def sweep(folder: Path) -> None:
    """Removes what processes that were killed have left half written in a folder to which nobody else writes."""
    for part in folder.glob(".*.tmp"):
        part.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.absolute().with_name(f".{path.name}.{os.getpid()}.tmp")
