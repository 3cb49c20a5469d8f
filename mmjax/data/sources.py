"""Where examples come from: a TFDS dataset, or a table of one's own pictures, captions and sounds.

A source is a frozen dataclass of plain fields. `source.open(split)` gives `Records`: index-addressed records, each a
dict with `id` (str), of `image`, `text` and `audio` what there is, as stored (bytes or `File`, str, list or dict of
str), and every other column, for evaluation.
"""

import csv
import difflib
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile

from mmjax.data.datasets.freed import rates
from mmjax.data.datasets.prepare import is_ours, prepare
from mmjax.data.transforms import BadExample

MODALITIES = ("image", "text", "audio")
WHOLE = "all"  # the name of a split that every table has: all of its rows


class SplitNotFoundError(ValueError):
    """A source has no such split."""


class Records(Protocol):
    """An opened split of a source. It can be sent to another process, which opens the files anew."""

    columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class Source(Protocol):
    """A description of data that can be opened."""

    def open(self, split: str, data_dir: str | None = None) -> Records:
        """Opens a split. Raises `SplitNotFoundError` where there is none, ValueError where the fields are wrong."""
        ...


@dataclass(frozen=True)
class File:
    """A picture or sound in a file of its own, read when it is asked for."""

    path: str

    def read(self) -> bytes:
        """The bytes. Raises `BadExample` where the file can't be read."""
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise BadExample(f"{self.path} can't be read: {error.strerror}", "undecodable") from error


@dataclass(frozen=True)
class Tfds:
    """A TensorFlow Datasets dataset, prepared in a random-access format. TensorFlow is not needed.

    `name` is TFDS's ("spoken_emoji/multilingual:1.0.0"; configuration and version may be left out). A dataset that
    isn't built yet is built, if it can be. `fields` says which feature is which modality or column, with "/" into
    nested ones (`{"audio": "speech/audio"}`), where they aren't named image, text and audio (or speech).
    `splits` translates a split's name (`{"validation": "train[95%:]"}`).
    """

    name: str
    fields: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    data_dir: str | None = None

    def open(self, split: str, data_dir: str | None = None) -> "TfdsRecords":
        """Opens a split, building the dataset first if need be.

        Raises `SplitNotFoundError`; ValueError where a field isn't in the dataset, or its files allow no random access.
        """
        return TfdsRecords(self, split, self.data_dir or data_dir)


class TfdsRecords:
    """A split of a TFDS dataset."""

    def __init__(self, source: Tfds, split: str, data_dir: str | None):
        import tensorflow_datasets as tfds  # half a second, which a Folder needn't wait

        self._arguments = (source, split, data_dir)
        self._split = split
        builder = _builder(source.name, data_dir)
        name = source.splits.get(split, split)
        if name.partition("[")[0] not in builder.info.splits:
            raise SplitNotFoundError(
                f"{source.name!r} has no split {name!r}, it has {', '.join(builder.info.splits)}"
                f" (splits={{{split!r}: ...}} says which is to be taken)"
            )
        features = builder.info.features
        assert features is not None
        self._paths = _field_paths(source, features)
        # Pictures stay encoded bytes: they are decoded by the transforms, and decoding here may need TensorFlow.
        decoders = {
            key: tfds.decode.SkipDecoding() for key in features if isinstance(features[key], tfds.features.Image)
        }
        try:
            self._data: Any = builder.as_data_source(split=name, decoders=decoders or None)
        except NotImplementedError as error:
            raise ValueError(
                f"{source.name!r} was prepared in a format without random access: prepare it again with "
                f"download_and_prepare(file_format='array_record')"
            ) from error
        taken = {path.partition("/")[0] for path in self._paths.values()}
        # Sorted, since TFDS gives the features of a dataset read back in another order in every process.
        others = [key for key in sorted(features) if key not in taken and key not in ("id", *self._paths)]
        self._labels = [key for key in others if "audio" not in _keys(features[key])]  # other recordings are no labels
        self.columns = ("id", *self._paths, *self._labels)
        # What the numbers in a column are called, in order.
        self.class_names = {
            key: tuple(features[key].names)
            for key in self._labels
            if isinstance(features[key], tfds.features.ClassLabel) and features[key].names
        }
        path = self._paths.get("audio", "")
        described = dict(features.items()).get(path)
        self._rate = rates(builder.data_path).get(path) or getattr(described, "sample_rate", None)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._data[index]
        example = {modality: _plain(_reach(record, path), modality) for modality, path in self._paths.items()}
        # No recordings at all are a modality that is lacking, not one that is bad.
        example = {
            modality: None if isinstance(value, list) and not value else value for modality, value in example.items()
        }
        example |= {label: _plain(record[label], label) for label in self._labels}
        if self._rate is not None:
            example["audio"] = _sound(example["audio"], int(self._rate))
        example["id"] = _plain(record["id"], "id") if "id" in record else f"{self._split}/{index}"
        return example

    def __reduce__(self) -> tuple[Any, ...]:
        return TfdsRecords, self._arguments


def _builder(name: str, data_dir: str | None) -> Any:
    from tensorflow_datasets.core import read_only_builder
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if is_ours(name) and ":" not in name:  # the version of our builder, whatever older one is on the disk
        return read_only_builder.builder_from_directory(prepare(name, data_dir))
    try:  # what is on the disk can be read without the code that built it
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except (DatasetNotFoundError, ImportError):  # not there, or its description needs TensorFlow
        return read_only_builder.builder_from_directory(prepare(name, data_dir))


def _field_paths(source: Tfds, features: Mapping[str, Any]) -> dict[str, str]:
    """Which feature, as a path with "/", each modality is."""
    usual = {"image": "image", "text": "text", "audio": "audio" if "audio" in features else "speech"}
    wanted = {modality: feature for modality, feature in usual.items() if feature in features} | source.fields
    if not wanted:
        raise ValueError(
            f"{source.name!r} has no feature named image, text, audio or speech, but {', '.join(sorted(features))}: "
            f"say which is which, Tfds({source.name!r}, fields={{'image': ...}})"
        )
    paths = {}
    for modality, path in wanted.items():
        inside: Any = features
        parts = path.split("/")
        for part in parts:
            if part not in _keys(inside):
                known = _keys(inside)
                raise ValueError(
                    f"Tfds({source.name!r}, fields={{{modality!r}: {path!r}}}): there is no {part!r} among "
                    f"{', '.join(known) or 'no features'}{nearest(part, known)}"
                )
            inside = _inside(inside)[part]
        if modality in _keys(inside):  # a sequence of {audio, voice} stands for its audio
            parts.append(modality)
        paths[modality] = "/".join(parts)
    return paths


def _inside(feature: Any) -> Any:
    return getattr(feature, "feature", feature)  # a Sequence's element


def _keys(feature: Any) -> list[str]:
    inside = _inside(feature)
    return sorted(inside.keys()) if hasattr(inside, "keys") else []


def _reach(record: Any, path: str) -> Any:
    for part in path.split("/"):
        record = record[part]
    return record


def _plain(value: Any, column: str) -> Any:
    """TFDS gives texts as bytes and sequences as object arrays: here str and lists, pictures and sounds stay bytes."""
    if isinstance(value, Mapping):
        return {key: _plain(item, column) for key, item in value.items()}
    if isinstance(value, bytes):
        return value if column in ("image", "audio") else _text(value)
    if isinstance(value, list) or getattr(value, "dtype", None) == np.dtype(object):
        return [_plain(item, column) for item in value]
    return value.item() if getattr(value, "shape", None) == () else value


def _sound(value: Any, rate: int) -> Any:
    """A waveform of whole 16-bit samples as a WAV file, which knows its rate; anything else as it is."""
    if not isinstance(value, np.ndarray) or value.ndim != 1 or not np.issubdtype(value.dtype, np.integer):
        return value
    samples = value.astype(np.int16)
    if not np.array_equal(samples, value):
        return value
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value  # a column of bytes that are no text


@dataclass(frozen=True)
class Folder:
    """One's own pictures, captions and sounds: a table beside them, `.csv`, `.tsv` or `.parquet`.

    Columns `image` and `audio` hold paths relative to `root` (the table's folder, if None), `text` captions; any may be
    lacking or empty. `fields` says what they are called otherwise (`{"text": "caption"}`). A column `split` says which
    split a row is in (`splits` translates: `{"validation": "val"}`); without one, a hash of the row's id does, by
    `shares`. The id is the column `id`, or the picture's path, or the sound's, or the caption, so that rows that
    share a picture share the split. All other columns are labels. The split "all" is every row of the table, unless the
    column `split` has rows of that name or `splits` translates it.
    """

    table: str
    root: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.9, "validation": 0.05, "test": 0.05})

    def open(self, split: str, data_dir: str | None = None) -> "FolderRecords":
        """Opens a split.

        Raises FileNotFoundError where the table, or every file that it names, is missing; `SplitNotFoundError` where
        the split is empty; ValueError where the table has none of the columns; ImportError where Parquet can't be read.
        """
        del data_dir  # a table is where it is
        table = _read_table(Path(self.table))
        paths = self._columns(table)
        root = Path(self.root) if self.root is not None else Path(self.table).parent
        count = len(next(iter(table.values())))
        ids = _ids(table, paths, count)
        rows = self._rows(table, ids, split)
        taken = ("id", "split", *paths.values())
        labels = {name: [values[row] for row in rows] for name, values in table.items() if name not in taken}
        columns = {modality: [table[name][row] for row in rows] for modality, name in paths.items()}
        if "text" in columns:  # a cell without a character is a caption that is lacking, not one that is empty
            columns["text"] = [value if value != "" else None for value in columns["text"]]
        for modality in ("image", "audio"):
            if modality in columns:
                columns[modality] = [_file(root, value) for value in columns[modality]]
                _check_some_exist(self.table, modality, [_file(root, value) for value in table[paths[modality]]])
        return FolderRecords({**labels, **columns, "id": [ids[row] for row in rows]})

    def modalities(self) -> list[str]:
        """Which of image, text and audio the table has. Raises as `open` does."""
        return list(self._columns(_read_table(Path(self.table))))

    def _columns(self, table: Mapping[str, list[Any]]) -> dict[str, str]:
        for modality, name in self.fields.items():
            if name not in table:
                raise ValueError(
                    f"Folder({self.table!r}, fields={{{modality!r}: {name!r}}}): the table has no such column, it has "
                    f"{', '.join(table)}{nearest(name, table)}"
                )
        paths = {m: self.fields.get(m, m) for m in MODALITIES if self.fields.get(m, m) in table}
        if not paths:
            hints = "".join({m: nearest(m, table) for m in MODALITIES}.values())
            raise ValueError(
                f"{self.table} has none of the columns image, text and audio, it has {', '.join(table)}{hints}: "
                f"say which is which, Folder({self.table!r}, fields={{'text': ...}})"
            )
        return paths

    def _rows(self, table: Mapping[str, list[Any]], ids: list[str], split: str) -> list[int]:
        name = self.splits.get(split, split)
        if split == WHOLE and split not in self.splits and WHOLE not in table.get("split", ()):
            return list(range(len(ids)))
        if "split" in table:
            rows = [row for row, value in enumerate(table["split"]) if value == name]
            there = ", ".join(sorted({str(value) for value in table["split"]}))
            hint = f"its column split holds {there} (splits={{{split!r}: ...}} says which is to be taken)"
        else:
            rows = [row for row, id in enumerate(ids) if _split_of(id, self.shares) == name]
            hint = f"a hash of the id shares its {len(ids)} rows out as {self.shares} (a column split is exact)"
        if not rows:
            raise SplitNotFoundError(f"{self.table} has no row in the split {name!r}: {hint}")
        return rows


class FolderRecords:
    """A split of a `Folder`: its columns, in memory."""

    def __init__(self, table: dict[str, list[Any]]):
        self._table = table
        self.columns = tuple(table)

    def __len__(self) -> int:
        return len(self._table["id"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self._table.items()}


def _read_table(path: Path) -> dict[str, list[Any]]:
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*") if p.suffix in (".csv", ".tsv", ".parquet")]
        raise FileNotFoundError(
            f"there is no table {path}{nearest(path.name, beside)}: make one, a row an example, its columns image and "
            "audio (paths beside it) and text, or those of them that you have; or name yours, in an experiment by "
            "data.sources.NAME.table=PATH"
        )
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError(f"{path}: Parquet tables need pyarrow, pip install 'mmjax[parquet]'") from error
        table = pyarrow.parquet.read_table(path).to_pydict()
    elif path.suffix in (".csv", ".tsv"):
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",", restval="")
            rows = list(reader)
        table = {name: [row[name] for row in rows] for name in reader.fieldnames or ()}
    else:
        raise ValueError(f"{path} is no table that can be read: it may end in .csv, .tsv or .parquet")
    if not table or not next(iter(table.values())):
        raise ValueError(f"{path} has no rows")
    return table


def _ids(table: Mapping[str, list[Any]], paths: Mapping[str, str], count: int) -> list[str]:
    if "id" in table:
        return [str(value) for value in table["id"]]
    columns = [table[paths[modality]] for modality in ("image", "audio", "text") if modality in paths]
    named = ((next((c[row] for c in columns if isinstance(c[row], str) and c[row]), row)) for row in range(count))
    return [str(name) for name in named]


def _split_of(id: str, shares: Mapping[str, float]) -> str:
    place = int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest()) / 2**64 * sum(shares.values())
    for split, share in shares.items():
        place -= share
        if place < 0:
            return split
    return next(reversed(list(shares)))  # a rounding error away from the end


def _file(root: Path, value: Any) -> Any:
    return File(os.fspath(root / value)) if isinstance(value, str) and value else value or None  # bytes: in the table


def _check_some_exist(table: str, modality: str, values: Iterable[Any]) -> None:
    files = [value for value in values if isinstance(value, File)]
    if files and not any(os.path.exists(file.path) for file in files):
        raise FileNotFoundError(
            f"{table}: of the {len(files)} files in the column {modality} there is not one, the first is "
            f"{files[0].path}: paths are relative to the table's folder, or to Folder(root=...)"
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an error: "; did you mean 'x'?", or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
