"""Keys of a picture's or sound's content: equal in the rows of a table that hold the same one."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.paths import File
from mmjax.data.sources.contract import Records

NOTHING = ""  # the key of a row without content, whatever other rows of its id hold


@dataclass(frozen=True)
class Again:
    """A picture or sound that an earlier row has already: it isn't encoded again, and `value` identifies it."""

    value: Any


@dataclass(frozen=True)
class ReadFile(File):
    """A file that was read."""

    content: bytes = b""

    def read(self) -> bytes:
        """The bytes that were read."""
        return self.content

    def unread(self) -> bytes:
        """The bytes that were read: nothing is opened again."""
        return self.content


def read_once(value: Any) -> Any:
    """Returns a file with its bytes, so that it isn't read again; anything else, or a file that can't be read,
    unchanged.
    """
    if not isinstance(value, File) or isinstance(value, ReadFile):
        return value
    try:
        return ReadFile(value.path, value.read())
    except BadExample:
        return value


def content_key(value: Any) -> str | None:
    """128 bits, as 32 hex digits, that are the same for the same picture or sound as stored: the bytes of a file,
    wherever it lies, an array, several recordings in their order. None for a value that is missing or can't be read."""
    found = hashlib.blake2b(digest_size=16)
    return found.hexdigest() if _add(found, value) else None


def item_key(records: Records, value: Any, id: str | None = None) -> str | None:
    """Returns what tells an example's picture or sound from others; None where its id may tell, "" where none is there.

    The id decides where a table gives one and leaves the picture out. A missing picture in a table without ids, or a
    file that can't be read, matches no other row. records: the example's. id: the example's, if it distinguishes rows,
    too.
    """
    if records.distinct:
        return None
    if (key := content_key(value)) is None:
        return None if value is None and records.named else NOTHING
    return key if id is None else f"{key} {id}"


def _add(found: Any, value: Any) -> bool:
    """True if there was anything to add to the digest."""
    if isinstance(value, Again):
        return _add(found, value.value)
    if isinstance(value, File):
        try:
            value = value.read()
        except BadExample:
            return False
    if value is None:
        return False
    if isinstance(value, bytes | bytearray | memoryview):
        found.update(value)
    elif isinstance(value, np.ndarray) and value.dtype != np.dtype(object):
        found.update(f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        parts = [(str(name), item) for name, item in sorted(value.items(), key=lambda pair: str(pair[0]))]
        return _several(found, parts)
    elif isinstance(value, list | tuple | np.ndarray):
        return _several(found, [(str(i), item) for i, item in enumerate(value)])
    else:
        found.update(repr(value).encode())
    return True


def _several(found: Any, parts: list[tuple[str, Any]]) -> bool:
    for name, item in parts:
        inner = hashlib.blake2b(digest_size=16)
        _add(inner, item)
        found.update(f"[{name}".encode() + inner.digest())
    return bool(parts)
