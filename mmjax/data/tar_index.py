"""Indexes of tars: where each example's files lie, so that they are read where they are, one example at a time.

Files that follow each other and share a key are an example, as webdataset has it: the key is the name up to the first
dot of its last part, the suffix what stands behind that, in small letters. Not indexed are links, sparse files, devices
and folders, names that begin with a dot or have none, and webdataset's own (`__name__`). No name is ever a path to be
opened.
"""

import os
import re
import tarfile
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt, UInt8

from mmjax.data.ranged_files import FileState
from mmjax.errors import UserError

BLOCK = 512  # bytes: a tar is made of blocks
_NAME = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]+)", re.DOTALL)  # a key and a suffix
_OWN = re.compile(r"(?:.*/)?__[^/]*__(?:$|[./])", re.DOTALL)


class Member(NamedTuple):
    """A file within a tar: its suffix, where its bytes begin, and how many there are."""

    suffix: str
    offset: int
    size: int


@dataclass(frozen=True)
class TarIndex:
    """The examples of a tar.

    state: the tar's, when it was indexed. suffixes: those that its files have.
    keys: of the examples, one behind the other in UTF-8, each ending at `key_ends`; the second example of a key has
    "#2" behind it. firsts: the place of each example's first file, and the number of files at the end. codes, offsets,
    sizes: of each file: the number of its suffix, and where its bytes are. notes: what was left out, in words.
    """

    state: FileState
    suffixes: tuple[str, ...]
    keys: UInt8[np.ndarray, " k"]
    key_ends: Int[np.ndarray, " n"]
    firsts: Int[np.ndarray, " n+1"]
    codes: UInt[np.ndarray, " m"]
    offsets: Int[np.ndarray, " m"]
    sizes: Int[np.ndarray, " m"]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.key_ends)

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        arrays = (self.keys, self.key_ends, self.firsts, self.codes, self.offsets, self.sizes)
        return sum(array.nbytes for array in arrays)

    def key(self, row: int) -> str:
        """The key of an example."""
        begin = self.key_ends[row - 1] if row else 0
        return self.keys[begin : self.key_ends[row]].tobytes().decode()

    def members(self, row: int) -> list[Member]:
        """The files of an example, in their order."""
        places = range(self.firsts[row], self.firsts[row + 1])
        return [Member(self.suffixes[self.codes[i]], int(self.offsets[i]), int(self.sizes[i])) for i in places]


def index_tar(path: str) -> TarIndex:
    """Reads a tar's headers.

    Raises UserError where it isn't there, or no tar, or compressed. One that is cut off, or broken in the middle, is
    indexed up to there, without its last example, of which files may lack; one that just ends, as some writers leave
    it and a cut can, with that. `notes` say so.
    """
    made, notes = _Examples(), list[str]()
    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            begin = file.read(BLOCK)
            if begin[:2] == b"\x1f\x8b" or begin[:3] == b"BZh" or begin[:4] in (b"\x28\xb5\x2f\xfd", b"\xfd7zX"):
                raise UserError(
                    f"{path} is compressed, and nothing within can be read by itself: unpack it (gunzip), for pictures "
                    "and sounds are compressed already"
                )
            file.seek(0)
            if broken := _read(file, made, facts.st_size) if facts.st_size else "it is empty":
                notes.append(broken)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    except tarfile.TarError as error:
        raise UserError(f"{path} is no tar: {error}") from error
    return made.index(FileState(facts.st_size, facts.st_mtime_ns), notes)


def _read(file: Any, made: "_Examples", size: int) -> str | None:
    """Adds a tar's files, without the last example where it is broken, and says so."""
    with tarfile.open(fileobj=file, mode="r:", errors="backslashreplace", encoding="utf-8") as tar:
        try:
            while (member := tar.next()) is not None:
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]  (it keeps all that it has seen)
                if member.offset_data + member.size > size:
                    made.drop_last()
                    return f"it ends in the middle of a file, at byte {size:,}: its last example is left out"
                made.add(member)
        except tarfile.ReadError as error:
            made.drop_last()
            return f"it is broken behind byte {tar.offset:,} ({error}): its last example is left out, and what follows"
        file.seek(tar.offset)
        rest = file.read(BLOCK)
        if not rest:  # some writers leave the blocks at the end out
            return "it has no end, perhaps it was cut off there: its last example may lack files"
        if len(rest) == BLOCK and not rest.strip(b"\0"):
            return None
        made.drop_last()
        if len(rest) < BLOCK:
            return f"it ends in the middle of a header, at byte {size:,}: its last example is left out"
        return f"it is broken at byte {tar.offset:,}: its last example is left out, and what follows"


@dataclass
class _Examples:
    """Examples as they are found."""

    codes: dict[str, int] = field(default_factory=dict)
    members: list[tuple[int, int, int]] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    _key: str | None = None
    _suffixes: set[str] = field(default_factory=set)

    def add(self, member: tarfile.TarInfo) -> None:
        """Adds a file to its example; counts what is left out."""
        kind = "links" if member.islnk() or member.issym() else "sparse files" if member.issparse() else None
        if kind is None and not member.isreg():
            kind = None if member.isdir() else "devices and pipes"
            if kind is None:
                return
        if kind is not None:
            self.left_out[kind] = self.left_out.get(kind, 0) + 1
            return
        found = None if _OWN.match(member.name) else _NAME.fullmatch(member.name)
        if found is None:
            self.left_out["names without key or suffix"] = self.left_out.get("names without key or suffix", 0) + 1
            return
        key, suffix = found[1], found[2].lower()
        if key != self._key or suffix in self._suffixes:
            self._key, self._suffixes = key, set()
            self.seen[key] = self.seen.get(key, 0) + 1
            self.firsts.append(len(self.members))
            self.keys.append(key if self.seen[key] == 1 else f"{key}#{self.seen[key]}")
        self._suffixes.add(suffix)
        code = self.codes.setdefault(suffix, len(self.codes))
        self.members.append((code, member.offset_data, member.size))

    def drop_last(self) -> None:
        """Leaves out the last example."""
        if self.firsts:
            del self.members[self.firsts.pop() :], self.keys[-1]

    def index(self, state: FileState, notes: list[str]) -> TarIndex:
        """What was found."""
        encoded = [key.encode("utf-8", "backslashreplace") for key in self.keys]
        table = np.array(self.members, np.int64).reshape(-1, 3)
        told = [f"{count:,} {kind} are left out" for kind, count in self.left_out.items()]
        twice = sum(count - 1 for count in self.seen.values())
        told += [f"{twice:,} examples have the key of one before"] if twice else []
        return TarIndex(
            state=state,
            suffixes=tuple(self.codes),
            keys=np.frombuffer(b"".join(encoded), np.uint8),
            key_ends=np.cumsum([len(key) for key in encoded], dtype=np.int64),
            firsts=np.array([*self.firsts, len(self.members)], np.int64),
            codes=table[:, 0].astype(np.uint16 if len(self.codes) < 2**16 else np.uint32),
            offsets=table[:, 1],
            sizes=table[:, 2],
            notes=(*notes, *told),
        )
