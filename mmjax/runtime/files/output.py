"""Writes files and folders atomically, with the modes that the umask gives to any new file.

A half-written file has another name in the same folder, with the process's number, so that two processes don't collide;
a kill leaves the old content in its place, or the new one.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmjax.errors import UserError

ANY = 0o666  # the mode of a file before the umask, as `open` has it
_STREAMS = re.compile(r"/dev/(stdout|stderr|fd/\d+)|/proc/.+")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # also of Path("gs://bucket"), which has but one slash


def local(path: str | Path, what: str) -> Path:
    """Returns a path to be written to. Raises UserError where it is an address (gs://bucket/run); `what` names it in
    the message.

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
    """Writes a file (text in UTF-8) atomically in the place of what is there; makes the folder above it.

    Raises:
        OSError: it can't be written.
    """
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields the name to write a file to; on exit it replaces `path`. A pipe or a device, such as /dev/stdout, is not
    replaced: the content is written to it.

    Raises:
        OSError: it can't be written.
    """
    path = local(path, "the file")
    if _is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            yield (part := Path(folder) / "content")
            path.write_bytes(part.read_bytes())
        return
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # the writer may have made a new file, with a mode for its owner alone
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(folder: str | Path) -> Iterator[Path]:
    """Yields an empty folder to write into; on exit it replaces `folder` and all that is in it.

    Raises:
        OSError: it can't be written.
    """
    folder = local(folder, "the folder")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    part = _beside(folder)
    shutil.rmtree(part, ignore_errors=True)  # left by a killed process of the same number
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
    """Removes half-written files that killed processes left in a folder to which nobody else writes."""
    for part in folder.glob(".*.tmp"):
        part.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """True for a pipe or a device. /dev/stdout counts as one even if it is a file, since the shell holds that open."""
    return bool(_STREAMS.fullmatch(str(path.absolute()))) or path.is_fifo() or path.is_char_device()


def _beside(path: Path) -> Path:
    return path.absolute().with_name(f".{path.name}.{os.getpid()}.tmp")
