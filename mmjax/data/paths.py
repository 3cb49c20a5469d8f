"""Files of one's own, by their paths, which a table may spell in another Unicode form than the disk."""

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mmjax.data.bad_example import BadExample

_T = TypeVar("_T")
_REMOTE = re.compile(r"\s*([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)


@dataclass(frozen=True)
class File:
    """A picture, sound or video in a file of its own, read on demand."""

    path: str

    def read(self) -> bytes:
        """The bytes. Raises `BadExample` where the file can't be read, or is a pipe or a device, which never end."""
        return self._opened(lambda path: path.read_bytes())

    def unread(self) -> bytes | str:
        """The path on the disk, for a decoder that reads parts of a file: it can be opened, and isn't read here. Raises
        as `read` does.
        """

        def checked(path: Path) -> str:
            with path.open("rb"):
                return os.fspath(path)

        return self._opened(checked)

    def _opened(self, reading: Callable[[Path], _T]) -> _T:
        path = Path(on_disk(self.path) or self.path)
        try:
            if path.exists() and not path.is_file() and not path.is_dir():
                raise BadExample(f"{self.path} is no file but a pipe, a socket or a device", "undecodable")
            return reading(path)
        except (OSError, ValueError) as error:  # a name with a NUL in it is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise BadExample(f"{self.path} can't be read: {reason}", "undecodable") from error


def on_disk(path: str) -> str | None:
    """The path under which a file exists on the disk; None where there is none.

    A name may be stored in another Unicode normal form: macOS writes "é" as two characters, and tables have one.
    """
    if os.path.exists(path):
        return path
    if path.isascii():
        return None
    for form in ("NFC", "NFD"):  # the whole path is normalised, so folders need not be listed
        if os.path.exists(other := unicodedata.normalize(form, path)):
            return other
    here = Path(path).anchor or "."
    for part in Path(path).relative_to(Path(path).anchor).parts:
        there = os.path.join(here, part)
        if not os.path.exists(there):
            try:
                names = os.listdir(here)
            except OSError:
                return None
            there = next((os.path.join(here, name) for name in names if same(name) == same(part)), None)
            if there is None:
                return None
        here = there
    return here


def some_exist(files: Sequence[File]) -> bool:
    """True if any of the files exists; other Unicode forms are tried for the first hundred only."""
    return any(os.path.exists(file.path) for file in files) or any(on_disk(file.path) for file in files[:100])


def same(name: str) -> str:
    """The name in the normal form (NFC) in which names are compared."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_remote(path: str) -> bool:
    """True for an address such as gs://bucket/file, False for a path."""
    return ":" in path and _REMOTE.match(path) is not None
