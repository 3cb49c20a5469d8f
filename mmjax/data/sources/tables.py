"""Tables: a `.csv`, `.tsv` or `.parquet` file into columns, without a cell lost or moved on the way."""

import codecs
import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.errors import UserError, nearest
from mmjax.runtime.files import json_text

SUFFIXES = (".csv", ".tsv", ".parquet")
# The byte order marks at a file's start, with their encodings; the longer ones first.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = (",", ";", "\t", "|")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_NAN = ("NaN", "nan")  # a text that stands for an empty cell, as NaN does in the other formats
_LONGEST = 2**31 - 1  # characters of a cell: csv's own bound, 131,072, is shorter than documents are


def is_table(name: str) -> bool:
    """True if a name of data is that of a table file."""
    return Path(name).suffix.lower() in SUFFIXES


class Table(NamedTuple):
    """A table: its columns, with the cells as stored, and the line of each row in the file, or its number from 1.

    class_names: the names of a column's class numbers, where the file has them.
    """

    path: Path
    columns: dict[str, list[Any]]
    places: Sequence[int]
    unit: str
    class_names: Mapping[str, tuple[str, ...]] = {}

    def at(self, row: int, column: str) -> str:
        """The name of a cell in errors: `captions.csv, line 7, column 'image'`."""
        return f"{self.path}, {self.unit} {self.places[row]}, column {column!r}"


def read_table(path: Path) -> Table:
    """Reads a table.

    CSV is UTF-8, or UTF-16 with its mark; the separator is the suffix's, or the one that the header has instead.
    Names have no spaces at their ends. A cell of "NaN" or "nan" is empty.

    Raises:
        UserError: there is no such file; pyarrow, which reads Parquet, isn't installed; or the content is invalid: the
            message has the line, and what to do.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, and a table is one file: name one of those in it")
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*") if p.suffix.lower() in SUFFIXES]
        raise UserError(
            f"there is no table {path}{nearest(path.name, beside) or '.'} Make one, a row an example, its columns "
            "image and audio (paths beside it) and text, or those of them that you have; or name yours (an "
            "experiment's: data.sources.NAME.table=PATH)"
        )
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path} is no table that can be read: it may end in .csv, .tsv or .parquet")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty: a table has a header, and a row an example")
    table = _read_parquet(path) if suffix == ".parquet" else _read_text(path)
    if not table.columns or not table.places:
        raise UserError(f"{path} has no rows")
    return table


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet tables need pyarrow, pip install 'mmjax[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = _header(path, file.schema_arrow.names)
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} can't be read as Parquet: {error}") from error
    columns = {name: column.to_pylist() for name, column in zip(names, table.columns, strict=True)}
    return Table(path, columns, range(1, table.num_rows + 1), "row", _class_names(table.schema.metadata or {}))


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """The class names that Hugging Face's `datasets` stores in Parquet metadata; without them the columns would be
    plain numbers.
    """
    try:
        features = json_text.parse(metadata[b"huggingface"])["info"]["features"]
        labels = {str(name).strip(): f["names"] for name, f in features.items() if f.get("_type") == "ClassLabel"}
        return {name: tuple(map(str, names)) for name, names in labels.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _read_text(path: Path) -> Table:
    """A table of separated cells, read strictly: an input that csv would guess at is an error here."""
    with path.open("rb") as file:
        begin = file.read(4)
    encoding = next((name for mark, name in _MARKS if begin.startswith(mark)), "utf-8")
    try:
        with path.open(encoding=encoding, newline="") as stream:
            return _rows(path, _checked(path, stream))
    except UnicodeDecodeError as error:
        raise UserError(_undecodable(path, encoding, error)) from error


def _checked(path: Path, stream: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if "\0" in line:
            raise UserError(
                f"{path}, line {number}: a NUL byte, which no text has. It is UTF-16 without its mark, or no table at "
                f"all: save it as UTF-8 (iconv -f UTF-16LE -t UTF-8)"
            )
        yield line


def _rows(path: Path, lines: Iterator[str]) -> Table:
    csv.field_size_limit(_LONGEST)
    first = next(lines, "")
    skipped = 0
    if told := re.fullmatch(r"sep=(.)\r?\n?", first):  # Excel writes this line, and reads it
        separator, first, skipped = told[1], next(lines, ""), 1
    else:
        separator = _separator(first, "\t" if path.suffix.lower() == ".tsv" else ",")
    reader = csv.reader(itertools.chain([first], lines), delimiter=separator, strict=True, skipinitialspace=True)
    names: list[str] = []
    columns: list[list[str]] = []
    places: list[int] = []
    began = skipped + 1
    try:
        for row in reader:
            if not row:  # an empty line
                pass
            elif not names:
                names = _header(path, row)
                columns = [[] for _ in names]
            else:
                if len(row) > len(names) and not any(cell.strip() for cell in row[len(names) :]):
                    row = row[: len(names)]  # superfluous separators at the line's end
                if len(row) != len(names):
                    raise UserError(_miscounted(path, began, row, names, separator))
                if any("\n" in cell or "\r" in cell for cell in row):
                    _check_swallowed(path, began, row, [column[-1:] for column in columns], separator)
                for column, cell in zip(columns, row, strict=True):
                    column.append("" if cell[:3] in _NAN and cell.strip() in _NAN else cell)
                places.append(began)
            began = skipped + reader.line_num + 1
    except csv.Error as error:
        ended = "unexpected end" in str(error)
        why = "a quote is opened that never closes" if ended else f"the quotes don't pair ({error})"
        raise UserError(
            f"{path}, the row of line {began}: {why}. A cell that begins with a quote ends with one, and quotes within "
            'it are doubled: "a 5"" disc"'
        ) from error
    kept = [i for i, name in enumerate(names) if name or any(cell.strip() for cell in columns[i])]
    return Table(path, {names[i] or f"column {i + 1}": columns[i] for i in kept}, places, "line")


def _separator(header: str, usual: str) -> str:
    bare = re.sub(r'"[^"]*"', "", header)
    others = [separator for separator in _SEPARATORS if separator in bare]
    return usual if usual in bare or not others else max(others, key=bare.count)


def _header(path: Path, names: Iterable[str]) -> list[str]:
    stripped = [str(name).strip() for name in names]
    twice = sorted({name for name in stripped if name and stripped.count(name) > 1})
    if twice:
        raise UserError(f"{path}: its header names the column {twice[0]!r} twice: rename one, or take it out")
    return stripped


def _miscounted(path: Path, line: int, row: Sequence[str], names: Sequence[str], separator: str) -> str:
    name = _NAMES.get(separator, repr(separator))
    more = (
        f"a {name} within a cell needs quotes round the cell"
        if len(row) > len(names)
        else f"a cell without content needs its {name} all the same, and one of several lines quotes round it"
    )
    counts = f"{len(row)} cell{'s' * (len(row) != 1)}, and the header {len(names)} name{'s' * (len(names) != 1)}"
    return f"{path}, line {line}: the row has {counts} ({', '.join(names)}): {more}"


def _check_swallowed(
    path: Path, line: int, row: Sequence[str], before: Sequence[Sequence[str]], separator: str
) -> None:
    """Raises UserError where a cell of several lines holds rows: as many cells, and a file where a file would stand.

    A quote that is opened by mistake may be closed by another one that is meant to open: csv sees a long cell there.
    """
    suffixes = [{_suffix(cell) for cell in (own, *others)} - {""} for own, others in zip(row, before, strict=True)]
    for cell in row:
        for number, inner in enumerate(cell.splitlines()[1:], line + 1):
            try:
                (parts,) = csv.reader([inner], delimiter=separator, skipinitialspace=True)
            except (csv.Error, ValueError):
                continue
            alike = any(_suffix(part) in known for part, known in zip(parts, suffixes, strict=False))
            if len(parts) == len(row) and alike:
                raise UserError(
                    f"{path}, line {line}: a cell begins with a quote and goes on into line {number}, which looks like "
                    f"a row of its own ({inner:.60}): close the quote, or double it where it is meant as a character"
                )


def _suffix(cell: str) -> str:
    """The ending of a file name, such as `.png`; empty where the cell is no name of a file."""
    found = re.search(r"\.[A-Za-z0-9]{2,5}\s*$", cell) if "\n" not in cell else None
    return found[0].strip().lower() if found else ""


def _undecodable(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    whole = path.read_bytes()
    try:
        whole.decode(encoding)
    except UnicodeDecodeError as again:  # this position counts from the file's start, not from a piece's
        error = again
    if encoding not in ("utf-8", "utf-8-sig"):
        return f"{path} can't be read as {encoding.upper()}, which its first bytes announce: {error.reason}"
    line = whole.count(b"\n", 0, error.start) + 1
    return (
        f"{path}, line {line}: byte 0x{whole[error.start]:02x} is no UTF-8, in which tables are read. If it is Latin-1 "
        f"or Windows-1252, convert it once: iconv -f CP1252 -t UTF-8 {path.name} > utf8{path.suffix}"
    )
