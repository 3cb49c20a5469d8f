"""The indexes of many tars: made once, kept in a cache or beside the tars, and held in memory as far as they fit."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from rich.console import Console
from rich.progress import track

from mmjax.data.index_files import index_cache, index_path, load_arrays, paths_digest, save_arrays
from mmjax.data.ranged_files import FileState, file_changed, file_state
from mmjax.data.tar_index import TarIndex, index_tar
from mmjax.errors import UserError

FORMAT = 1
ARRAYS = ("keys", "key_ends", "firsts", "codes", "offsets", "sizes")
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

    def state(self, tar: int) -> FileState:
        """The state in which a tar was indexed."""
        return FileState(int(self.sizes[tar]), int(self.modified[tar]))


class TarIndexes:
    """The indexes of some tars. It takes memory by tar, not by example.

    beside: whether they are kept beside the tars (`NAME.tar.index.npz`), or in the cache (`index_files`).
    """

    def __init__(self, tars: Sequence[str], beside: bool):
        """Indexes those that weren't yet, with a line of progress, and logs what is wrong with them.

        Raises UserError where a tar is missing or none, or an index can't be written.
        """
        self._tars, self._beside, self._lock = tars, beside, threading.Lock()
        self._indexes: OrderedDict[int, TarIndex] = OrderedDict()
        kept = index_cache() / "sets" / f"{paths_digest(tars)}.npz"
        self.facts = self._kept_facts(kept) or self._found_facts(kept)

    def __getitem__(self, tar: int) -> TarIndex:
        """The index of a tar. Raises UserError where the tar has changed since."""
        with self._lock:
            if (held := self._indexes.get(tar)) is not None:
                self._indexes.move_to_end(tar)
                return held
        held, _ = self._indexed(tar)
        if held.state != self.facts.state(tar):
            raise UserError(file_changed(self._tars[tar]))
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
            first = True
            for tar, (held, fresh) in enumerate(shown):
                if fresh and first and not console.is_terminal:
                    console.print(f"{told}, which is made once", soft_wrap=True)
                first = first and not fresh
                counts[tar], (sizes[tar], modified[tar]) = len(held), held.state
                suffixes |= dict.fromkeys(held.suffixes)
                for note in held.notes if fresh else ():
                    log.warning("%s: %s", self._tars[tar], note)
        facts = TarFacts(counts, sizes, modified, tuple(suffixes))
        arrays = {"counts": counts, "sizes": sizes, "modified": modified}
        save_arrays(kept, {"format": FORMAT, "suffixes": [*suffixes]}, arrays)
        return facts

    def _kept_facts(self, kept: Path) -> TarFacts | None:
        """What was found of these very tars before, where they are as they were."""
        if (found := load_arrays(kept, FORMAT, None)) is None:
            return None
        told, arrays = found
        if {*arrays} != {"counts", "sizes", "modified"}:
            return None
        facts = TarFacts(**arrays, suffixes=tuple(told["suffixes"]))
        checked = range(len(self._tars)) if len(self._tars) <= _CHECKED else ()
        return None if any(file_state(self._tars[tar]) != facts.state(tar) for tar in checked) else facts

    def _indexed(self, tar: int) -> tuple[TarIndex, bool]:
        """The index of a tar, and whether it was made just now."""
        path = self._tars[tar]
        kept = index_path(path, self._beside)
        if (held := load_index(kept, file_state(path))) is not None:
            return held, False
        save_index(held := index_tar(path), kept)
        return held, True


def save_index(index: TarIndex, path: Path) -> None:
    """Writes an index, whole or not at all. Raises UserError where it can't be written."""
    facts = {"format": FORMAT, "state": list(index.state)}
    facts |= {"suffixes": list(index.suffixes), "notes": list(index.notes)}
    save_arrays(path, facts, {name: getattr(index, name) for name in ARRAYS})


def load_index(path: Path, state: FileState) -> TarIndex | None:
    """The index of a tar of that state; None where there is none, or it is another's, or damaged."""
    if (found := load_arrays(path, FORMAT, state)) is None:
        return None
    facts, arrays = found
    try:
        held = {name: arrays[name] for name in ARRAYS}
        return TarIndex(state, tuple(facts["suffixes"]), **held, notes=tuple(facts["notes"]))
    except (KeyError, TypeError):
        return None
