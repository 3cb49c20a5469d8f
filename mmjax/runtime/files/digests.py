"""BLAKE2b digests of a folder's files (`digests.json`) and of a JSON object (within it), to detect later damage."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etils import epath

from mmjax.errors import UserError
from mmjax.runtime.files import json_text, regular

NAME = "digests.json"
THREADS = 8
PIECE = 2**24  # bytes that are read at a time
SEAL = "blake2b"  # the key of an object's own digest


def write(folder: epath.Path, leave_out: tuple[str, ...] = ()) -> None:
    """Writes `digests.json` into `folder`: size and BLAKE2b of every file in it, but those named in `leave_out`.

    Raises:
        OSError: a file can't be read, or the list not be written.
    """
    (folder / NAME).write_text(listed(folder, leave_out))


def listed(folder: epath.Path, leave_out: tuple[str, ...] = ()) -> str:
    """The text that `write` writes."""
    names = [name for name in files(folder) if name not in leave_out]
    with ThreadPoolExecutor(THREADS) as threads:
        found = dict(zip(names, threads.map(lambda name: _digest(folder / name), names), strict=True))
    return json.dumps({"blake2b": found, "of this list": _of_list(found)}, indent=1)


def problems(folder: epath.Path, within: str = "") -> list[str]:
    """Compares the files with their digests and returns a line for each difference; empty where there is none. Reads
    every file.

    within: only files whose names begin so. Files added later are ignored: they damage nothing that was written.
    """
    try:
        read = json_text.parse(json_text.text(folder / NAME))
        pairs = {str(name): (int(size), str(digest)) for name, (size, digest) in read["blake2b"].items()}
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in pairs):  # leads elsewhere
            raise ValueError
        if read["of this list"] != _of_list(pairs):
            return [f"{NAME} has other contents than were written"]
    except FileNotFoundError:
        return [f"{NAME}, which says what its files held, is missing"]
    except (ValueError, KeyError, TypeError, AttributeError):  # no JSON, or not this one; UnicodeDecodeError too
        return [f"{NAME} can't be read"]

    def problem(name: str) -> str | None:
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        try:
            size, digest = _digest(path)
        except OSError as error:
            return f"{name} can't be read: {error.strerror or error}"
        except UserError as error:
            return str(error)
        if size != pairs[name][0]:
            return f"{name} has {size:,} bytes instead of {pairs[name][0]:,}"
        return None if digest == pairs[name][1] else f"{name} has other contents than were written"

    with ThreadPoolExecutor(THREADS) as threads:
        chosen = [name for name in pairs if name.startswith(within)]
        return [line for line in threads.map(problem, chosen) if line is not None]


def of_content(content: bytes) -> str:
    """The digest of a content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its own digest as its last key."""
    return {**value, SEAL: _of_object(value)}


def unbroken(value: Mapping[str, Any]) -> bool:
    """True if a JSON object is as it was when it was sealed, or was never sealed."""
    try:
        return SEAL not in value or value[SEAL] == _of_object({key: v for key, v in value.items() if key != SEAL})
    except RecursionError:  # nested more deeply than anything that is sealed here
        return False


def _of_object(value: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _of_list(found: dict[str, tuple[int, str]]) -> str:
    """The digest of the list of digests: tells damage of the list itself from damage of the files."""
    return _of_object(found)


def files(folder: epath.Path) -> list[str]:
    """The files that get digests, by their paths within the folder, sorted; lists in subfolders are among them."""
    return [name for name in _within(folder) if name != NAME]


def _within(folder: epath.Path) -> list[str]:
    found = []
    for path in sorted(folder.iterdir()):
        found += [f"{path.name}/{name}" for name in _within(path)] if path.is_dir() else [path.name]
    return found


def _digest(path: epath.Path) -> tuple[int, str]:
    digest, size = hashlib.blake2b(digest_size=16), 0
    if "://" not in str(path):
        regular.check(path)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()
