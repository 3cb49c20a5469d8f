"""Copies the files beside a run's checkpoints into every checkpoint, and restores damaged ones from there.

A checkpoint's digests (`checkpoints`) are those of its copies too. Damage is detected by the files' own digests
(`experiment.json`, `data.json`), or by comparing; lines of metrics are compared when they are read.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from mmjax.errors import UserError
from mmjax.runtime.checkpoints import DIRECTORY, saved_steps, set_aside
from mmjax.runtime.files import digests, json_text, output, regular
from mmjax.runtime.files.names import plain

FOLDER = "beside"  # in a checkpoint
RECORD = "experiment.json"
SEALED = (RECORD, "data.json")  # they hold their own digests
TOKENIZERS = "tokenizers"
CODE = "code"  # texts of files of one's own; `experiment.json` has their digests under this name
LINES = ("metrics.jsonl", "evaluations.jsonl", "bad_examples*.jsonl")  # and no table that a user keeps there

log = logging.getLogger(__name__)


def write(workdir: Path, checkpoint: epath.Path) -> None:
    """Copies into a checkpoint that isn't saved to its end yet.

    Raises:
        OSError: a file can't be read, or the copy not be written.
    """
    for pattern in (*SEALED, f"{TOKENIZERS}/*", f"{CODE}/*", *LINES):
        for path in sorted(workdir.glob(pattern)):
            if path.is_file():
                copy = checkpoint / FOLDER / path.relative_to(workdir).as_posix()
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())


def of_step(workdir: Path, step: int) -> Path:
    """The folder with the copies in a step's checkpoint; a checkpoint of an older version has none."""
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
    """Restores from the copies what is damaged or missing: records, tokenizers and code; `say` gets a line for each.

    Raises:
        UserError: it can't be written.
    """
    copies = latest(workdir)
    wanted = [] if copies is None else [copies / name for name in SEALED if not _sealed(workdir / name)]
    if copies is not None:
        wanted += [path for path in sorted(copies.glob(f"{TOKENIZERS}/*")) if not _same(path, copies, workdir)]
    for path in wanted:
        if path.is_file():
            _bring(path, workdir, say)
    code = _code(workdir)
    for name in code:
        if not _is(workdir / CODE / name, code) and (folder := _folder_of([name], code, workdir)) is not None:
            _bring(folder / name, workdir, say)


def _bring(copy: Path, workdir: Path, say: Callable[[str], None]) -> None:
    step, _, *names = copy.relative_to(workdir / DIRECTORY).parts
    say(_back(workdir.joinpath(*names), copy, workdir) + f", from the checkpoint of step {step}")


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
    """The path of a whole `experiment.json`, or folder of tokenizers or of code, of a workdir: its own place, else its
    copy in a checkpoint, with a warning. Where there are no copies, and in a bucket, it is its own place.
    """
    place = workdir / name
    if "://" in str(workdir) or (name in SEALED and _sealed(Path(place))):  # whoever may not read checkpoints reads it
        return place
    workdir = Path(workdir)
    if name == CODE:
        code = _code(whole(workdir, RECORD).parent)
        there = all(_is(place / file, code) for file in code)
        return place if there else _folder_of(code, code, workdir) or place
    copies = latest(workdir)
    if copies is None or not (copies / name).exists():
        return place
    if name not in SEALED and all(_same(path, copies, workdir) for path in copies.glob(f"{name}/*")):
        return place
    is_ = f"is damaged{_meant(name)}" if os.path.lexists(place) else "is missing"
    log.warning("%s %s: its copy is used, %s", place, is_, copies / name)
    return copies / name


def _meant(name: str) -> str:
    """An addition to a message of damage, for users who have changed the file by hand."""
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
        return True  # tokenizers were added since, as a fork does
    try:
        return there.is_file() and not there.is_symlink() and regular.content(path) == regular.content(there)
    except (OSError, UserError):  # a pipe, or too large a file, in a workdir from elsewhere
        return False


def _code(folder: Path) -> dict[str, str]:
    """The digests of the code files, by name, in a folder's record; names that lead out of the folder are left out."""
    try:
        return {plain(name, CODE): str(digest) for name, digest in json_text.read(folder / RECORD)[CODE].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # UserError too: no record, or no code
        return {}


def _folder_of(names: Iterable[str], code: Mapping[str, str], workdir: Path) -> Path | None:
    """The copies of code, the latest, in which files of these names hold what the record says."""
    folders = [of_step(workdir, step) / CODE for step in reversed(saved_steps(workdir))]
    return next((folder for folder in folders if all(_is(folder / name, code) for name in names)), None)


def _is(path: Path, code: Mapping[str, str]) -> bool:
    """True if a file holds the text whose digest the record has."""
    try:
        return not path.is_symlink() and digests.of_content(regular.content(path)) == code.get(path.name)
    except (OSError, UserError):
        return False
