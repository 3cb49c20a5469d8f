"""Copies, in every checkpoint, of what a run keeps beside its checkpoints: what is damaged there comes back from here.

A checkpoint's digests (`checkpoint`) are those of its copies too. Damage is seen by the files' own digests
(`experiment.json`, `data.json`), or by comparing; lines of metrics are compared where they are read.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etils import epath

from mmjax.errors import UserError
from mmjax.runtime.checkpoints import DIRECTORY, saved_steps, set_aside
from mmjax.runtime.files import digests, json_text, output, regular

FOLDER = "beside"  # in a checkpoint
SEALED = ("experiment.json", "data.json")  # they hold their own digests
TOKENIZERS = "tokenizers"
LINES = ("metrics.jsonl", "evaluations.jsonl", "bad_examples*.jsonl")  # and no table that a user keeps there

log = logging.getLogger(__name__)


def write(workdir: Path, checkpoint: epath.Path) -> None:
    """Copies into a checkpoint that isn't saved to its end yet.

    Raises:
        OSError: a file can't be read, or the copy not be written.
    """
    for pattern in (*SEALED, f"{TOKENIZERS}/*", *LINES):
        for path in sorted(workdir.glob(pattern)):
            if path.is_file():
                copy = checkpoint / FOLDER / path.relative_to(workdir).as_posix()
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())


def of_step(workdir: Path, step: int) -> Path:
    """Where the copies of a checkpoint are; one of an older version has none."""
    return workdir / DIRECTORY / str(step) / FOLDER


def latest(workdir: Path) -> Path | None:
    """The copies in the latest checkpoint whose copies are whole, and were so when they were made; None where there are
    none."""
    if "://" in str(workdir):
        return None
    for step in reversed(saved_steps(workdir)):
        copies = of_step(workdir, step)
        if not copies.is_dir() or digests.problems(epath.Path(copies.parent), within=f"{FOLDER}/"):
            continue
        tokenizers = epath.Path(copies / TOKENIZERS)
        listed = (tokenizers / digests.NAME).exists()
        if all(_sealed(copies / name) for name in SEALED) and not (listed and digests.problems(tokenizers)):
            return copies
    return None


def mend(workdir: Path, say: Callable[[str], None]) -> None:
    """Brings back from the copies what is damaged or missing: records and tokenizers; `say` is told what.

    Raises:
        UserError: it can't be written.
    """
    copies = latest(workdir)
    if copies is None:
        return
    wanted = [copies / name for name in SEALED if not _sealed(workdir / name)]
    wanted += [path for path in sorted(copies.glob(f"{TOKENIZERS}/*")) if not _same(path, copies, workdir)]
    for path in wanted:
        name = path.relative_to(copies)
        if path.is_file():
            say(_back(workdir / name, path, workdir) + f", from the checkpoint of step {copies.parent.name}")


def _back(path: Path, copy: Path, workdir: Path) -> str:
    try:
        if not os.path.lexists(path):
            told = f"{path} was missing: it is back"
        else:
            aside = set_aside(epath.Path(path), epath.Path(workdir))
            told = f"{path} held something else than was written: that is {aside} now, and what was written is back"
            told += _meant(path.name)
        output.write(path, copy.read_bytes())
    except OSError as error:
        raise UserError(f"{path} is damaged, and can't be written ({error.strerror})") from error
    return told


def whole(workdir: Any, name: str) -> Any:
    """Where `experiment.json`, or the folder of tokenizers, of a workdir is whole: in its place, else among the copies,
    of which a warning says so; its place, too, where there are none, and in a bucket."""
    place = workdir / name
    if "://" in str(workdir) or (name in SEALED and _sealed(Path(place))):  # whoever may not read checkpoints reads it
        return place
    workdir = Path(workdir)
    copies = latest(workdir)
    if copies is None or not (copies / name).exists():
        return place
    if name not in SEALED and all(_same(path, copies, workdir) for path in copies.glob(f"{name}/*")):
        return place
    is_ = f"is damaged{_meant(name)}" if os.path.lexists(place) else "is missing"
    log.warning("%s %s: its copy is used, %s", place, is_, copies / name)
    return copies / name


def _meant(name: str) -> str:
    """What a message of damage says besides to whoever has changed the file by hand."""
    return f" (a change that is meant goes without the entry {digests.SEAL!r} at its end)" if name in SEALED else ""


def _sealed(path: Path) -> bool:
    try:
        value = json_text.read(path) if path.is_file() else None  # a pipe would be waited for
        return isinstance(value, dict) and digests.unbroken(value)
    except (OSError, ValueError):  # UserError among them
        return False


def _same(path: Path, copies: Path, workdir: Path) -> bool:
    there = workdir / path.relative_to(copies)
    if path.name == digests.NAME and not digests.problems(epath.Path(there.parent)):
        return True  # of more tokenizers than there were then: a fork's
    try:
        return there.is_file() and not there.is_symlink() and regular.content(path) == regular.content(there)
    except (OSError, UserError):  # a pipe, or too large a file, of a stranger's
        return False
