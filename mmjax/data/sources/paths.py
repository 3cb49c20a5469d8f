"""Files of one's own: a picture or sound by its path, which a table may write a little otherwise than the disk does."""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmjax.data.bad_example import BadExample

_REMOTE = re.compile(r"\s*([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)


@dataclass(frozen=True)
class File:
    """A picture or sound in a file of its own, read when it is asked for."""

    path: str

    def read(self) -> bytes:
        """The bytes. Raises `BadExample` where the file can't be read, or is a pipe or a device, which never end."""
        path = Path(on_disk(self.path) or self.path)
        try:
            if path.exists() and not path.is_file() and not path.is_dir():
                raise BadExample(f"{self.path} is no file but a pipe, a socket or a device", "undecodable")
            return path.read_bytes()
        except (OSError, ValueError) as error:  # a name with a NUL in it is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise BadExample(f"{self.path} can't be read: {reason}", "undecodable") from error


def on_disk(path: str) -> str | None:
    """The path under which a file is on the disk; None where there is none.

    A name may be there in another Unicode normal form: macOS writes "é" as two characters, and tables have one.
    """
    if os.path.exists(path):
        return path
    if path.isascii():
        return None
    for form in ("NFC", "NFD"):  # of the whole path: folders need not be listed for it
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
    """Whether any of them is on the disk; of those that aren't by their very name the first hundred are looked for."""
    return any(os.path.exists(file.path) for file in files) or any(on_disk(file.path) for file in files[:100])


def same(name: str) -> str:
    """The name in the one normal form that names are compared in."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_remote(path: str) -> bool:
    """Whether it is an address rather than a path."""
    return ":" in path and _REMOTE.match(path) is not None
