"""The files of indexes: where they are kept, and arrays with facts that are written whole and known again."""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.ranged_files import FileState
from mmjax.errors import UserError
from mmjax.runtime.files import json_text, output


def index_path(path: str, beside: bool) -> Path:
    """The file of a data file's index: beside it, or in `$XDG_CACHE_HOME/mmjax/indexes`."""
    if beside:
        return Path(f"{path}.index.npz")
    digest = paths_digest([path])
    return index_cache() / digest[:2] / f"{digest}.npz"


def index_cache() -> Path:
    """The folder of indexes that aren't beside their files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmjax" / "indexes"


def paths_digest(paths: Iterable[str]) -> str:
    """A digest of paths in their order, as they are from the root on."""
    found = hashlib.blake2b(digest_size=16)
    for path in paths:
        found.update(os.path.abspath(path).encode("utf-8", "surrogateescape") + b"\0")
    return found.hexdigest()


def save_arrays(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes plain facts and arrays, whole or not at all. Raises UserError where they can't be written."""
    told = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with output.replacing(path) as part, part.open("wb") as file:
            np.savez(file, facts=told, **arrays)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise UserError(
            f"the index {path} can't be written: {error.strerror}; index='cache' keeps it under XDG_CACHE_HOME "
            "(~/.cache), and index='beside' beside the data"
        ) from error


def load_arrays(path: Path, format: int, state: FileState | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The facts and arrays of a file; None where there is none, it is damaged, or of another format or state."""
    try:
        with np.load(path) as held:
            facts = json_text.parse(held["facts"].tobytes())
            if facts["format"] != format or (state is not None and facts["state"] != list(state)):
                return None
            return facts, {name: held[name] for name in held.files if name != "facts"}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
