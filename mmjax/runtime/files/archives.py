"""Checks archives by their tables (names, shapes and sizes) before anything is unpacked.

A file of megabytes can unpack to gigabytes. Weights hardly shrink when they are packed, so an archive that would unpack
to many times its own size doesn't hold weights.
"""

import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.errors import UserError
from mmjax.runtime.files import regular

TIMES = 20  # times its own size is the most that an archive may unpack to; deflate can reach a thousand
SMALL = 2**26  # bytes that any archive may unpack to
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The exceptions that zipfile, zlib and numpy raise for a broken zip. RuntimeError: it is encrypted.
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, AttributeError),
    *(NotImplementedError, RuntimeError, OverflowError, MemoryError, SyntaxError, TypeError),
)


@dataclass(frozen=True)
class Head:
    """The shape of an array in a file, from the file's table alone."""

    shape: tuple[int, ...]


def bounded(path: Any, unpacked: int, size: int | None = None) -> None:
    """Raises UserError where a file (or `size` bytes) claims to unpack to more than weights can."""
    size = int(path.stat().st_size) if size is None else size
    if unpacked > max(SMALL, TIMES * size):
        raise UserError(
            f"{path} of {size / 1e6:,.1f} MB would unpack to {unpacked / 1e6:,.1f} MB, more than {TIMES} times its "
            "size: no weights do, and it isn't read"
        )


def check_zip(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Checks the sizes in a zip's table; `wanted` selects the members that will be read.

    Raises:
        UserError: it would unpack to too much, or is packed in ways that aren't read.
        BROKEN: it is no zip.
    """
    regular.check(path)
    with zipfile.ZipFile(path) as file:
        _check_table(path, file, wanted)


def _check_table(path: Path, file: zipfile.ZipFile, wanted: Callable[[str], bool]) -> list[zipfile.ZipInfo]:
    members = [member for member in file.infolist() if wanted(member.filename)]
    if odd := [member.filename for member in members if member.compress_type not in PLAIN]:
        raise UserError(f"{path}: {odd[0]!r:.100} is packed in a way that isn't read: numpy stores, or deflates")
    bounded(path, sum(member.file_size for member in members))
    return members


def npz_table(path: Path, ignored: Callable[[str], bool]) -> dict[str, Head]:
    """The arrays of a `.npz` by name, from its table and the heads of its members; `ignored` are left out.

    Raises:
        UserError: it is broken, holds objects, or would unpack to too much.
    """
    try:
        regular.check(path)
        with zipfile.ZipFile(path) as file:
            members = _check_table(path, file, lambda name: not ignored(name.removesuffix(".npy")))
            return {member.filename.removesuffix(".npy"): _head(path, file, member) for member in members}
    except UserError:
        raise
    except BROKEN as error:
        raise UserError(f"{path} can't be read as arrays: it is damaged, or no .npz ({_said(error)})") from error


def npz(path: Path, table: Mapping[str, Head]) -> dict[str, np.ndarray]:
    """The arrays of a table that `npz_table` gave.

    Raises:
        UserError: it is broken.
    """
    try:
        with np.load(path) as file:
            return {name: file[name] for name in table}
    except BROKEN as error:
        raise UserError(f"{path} can't be read as arrays: it is damaged, or no .npz ({_said(error)})") from error


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _head(path: Path, file: zipfile.ZipFile, member: zipfile.ZipInfo) -> Head:
    """Reads the shape of the array in a member; ValueError where it doesn't fill the member."""
    with file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"{member.filename!r:.100} is of version {version} of numpy's format")
        shape, _, dtype = read(stream)
        if dtype.hasobject:
            raise UserError(
                f"{path} holds pickled objects of Python, which aren't opened, since they can run code: save the "
                "arrays alone, numpy.savez(path, **arrays)"
            )
        there, said = member.file_size - stream.tell(), math.prod(shape) * dtype.itemsize
        if said != there or min(shape, default=0) < 0:
            raise ValueError(f"{member.filename!r:.100} says that it has {said:,} bytes, and has {there:,}")
    return Head(tuple(shape))


def safetensors_table(path: Path) -> dict[str, Head]:
    """The arrays of a `.safetensors` by name, from its header.

    Raises:
        UserError: it is broken.
    """
    from safetensors import SafetensorError, safe_open

    try:
        regular.check(path)
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)
    except UserError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    return {name: Head(shape) for name, shape in shapes.items()}


def gunzip(path: Path, most: int = SMALL) -> bytes:
    """The content of a `.gz`, of at most `most` bytes.

    Raises:
        UserError: it is broken, or holds more.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(regular.content(path))) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can't be unpacked: {error}") from error
    if len(content) > most:
        raise UserError(f"{path} would unpack to more than {most:,} bytes, and isn't read")
    return content
