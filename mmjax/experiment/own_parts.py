"""Parts of one's own in an experiment's record: `own.py:Mine`, a class that a file of the user's defines.

The record has the digests of the files, and a workdir their texts (`code/own.py`). Reading a record runs none of them:
only a file that the user has named himself is run, and of it only the classes of fields that it defines are parts.
"""

import dataclasses
import keyword
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiddle as fdl
from etils import epath

from mmjax.errors import UserError, nearest
from mmjax.experiment import old_fields
from mmjax.experiment.diff import MISSING, Difference
from mmjax.experiment.graph import fields, paths, target
from mmjax.runtime import copies
from mmjax.runtime.files import output, own_code
from mmjax.runtime.files.names import plain
from mmjax.runtime.files.own_code import ENDING, Code, OwnFile

CODE = copies.CODE  # the entry of a record, and the folder of a workdir or an export


def defining(config: fdl.Config) -> Code:
    """The files that define parts of an experiment, in order.

    Raises:
        UserError: two of them have one name.
    """
    parts = [target(value) for value in (config, *(v for _, v in paths(config))) if isinstance(value, fdl.Config)]
    return own_code.joined(own for part in parts if (own := own_code.of_class(part)) is not None)


def files_of(config: fdl.Config) -> Code:
    """The files that define parts of an experiment, with the neighbours that those import, by name.

    Raises:
        UserError: two of them have one name.
    """
    return tuple(sorted(by_name(defining(config)).values(), key=lambda file: file.name))


def digests_of(files: Iterable[OwnFile]) -> dict[str, str]:
    """The digests of files, by name."""
    return {file.name: file.digest for file in files}


def part_name(function: Any) -> str | None:
    """The name in a record of a class of fields that a file of one's own defines; None for anything else."""
    own = own_code.of_class(function)
    if own is None:
        return None
    called = f"{own.name}:{function.__name__}"
    return called if dataclasses.is_dataclass(function) else None


def is_own(called: Any) -> bool:
    """True if a name in a record is that of a part of one's own."""
    return isinstance(called, str) and called.rpartition(":")[0].endswith(ENDING)


def recorded(record: Mapping[str, Any]) -> dict[str, str]:
    """The digests in a record, by the names of the files.

    Raises:
        UserError: they aren't digests by name, or a name leads out of the folder.
    """
    code = record.get(CODE, {})
    if not isinstance(code, dict) or not all(isinstance(digest, str) for digest in code.values()):
        raise UserError(f"this experiment.json isn't what mmjax wrote: its {CODE!r} must be digests by names of files")
    for name in code:
        if not plain(name, f"a key of {CODE!r}").endswith(ENDING):
            raise UserError(f"this experiment.json isn't what mmjax wrote: {name!r} in its {CODE!r} is no {ENDING}")
    return code


class Finder:
    """Finds classes by their names in a record. code: the files that the user named.

    stand_ins: a class that can't be loaded is replaced by an empty class of the same name and fields, to be compared,
    not built.
    """

    def __init__(self, record: Mapping[str, Any], code: Code, stand_ins: bool = False):
        self._recorded, self._stand_ins = recorded(record), stand_ins
        self._named = by_name(code)

    def check(self, experiment: Any, kept: Callable[[], Any]) -> None:
        """Checks that each file that the experiment needs was named. kept: gives the folder of the texts, or None.

        Raises:
            UserError: one wasn't; the message has the place of its text, and the option.
        """
        wanted: dict[str, list[str]] = {}
        for path, called in _calls(experiment):
            name = called.rpartition(":")[0]
            if name in self._recorded and name not in self._named:
                wanted.setdefault(name, []).append(f"{path or 'the experiment'} is {called}")
        if wanted and not self._stand_ins:
            parts = ", ".join(part for each in wanted.values() for part in each)
            raise UserError(
                f"{parts}: code of one's own, which runs only where you name its file{_how(wanted, kept())}"
            )

    def __call__(self, called: str, given: Sequence[str], path: str) -> type:
        """Returns the class. given: the fields that the record has of it. path: of the part, for messages."""
        name, _, symbol = called.rpartition(":")
        no = f"{path}: {called!r} isn't among the callables that an experiment.json may name: "
        if name not in self._recorded:
            raise UserError(f"{no}its {CODE!r} lists {', '.join(self._recorded) or 'no files'}")
        if not symbol.isidentifier() or keyword.iskeyword(symbol):
            raise UserError(f"{no}{symbol!r} is no name of a class")
        own = self._named.get(name)
        part = None if own is None else own_code.class_of(own, symbol)
        good = part is not None and dataclasses.is_dataclass(part) and _has_fields(part, called, given)
        if part is not None and (good or not self._stand_ins) and dataclasses.is_dataclass(part):
            return part
        if self._stand_ins:
            return _stand_in(symbol, given, path)
        assert own is not None  # `check` was called before
        known = [key for key, value in vars(own_code.load_own(own)).items() if own_code.of_class(value) == own]
        why = "is no class of fields there" if part is not None else "is no class that it defines itself"
        raise UserError(f"{no}{own.path} was named, and {symbol} {why}{nearest(symbol, known)}{self.since()}")

    def since(self) -> str:
        """The end of a message: the files that aren't those that the record was written with; empty where all are."""
        lines = changed(self._recorded, self._named.values())
        return f" ({'; '.join(lines)})" if lines else ""


def by_name(code: Iterable[OwnFile]) -> dict[str, OwnFile]:
    """The files, and the neighbours that they import, by name."""
    files = tuple(code)
    return {file.name: file for file in own_code.joined([*files, *(n for own in files for n in own.neighbours())])}


def changed(recorded: Mapping[str, str], named: Iterable[OwnFile]) -> list[str]:
    """A line for each of the files that isn't the one that a record was written with."""
    return [
        f"{file.path} has changed since: its digest is {file.digest}, and was {recorded[file.name]}"
        for file in named
        if recorded.get(file.name, file.digest) != file.digest
    ]


def code_differences(left: Mapping[str, str], right: Mapping[str, str]) -> list[Difference]:
    """The differences between the files of two experiments, by their digests."""
    names = sorted({*left, *right})
    found = [Difference(f"{CODE}.{name}", left.get(name, MISSING), right.get(name, MISSING)) for name in names]
    return [difference for difference in found if difference.left != difference.right]


def options(experiment: Any, folder: Any) -> list[str]:
    """The command-line options that name the texts that `folder` keeps of an experiment's own parts. experiment: as in
    JSON.
    """
    names = dict.fromkeys(called.rpartition(":")[0] for _, called in _calls(experiment))
    return [word for name in names for word in ("--code", str(folder / CODE / name))]


def kept_code(folder: Any) -> Any:
    """The folder of the texts that a workdir or an export keeps, or, where they are damaged, of their copies."""
    return folder / CODE if "://" in str(folder) else copies.whole(Path(folder), CODE)


def write_code(files: Iterable[OwnFile], folder: Path) -> None:
    """Writes the files' texts, and no others, into `folder`/code.

    Raises:
        OSError: it can't be written.
    """
    files = tuple(files)
    for path in (folder / CODE).glob(f"*{ENDING}"):
        if path.name not in {file.name for file in files}:
            path.unlink()
    for file in files:
        place = folder / CODE / file.name
        if not place.is_file() or place.read_bytes() != file.text:
            output.write(place, file.text)


def put_by(folder: Path) -> None:
    """Renames `folder`/code to `code.old`: a fork's own code replaces it."""
    if (folder / CODE).is_dir():
        shutil.rmtree(folder / f"{CODE}.old", ignore_errors=True)
        (folder / CODE).rename(folder / f"{CODE}.old")


def _calls(experiment: Any) -> Iterator[tuple[str, str]]:
    """Every part of one's own in an experiment as in JSON: dotted path and name, in the order of the file."""
    waiting: list[tuple[str, Any]] = [("", experiment)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            if is_own(value.get("@call")):
                yield path, value["@call"]
            inner = list(value.items())
        else:
            inner = list(enumerate(value)) if isinstance(value, list) else []
        dotted = [(path if key == "@tuple" else f"{path}.{key}" if path else str(key), item) for key, item in inner]
        waiting += reversed(dotted)


def _how(names: Iterable[str], kept: Any) -> str:
    """The end of a message: the places of the texts, and the options to add."""
    there, lacking = [], []
    for name in names:
        path = None if kept is None else epath.Path(kept) / name
        (there.append(str(path)) if path is not None and path.exists() else lacking.append(name))
    said = f". Its text is {' and '.join(there)}: look at it, and" if there else ""
    said += f". {' and '.join(lacking)} isn't kept here: get it, look at it, and" if lacking else ""
    each = [*there, *lacking]
    code = repr(each[0]) if len(each) == 1 else repr(each)
    return f"{said} add {' '.join(f'--code {path}' for path in each)} (in Python, code={code})"


def _has_fields(part: type, called: str, given: Sequence[str]) -> bool:
    """Whether a class has the fields that a record says of it, or those that they have become."""
    now, _ = old_fields.in_blocks(called, part, dict.fromkeys(given))
    return set(now) <= set(fields(part))


def _stand_in(symbol: str, given: Sequence[str], path: str) -> type:
    for name in given:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UserError(f"{path}: {name!r} is no name of a field")
    return dataclasses.make_dataclass(symbol, [(name, Any) for name in given])
