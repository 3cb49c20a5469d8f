"""Locks a workdir, so that one run at a time uses it."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from mmjax.errors import UserError
from mmjax.runtime.files import json_text

FILE = ".lock"
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # raised by mounted buckets


class Lock:
    """Holds a workdir's lock until it is closed: no other process can take it meanwhile.

    It is a POSIX lock, which the system frees when its process dies, however it dies; on a network disk it holds
    between machines. The file `.lock` only names the holder, and stays.

    Raises UserError where another process has it, or the workdir can't be written to.
    """

    def __init__(self, workdir: Path, say: Callable[[str], None] = lambda text: None, holds: bool = True):
        """say: gets a message where the disk has no locks; the run goes on without. holds: False takes no lock (only
        one of several hosts does).
        """
        self._descriptor: int | None = None
        if not holds:
            return
        path = workdir / FILE
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{workdir} can't be written to ({error.strerror}): give another --workdir") from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # which one depends on the system
            os.close(descriptor)
            raise UserError(
                f"{workdir} is in use by {_holder(path)}: wait until it has ended, stop it, or give another --workdir"
            ) from error
        except OSError as error:
            os.close(descriptor)
            if error.errno not in UNSUPPORTED:
                raise
            say(f"{workdir} lies on a disk without locks: see to it that only one run uses it")
            return
        self._descriptor = descriptor
        holder = {"process": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%F %T} UTC"}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)

    def close(self) -> None:
        """Releases the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _holder(path: Path) -> str:
    try:
        found = json_text.read(path)
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
