"""A folder of files with a table, as a source."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmjax.data.paths import File, is_remote, same, some_exist
from mmjax.data.sources.cells import caption_cells, labels, media, stripped, text_cells
from mmjax.data.sources.contract import MEDIA, MODALITIES, Records, Source, log, nested_sources
from mmjax.data.sources.fingerprints import Fingerprint, of_columns
from mmjax.data.sources.splits import WHOLE, by_column, by_hash
from mmjax.data.sources.tables import Table, read_table
from mmjax.errors import UserError, closest, nearest

FIELDS = (*MODALITIES, "id", "split")  # the roles of a table's columns, besides labels

OWN = "#"  # a suffix reserved for columns of results (`evaluation.CONTENT`)


@dataclass(frozen=True)
class Folder(Source):
    """One's own pictures, captions, sounds and videos: a table beside them, `.csv`, `.tsv` or `.parquet`.

    Columns `image`, `audio` and `video` hold paths relative to `root` (the table's folder, if None), or, in Parquet,
    the bytes themselves; `text` holds captions, several as a list. Any may be lacking, and a cell that is empty, or
    NaN, is missing. `fields` gives other names for them, `split` and `id` (`{"text": "caption"}`). `files` are further
    columns that hold paths or bytes as `image` does, of modalities of your own (`("depth",)`), or subtitles. All other
    columns are labels; a modality of your own may also be one of these, a list of numbers in Parquet say.

    A column `split` says which split a row is in (`splits` translates: `{"validation": "val"}`); without one, a hash of
    the row's id does, by `shares`. The id is the column `id`, or the picture's path, or the sound's, or the caption.
    Rows with the same picture or sound, by path or by bytes in the table, share the split, those that each share one
    with a third row too: they go by the first of their ids; the contents of files with other names aren't compared. The
    split "all" is every row of the table, unless a column puts rows into one of that name, or `splits` translates it.
    """

    table: str
    root: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.9, "validation": 0.05, "test": 0.05})
    files: tuple[str, ...] = ()

    def open(self, split: str, data_dir: str | None = None) -> "FolderRecords":
        """Opens a split.

        Raises `SplitNotFoundError` where the split is empty; UserError where the table, or every file that it names,
        is missing, where the table or one of its cells can't be read as it is meant, or where it has none of the
        columns.
        """
        del data_dir  # a table has a path of its own
        table = self._read()
        names = self._names(table)
        root = table.path.parent if self.root is None else Path(os.path.expanduser(self.root))
        columns: dict[str, list[Any]] = {m: media(table, names[m], root) for m in self._media() if m in names}
        for modality, cells in columns.items():
            _check_some_exist(self.table, modality, cells)
        if "text" in names:
            columns["text"] = caption_cells(table, names["text"])
        ids = _ids(table, names)
        rows = self._rows(table, names, ids, columns, split)
        others = {name: cells for name, cells in table.columns.items() if name not in names.values()}
        labelled = {name: labels(cells, name in table.class_names) for name, cells in others.items()}
        ordered = {modality: columns[modality] for modality in self._modalities() if modality in columns}
        whole = {**labelled, **ordered, "id": ids}
        there = {name: [cells[row] for row in rows] for name, cells in whole.items()}
        classes = {name: names for name, names in table.class_names.items() if name in others}
        seen = tuple(modality for modality in self._media() if modality in names)
        return FolderRecords(there, os.fspath(root), classes, named="id" in names, media=seen)

    def places(self) -> dict[str, str]:
        """The table, and the folder of its files."""
        return {"table": self.table} | ({} if self.root is None else {"root": self.root})

    def index_file(self) -> str:
        """The table."""
        return self.table

    def renaming(self, modality: str) -> str:
        """Renames by `fields`, or for a modality of one's own by `files`."""
        if modality not in MODALITIES:
            return f"; if a column of files holds it, say Folder({self.table!r}, files=({modality!r},))"
        return f"; if a column of another name holds it, say Folder({self.table!r}, fields={{{modality!r}: NAME}})"

    def modalities(self) -> list[str]:
        """Those of image, text, audio, video and `files` that the table has. Raises as `open` does."""
        names = self._names(self._read())
        return [modality for modality in self._modalities() if modality in names]

    def _media(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*MEDIA, *self.files)))

    def _modalities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*MODALITIES, *self.files)))

    def _read(self) -> Table:
        if is_remote(self.table):
            raise UserError(f"Folder({self.table!r}): a URL, and nothing is downloaded here: fetch the table first")
        return read_table(Path(os.path.expanduser(self.table)))

    def _names(self, table: Table) -> dict[str, str]:
        """The names of the columns of images, texts, sounds, ids and splits that the table has."""
        known, mine = table.columns, tuple(dict.fromkeys((*FIELDS, *self.files)))
        if taken := [name for name in ("id", "split", "text") if name in self.files]:
            raise UserError(f"Folder({self.table!r}, files=({taken[0]!r},)): that column holds no files, leave it out")
        for name in self.files:
            if name not in known and name not in self.fields:
                raise UserError(
                    f"Folder({self.table!r}, files=({name!r},)): the table has no such column, it has "
                    f"{', '.join(known)}{nearest(name, known)}"
                )
        for key, name in self.fields.items():
            if key not in mine:
                raise UserError(
                    f"Folder({self.table!r}, fields={{{key!r}: {name!r}}}): fields say what the columns "
                    f"{', '.join(FIELDS)} are called; there is no {key!r} among them{nearest(key, FIELDS)}"
                )
            if name not in known:
                raise UserError(
                    f"Folder({self.table!r}, fields={{{key!r}: {name!r}}}): the table has no such column, it has "
                    f"{', '.join(known)}{nearest(name, known)}"
                )
        names = {key: self.fields.get(key) or _column(key, known) for key in mine}
        found = {key: name for key, name in names.items() if name is not None}
        if not any(modality in found for modality in self._modalities()):
            near = dict.fromkeys(name for modality in MODALITIES for name in closest(modality, known, 1))
            raise UserError(
                f"{self.table} has none of the columns image, text, audio and video, it has {', '.join(known)}: rename "
                f"{' and '.join(near) or 'them'}, or say in an experiment which is which, Folder({self.table!r}, "
                "fields={'text': ...})"
            )
        own = [f"{modality}{OWN}" for modality in self._media()]
        if taken := [name for name in own if name in known and name not in found.values()]:
            raise UserError(f"{self.table}: the column {taken[0]!r} has a name that results are kept under: rename it")
        return found

    def _rows(
        self, table: Table, names: Mapping[str, str], ids: list[str], columns: Mapping[str, list[Any]], split: str
    ) -> list[int]:
        column = text_cells(table.columns[names["split"]]) if "split" in names else None
        own = split in self.splits or WHOLE in (value.casefold() for value in column or () if value)
        if split == WHOLE and not own:
            return list(range(len(ids)))
        if column is not None:
            rows = by_column(self.table, column, split, self.splits)
            if split == WHOLE and split not in self.splits and len(rows) < len(ids):
                log.warning("%s: its column of splits puts %d of %d rows into %r, and these alone are read",
                            self.table, len(rows), len(ids), split)  # fmt: skip
            return rows
        shared = _shared(ids, {m: columns[m] for m in self._media() if m in columns}, "id" in names)
        return by_hash(self.table, ids, shared, split, self.splits, self.shares)


class FolderRecords(Records):
    """A split of a `Folder`: its columns, in memory.

    root: the folder of its files. class_names: the names of a column's class numbers, in order.
    named: whether the ids are the table's own, which group rows. media: the columns of files; None: those of the usual
    names.
    """

    in_memory = True

    def __init__(
        self,
        table: dict[str, list[Any]],
        root: str = "",
        class_names: Mapping[str, tuple[str, ...]] | None = None,
        named: bool = True,
        media: tuple[str, ...] | None = None,
    ):
        self._table, self._root, self.class_names, self.named = table, root, dict(class_names or {}), named
        self.columns = tuple(table)
        self.media: tuple[str, ...] = tuple(name for name in MEDIA if name in table) if media is None else media

    def __len__(self) -> int:
        return len(self._table["id"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self._table.items()}

    def fingerprint(self, columns: Sequence[str] | None = None) -> Fingerprint:
        """The number of rows, and a digest of `id` and each of the columns; None: of those that usually train, `image`,
        `text`, `audio` and the files."""
        wanted = ("id", *((*MODALITIES, *self.media) if columns is None else columns))
        found = {name: cells for name, cells in self._table.items() if name in wanted}
        return {"rows": len(self), **of_columns(found, self._root)}


def _column(key: str, known: Iterable[str]) -> str | None:
    """The column of that name; else one that differs by capitals alone, where that can't be another's."""
    alike = [name for name in known if name.casefold() == key and key != "id"]  # "ID" may well be a label
    return key if key in known else alike[0] if len(alike) == 1 else None


def _ids(table: Table, names: Mapping[str, str]) -> list[str]:
    """The id of each row: that of its column, or its first text among path, path of the sound and caption, or its
    number."""
    order = sorted((key for key in names if key not in ("id", "split")), key=lambda key: key not in MEDIA)
    columns = [table.columns[names[key]] for key in order]
    own = text_cells(table.columns[names["id"]]) if "id" in names else [None] * len(table.places)
    return [
        own[row] or next(filter(None, (_path_or_text(c[row]) for c in columns)), str(row)) for row in range(len(own))
    ]


def _path_or_text(cell: Any) -> str | None:
    if isinstance(cell, Mapping) and not cell.get("bytes"):
        cell = cell.get("path")
    return stripped(cell) if isinstance(cell, str) else None


def _shared(ids: list[str], columns: Mapping[str, list[Any]], named: bool) -> Iterator[list[Any]]:
    """The values that rows may have in common: for each row its pictures and its sounds (`columns`), and its id, where
    it is `named` or the row has neither.
    """
    here = os.getcwd()
    for row, id in enumerate(ids):
        found: list[Any] = []
        for modality, cells in columns.items():
            for item in cells[row] if isinstance(cells[row], list) else [cells[row]]:
                if isinstance(item, File):
                    found.append(f"{modality} {os.path.normpath(os.path.join(here, same(item.path)))}")
                elif item is not None:
                    found.append((modality, hashlib.blake2b(item, digest_size=16).digest()))
        yield found if found and not named else [*found, f"id {id}"]


def _check_some_exist(table: str, modality: str, values: Iterable[Any]) -> None:
    files = [value for value in values if isinstance(value, File)]
    if files and not some_exist(files):
        raise UserError(
            f"{table}: of the {len(files)} files in the column {modality} there is not one, the first is "
            f"{files[0].path}: paths are relative to the table's folder, or to Folder(root=...)"
            + (", and have / where Windows has a backslash" if "\\" in files[0].path else "")
        )


def table_like(table: str, sources: Iterable[Any], media: Iterable[str] = ()) -> Folder:
    """A table of one's own, read as the tables among `sources` are, as far as it has their columns: which hold files,
    what columns of usual names are called there, and what its column of splits calls these.

    media: columns that hold files besides, where no table among `sources` says otherwise of its own.
    """
    folders = [source for each in sources for source in nested_sources(each) if isinstance(source, Folder)]
    if is_remote(table):
        return Folder(table)
    known = read_table(Path(os.path.expanduser(table))).columns
    fields: dict[str, str] = {}
    for key, name in (each for folder in folders for each in folder.fields.items()):
        if name in known and _column(key, known) is None:
            fields.setdefault(key, name)
    wanted = [name for folder in folders for name in folder.files] if folders else list(media)
    files = tuple(name for name in dict.fromkeys(wanted) if (name in known or name in fields) and name not in FIELDS)
    column = fields.get("split") or _column("split", known)
    values = {} if column is None else dict.fromkeys(text_cells(known[column]))
    splits = {k: value for folder in folders for k, value in folder.splits.items() if value in values}
    return Folder(table, fields=fields, splits=splits, files=files)
