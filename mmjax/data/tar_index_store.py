"""The indexes of many tars: made once, kept in a cache or beside the tars, and held in memory as far as they fit."""

import hashlib
import json
import logging
import os
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from rich.console import Console
from rich.progress import track

from mmjax.data.tar_index import TarIndex, index_tar
from mmjax.errors import UserError
from mmjax.runtime.files import json_text, output

FORMAT = 1
_HELD, _THREADS = 64 * 2**20, 16  # bytes of indexes in memory; tars that are indexed at once
_CHECKED = 20_000  # tars that are looked at when they are opened; of more, each when it is first read

log = logging.getLogger(__name__)


class TarFacts(NamedTuple):
    """The number of examples of each of some tars, its size, and its time in nanoseconds, when it was indexed; and the
    suffixes of all."""

    counts: Int[np.ndarray, " t"]
    sizes: Int[np.ndarray, " t"]
    modified: Int[np.ndarray, " t"]
    suffixes: tuple[str, ...]


class TarIndexes:
    """The indexes of some tars. It takes memory by tar, not by example.

    beside: whether they are kept beside the tars (`NAME.tar.index.npz`), or in `$XDG_CACHE_HOME/mmjax/tars`.
    """

    def __init__(self, tars: Sequence[str], beside: bool):
        """Indexes those that weren't yet, with a line of progress, and logs what is wrong with them.

        Raises UserError where a tar is missing or none, or an index can't be written.
        """
        self._tars, self._beside, self._lock = tars, beside, threading.Lock()
        self._indexes: OrderedDict[int, TarIndex] = OrderedDict()
        kept = _cache() / "sets" / f"{_digest(tars)}.npz"
        self.facts = self._kept_facts(kept) or self._found_facts(kept)

    def __getitem__(self, tar: int) -> TarIndex:
        """The index of a tar. Raises UserError where the tar has changed since."""
        with self._lock:
            if (held := self._indexes.get(tar)) is not None:
                self._indexes.move_to_end(tar)
                return held
        held, _ = self._indexed(tar)
        if (held.size, held.modified) != (self.facts.sizes[tar], self.facts.modified[tar]):
            raise UserError(tar_changed(self._tars[tar]))
        with self._lock:
            self._indexes[tar] = held
            while len(self._indexes) > 1 and sum(each.nbytes for each in self._indexes.values()) > _HELD:
                self._indexes.popitem(last=False)
        return held

    def _found_facts(self, kept: Path) -> TarFacts:
        counts, sizes, modified = (np.zeros(len(self._tars), np.int64) for _ in range(3))
        suffixes: dict[str, None] = {}
        console = Console(stderr=True, highlight=False)
        with ThreadPoolExecutor(min(_THREADS, len(self._tars))) as pool:
            made = pool.map(self._indexed, range(len(self._tars)))
            told = f"Index of {len(self._tars):,} tars"
            shown = track(made, told, len(self._tars), console=console, transient=True, disable=not console.is_terminal)
            for tar, (held, fresh) in enumerate(shown):
                counts[tar], sizes[tar], modified[tar] = len(held), held.size, held.modified
                suffixes |= dict.fromkeys(held.suffixes)
                for note in held.notes if fresh else ():
                    log.warning("%s: %s", self._tars[tar], note)
        facts = TarFacts(counts, sizes, modified, tuple(suffixes))
        with output.replacing(_made(kept)) as part, part.open("wb") as file:
            np.savez(file, counts=counts, sizes=sizes, modified=modified, suffixes=np.array(facts.suffixes))
        return facts

    def _kept_facts(self, kept: Path) -> TarFacts | None:
        """What was found of these very tars before, where they are as they were."""
        try:
            with np.load(kept) as held:
                facts = TarFacts(*(held[name] for name in TarFacts._fields))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if len(self._tars) <= _CHECKED:
            for path, *wanted in zip(self._tars, facts.sizes, facts.modified, strict=True):
                if _stat(path) != tuple(wanted):
                    return None
        return facts._replace(suffixes=tuple(str(suffix) for suffix in facts.suffixes))

    def _indexed(self, tar: int) -> tuple[TarIndex, bool]:
        """The index of a tar, and whether it was made just now."""
        path = self._tars[tar]
        kept = Path(f"{path}.index.npz") if self._beside else _cache_file(path)
        if (held := load_index(kept, *_stat(path))) is not None:
            return held, False
        held = index_tar(path)
        try:
            save_index(held, _made(kept))
        except OSError as error:
            raise UserError(
                f"the index of {path} can't be written to {kept}: {error.strerror}; Tars(index='cache') keeps it under "
                "XDG_CACHE_HOME (~/.cache), and index='beside' beside the tar"
            ) from error
        return held, True


def save_index(index: TarIndex, path: Path) -> None:
    """Writes an index, whole or not at all."""
    told = {"format": FORMAT, "size": index.size, "modified": index.modified}
    told |= {"suffixes": list(index.suffixes), "notes": list(index.notes)}
    facts = np.frombuffer(json.dumps(told).encode(), np.uint8)
    arrays = {name: getattr(index, name) for name in ("keys", "key_ends", "firsts", "codes", "offsets", "sizes")}
    with output.replacing(path) as part, part.open("wb") as file:
        np.savez(file, facts=facts, **arrays)


def load_index(path: Path, size: int, modified: int) -> TarIndex | None:
    """Reads the index of a tar of that size and time; None where there is none, or it is another's, or damaged."""
    try:
        with np.load(path) as held:
            told = json_text.parse(held["facts"].tobytes())
            if (told["format"], told["size"], told["modified"]) != (FORMAT, size, modified):
                return None
            arrays = {name: held[name] for name in held.files if name != "facts"}
            return TarIndex(size, modified, tuple(told["suffixes"]), **arrays, notes=tuple(told["notes"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def tar_changed(path: str) -> str:
    """The message that a tar isn't what was indexed."""
    return (
        f"{path} has changed since it was indexed, and its examples may lie elsewhere: start again, and it is indexed "
        "anew"
    )


def _digest(tars: Sequence[str]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for tar in tars:
        found.update(os.path.abspath(tar).encode("utf-8", "surrogateescape") + b"\0")
    return found.hexdigest()


def _stat(path: str) -> tuple[int, int]:
    """The size of a tar, and its time in nanoseconds. Raises UserError where it isn't there."""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    return facts.st_size, facts.st_mtime_ns


def _cache_file(path: str) -> Path:
    digest = _digest([path])
    return _cache() / digest[:2] / f"{digest}.npz"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmjax" / "tars"


def _made(path: Path) -> Path:
    """The path, whose folder is there then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
