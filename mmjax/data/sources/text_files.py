"""Plain text as a source: files of text, a folder of them, or JSON lines, one record a document."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.paths import is_remote
from mmjax.data.sources.contract import Records, Source
from mmjax.data.sources.fingerprints import Fingerprint
from mmjax.data.sources.splits import WHOLE, SplitNotFoundError, by_column, by_hash
from mmjax.errors import UserError
from mmjax.runtime.files import json_text

PLAIN, LINES = (".txt", ".text", ".md"), (".jsonl", ".ndjson")


class _Place(NamedTuple):
    """The bytes of a document: its file, and where it begins and ends."""

    file: str
    begin: int
    end: int


@dataclass(frozen=True)
class TextFiles(Source):
    r"""Documents in UTF-8: a file (`.txt`, `.md`: one document; `.jsonl`: one a line, an object with a text in its
    `column`), or all such files of a folder and those below it, in the order of their names. A record has `id` and
    `text`; documents of white space alone are left out.

    An id is the file's name within the folder, with the document's number: `a/b.txt#0`. Where the objects of a
    `.jsonl` have a `split`, that says which split a document is in; else a hash of the id does, by `shares`. The split
    "all" is every document. Opening it reads all files once; of each document 100 bytes or so stay in memory, and its
    text is read when it is asked for.

    Attributes:
        path: the file or the folder.
        column: of a `.jsonl`, the name of the text.
        between: what stands between documents of one plain file, such as "<|endoftext|>" or "\n\n\n"; None: nothing.
        shares: the splits, with the parts that they have of all documents.
    """

    path: str
    column: str = "text"
    between: str | None = None
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.9, "validation": 0.05, "test": 0.05})

    def open(self, split: str, data_dir: str | None = None) -> "TextRecords":
        """Opens a split.

        Raises `SplitNotFoundError` where it is empty; UserError where there is no such file, or a line of a `.jsonl` is
        no object with a text.
        """
        del data_dir  # it has a path of its own
        if self.between == "":
            raise UserError("TextFiles(between=''): name what stands between documents, or None")
        root = Path(os.path.expanduser(self.path))
        ids: list[str] = []
        splits: list[str | None] = []
        places: list[_Place] = []
        digest = hashlib.blake2b(digest_size=16)
        for file in self._files(root):
            content = file.read_bytes()
            digest.update(f"{len(content)} ".encode() + content)
            name = file.name if file == root else file.relative_to(root).as_posix()
            found = self._lines(file, content) if file.suffix.lower() in LINES else self._plain(content)
            for number, (begin, end, named) in enumerate(found):
                ids.append(f"{name}#{number}")
                splits.append(named)
                places.append(_Place(os.fspath(file), begin, end))
        rows = self._rows(ids, splits, split)
        settings = f"{self.column} {self.between}"
        known = {"text": f"{digest.hexdigest()} {hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()}"}
        return TextRecords([(ids[row], places[row]) for row in rows], self.column, known | {"split": split})

    def places(self) -> dict[str, str]:
        """The path."""
        return {"path": self.path}

    def _files(self, root: Path) -> list[Path]:
        if is_remote(self.path):
            raise UserError(f"TextFiles({self.path!r}): a URL, and nothing is downloaded here: fetch the files first")
        if root.is_file():
            if root.suffix.lower() not in (*PLAIN, *LINES):
                raise UserError(f"TextFiles({self.path!r}): a text's name ends in {', '.join((*PLAIN, *LINES))}")
            return [root]
        if not root.is_dir():
            raise UserError(f"TextFiles({self.path!r}): there is no such file or folder")
        found = sorted(file for file in root.rglob("*") if file.suffix.lower() in (*PLAIN, *LINES) and file.is_file())
        if not found:
            raise UserError(f"TextFiles({self.path!r}): the folder holds no {', '.join((*PLAIN, *LINES))}")
        return found

    def _plain(self, content: bytes) -> Iterator[tuple[int, int, None]]:
        """The begins and ends of the documents of a plain file."""
        between = self.between.encode() if self.between is not None else None
        begin = 3 if content.startswith(b"\xef\xbb\xbf") else 0  # the byte order mark
        for part in [content[begin:]] if between is None else content[begin:].split(between):
            if part.strip():
                yield begin, begin + len(part), None
            begin += len(part) + len(between or b"")

    def _lines(self, file: Path, content: bytes) -> Iterator[tuple[int, int, str | None]]:
        """The begins and ends of the lines of a `.jsonl` that hold a text, with their splits."""
        begin = 0
        for number, line in enumerate(content.split(b"\n"), 1):
            if line.strip():
                text, split = _row(line, self.column, f"{file}, line {number}")
                if text is not None and text.strip():
                    yield begin, begin + len(line), split
            begin += len(line) + 1

    def _rows(self, ids: Sequence[str], splits: Sequence[str | None], split: str) -> Sequence[int]:
        if not ids:
            raise SplitNotFoundError(f"TextFiles({self.path!r}) holds no document")
        if split == WHOLE:
            return range(len(ids))
        if any(named is not None for named in splits):
            return by_column(self.path, splits, split, {})
        return by_hash(self.path, ids, ([] for _ in ids), split, {}, self.shares)


class TextRecords(Records):
    """A split of `TextFiles`; its texts are read from the disk."""

    columns = ("id", "text")
    media = ()
    tells_apart = True

    def __init__(self, found: Sequence[tuple[str, _Place]], column: str, known: Fingerprint):
        self._ids = [id for id, _ in found]
        files = {place.file: number for number, place in enumerate({p.file: p for _, p in found}.values())}
        self._files = tuple(files)
        self._places = np.array([(files[p.file], p.begin, p.end) for _, p in found], np.int64).reshape(-1, 3)
        self._column, self._known = column, known

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        number, begin, end = self._places[index].tolist()
        with open(self._files[number], "rb") as file:
            file.seek(begin)
            content = file.read(end - begin)
        if Path(self._files[number]).suffix.lower() in LINES:
            return {"id": self._ids[index], "text": _row(content, self._column, self._ids[index])[0]}
        try:
            return {"id": self._ids[index], "text": content.decode("utf-8")}
        except UnicodeDecodeError:
            return {"id": self._ids[index], "text": content}  # the chain says that it is no text

    def fingerprint(self, columns: Sequence[str] | None = None) -> Fingerprint:
        """The number of documents, and a digest of all files."""
        del columns
        return {"rows": len(self), **self._known}


def _row(line: bytes, column: str, where: str) -> tuple[str | None, str | None]:
    """The text of a line of a `.jsonl`, and its split."""
    try:
        row = json_text.parse(line)
    except ValueError as error:
        raise UserError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict) or column not in row:
        known = f"it has {', '.join(map(str, row))}" if isinstance(row, dict) else f"it is {line[:40]!r}"
        raise UserError(f"{where} is no object with a {column!r}: {known}; TextFiles(column=...) names another")
    text, split = row[column], row.get("split")
    if not isinstance(text, str | None):
        raise UserError(f"{where}: {column!r} is no text but {text!r:.40}")
    return text, split if isinstance(split, str) else None
