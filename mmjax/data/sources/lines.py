"""Files of JSON lines of any size, as a source: an example a line, read where it lies."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from mmjax.data.line_index import indexes_of
from mmjax.data.paths import File, is_remote
from mmjax.data.ranged_files import RangedFiles
from mmjax.data.sources.cells import label, stripped
from mmjax.data.sources.contract import MEDIA, MODALITIES, Records, Source, log
from mmjax.data.sources.fingerprints import Fingerprint, of_text
from mmjax.data.sources.json_values import json_caption, json_entry
from mmjax.data.sources.pattern_splits import check_pattern_splits, files_of_split, pattern_folders
from mmjax.data.sources.splits import WHOLE, SplitNotFoundError
from mmjax.errors import UserError, nearest
from mmjax.runtime.files import json_text

_LOOKED_AT = 100  # lines whose entries are the columns
_NAMED = 5  # bad lines that are named


@dataclass(frozen=True)
class Lines(Source):
    """JSON lines: `Lines("train.jsonl")`, or several files, `Lines("parts/{000..127}.jsonl")`, of any size.

    The entries of a line's object are columns. `image`, `audio` and `video` hold paths, relative to `root` (the file's
    folder, if None); `files` are further columns that hold paths (`("depth",)`). `text` holds a caption, several as a
    list. `fields` gives other names, with "/" into nested entries, `{"text": "meta/caption"}`; `id` too, else an id is
    the file's name and the line's number, "train/17", from 0. Empty lines don't count. All other entries are
    labels, or whatever a transform reads (`messages`).

    The files are the split `train`; `splits` has the patterns of others, `{"validation": "dev.jsonl"}`, or `shares`
    gives some of the lines to others, by a hash of the line's number: `{"validation": 0.01}`. The split "all" is every
    line. Memory and index have 16 bytes a line; `index` says where the index is kept: in the `cache`, or `beside` the
    file.
    """

    lines: str
    root: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    splits: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    index: Literal["cache", "beside"] = "cache"

    def __post_init__(self) -> None:
        check_pattern_splits("Lines", self.splits, self.shares, self.index)

    def open(self, split: str, data_dir: str | None = None) -> "LineRecords":
        """Opens a split, and indexes its files, where they aren't yet.

        Raises `SplitNotFoundError` where there is none; UserError where a file can't be read, or no line has an entry
        that `fields` names.
        """
        del data_dir  # it has a path of its own
        return LineRecords(self, split)

    def places(self) -> dict[str, str]:
        """The folders of the files, and of what they name."""
        found = pattern_folders("lines", self.lines, self.splits)
        return found | ({} if self.root is None else {"root": self.root})

    def renaming(self, modality: str) -> str:
        """Renames by `fields`."""
        return f"; if an entry of another name holds it, say Lines(..., fields={{{modality!r}: NAME}})"


class LineRecords(Records):
    """A split of JSON lines."""

    def __init__(self, source: Lines, split: str):
        self._arguments = (source, split)
        self._paths = files_of_split(f"Lines({source.lines!r})", split, source.lines, source.splits, source.shares)
        folders = pattern_folders("lines", source.lines, source.splits).values()
        self._folder = os.path.commonpath([os.path.abspath(folder) for folder in folders])
        self._root = None if source.root is None else os.path.expanduser(source.root)
        indexes = indexes_of(self._paths, source.index == "beside")
        self._starts = np.concatenate([each.starts for each in indexes])
        self._sizes = np.concatenate([each.sizes for each in indexes])
        self._ends = np.cumsum([len(each.starts) for each in indexes])
        self._rows = None if not source.shares or split == WHOLE else np.flatnonzero(self._shared(source.shares, split))
        if not len(self):
            raise SplitNotFoundError(f"Lines({source.lines!r}): none of its {len(self._starts)} lines is in {split!r}")
        self._read = RangedFiles(lambda file: (self._paths[file], indexes[file].state))
        self._complaints = 0
        self._columns = self._found(source)
        self.columns = tuple(dict.fromkeys(("id", *self._columns)))
        self.named = self.tells_apart = "id" in self._columns
        seen = (*MEDIA, *source.files)
        self.media: tuple[str, ...] = tuple(name for name in self._columns if name in seen)

    def __len__(self) -> int:
        return len(self._starts) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        line = index if self._rows is None else int(self._rows[index])
        file, number, content = self._line(line)
        parsed = self._parsed(file, number, content)
        record = {column: self._value(column, path, parsed, file) for column, path in self._columns.items()}
        if parsed is None and "text" in record:
            record["text"] = content  # no text: the chain says so, and counts it
        own = stripped(record.get("id"))
        name = os.path.relpath(os.path.abspath(self._paths[file]), self._folder)
        return record | {"id": f"{os.path.splitext(name)[0]}/{number}" if own is None else str(own)}

    def fingerprint(self, columns: Sequence[str] | None = None) -> Fingerprint:
        """The number of lines, and a digest of where they begin in which files."""
        del columns
        names = [os.path.relpath(os.path.abspath(path), self._folder) for path in self._paths]
        rows = b"" if self._rows is None else self._rows.tobytes()
        content = self._starts.tobytes() + self._sizes.tobytes() + self._ends.tobytes() + rows
        return {"rows": len(self), "lines": of_text(json.dumps(names) + of_text(content.hex()))}

    def __reduce__(self) -> tuple[Any, ...]:
        return LineRecords, self._arguments

    def _line(self, line: int) -> tuple[int, int, bytes]:
        """The file of a line, its number there, and its bytes."""
        file = int(np.searchsorted(self._ends, line, side="right"))
        number = line - (int(self._ends[file - 1]) if file else 0)
        return file, number, self._read.read(file, int(self._starts[line]), int(self._sizes[line]))

    def _parsed(self, file: int, number: int, content: bytes) -> Mapping[str, Any] | None:
        """The object of a line; None where it is none, which is logged."""
        try:
            parsed = json_text.parse(content)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, Mapping):
            return parsed
        self._complaints += 1
        if self._complaints <= _NAMED:
            log.warning(
                "%s: line %d of those that aren't empty is no JSON object: %.60r", self._paths[file], number, content
            )
        return None

    def _value(self, column: str, path: Sequence[str], parsed: Mapping[str, Any] | None, file: int) -> Any:
        value = json_entry(parsed, path)
        if column == "text":
            return json_caption(value)
        if column not in self.media:
            return label(value)
        folder = self._root if self._root is not None else os.path.dirname(self._paths[file])
        if isinstance(value, list) and not all(isinstance(one, str) for one in value):
            return np.asarray(value)
        found = [File(os.fspath(Path(folder) / os.path.expanduser(one))) for one in _paths_in(value)]
        return found if isinstance(value, list) and found else found[0] if found else None

    def _found(self, source: Lines) -> dict[str, tuple[str, ...]]:
        """Where each column is. Raises UserError where no line has it, or none a modality."""
        entries: dict[str, None] = {}
        looked = [parsed for line in range(min(_LOOKED_AT, len(self._starts)))
                  if (parsed := self._parsed(*self._line(line))) is not None]  # fmt: skip
        for parsed in looked:
            entries |= dict.fromkeys(parsed)
        if not looked:
            raise UserError(f'{self._paths[0]}: none of its first lines is a JSON object, such as {{"text": ...}}')
        wanted = {name: name for name in (*MODALITIES, *source.files, "id") if name in entries} | source.fields
        wanted |= {name: name for name in source.files if name not in wanted}
        places = {column: tuple(name.split("/")) for column, name in wanted.items()}
        for column, path in places.items():
            if path[0] not in entries:
                raise UserError(
                    f"Lines({source.lines!r}): no line has an entry {path[0]!r} for {column!r}, there are "
                    f"{', '.join(entries)}{nearest(path[0], entries)}"
                )
        for column in (name for name in (*MEDIA, *source.files) if name in places):
            for parsed in looked:
                _check_no_address(self._paths[0], column, json_entry(parsed, places[column]))
        used = {path[0] for path in places.values()}
        return places | {name: (name,) for name in entries if name not in used and name not in places}

    def _shared(self, shares: Mapping[str, float], split: str) -> Bool[np.ndarray, " n"]:
        """A mask of the lines of a split, by a hash of the numbers of file and line."""
        bounds = np.cumsum([0.0, *shares.values(), 1 - sum(shares.values())])
        place = [*shares, "train"].index(split)
        files = np.searchsorted(self._ends, np.arange(len(self._starts)), side="right").astype(np.uint64)
        numbers = np.arange(len(self._starts), dtype=np.uint64)
        numbers -= np.concatenate([[0], self._ends[:-1]]).astype(np.uint64)[files]
        drawn = _mixed(_mixed(files) ^ numbers) / 2.0**64
        return (bounds[place] <= drawn) & (drawn < bounds[place + 1])


def _mixed(x: np.ndarray) -> np.ndarray:
    """A hash of 64-bit numbers (the finaliser of SplitMix64: Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _paths_in(value: Any) -> list[str]:
    """The paths of an entry, one or several."""
    several = value if isinstance(value, list) else [value]
    return [kept for one in several if isinstance(kept := stripped(one), str)]


def _check_no_address(path: str, column: str, value: Any) -> None:
    if remote := [one for one in _paths_in(value) if is_remote(one)]:
        raise UserError(
            f"{path}: {column} {remote[0]:.80} is a URL, and nothing is downloaded here: fetch the files first "
            "(img2dataset does it for lists of pictures), and give their paths"
        )
