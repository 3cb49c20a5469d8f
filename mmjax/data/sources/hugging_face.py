"""A dataset of Hugging Face's on the disk, as a source: what `save_to_disk` wrote, or what is in the cache."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmjax.data.paths import File
from mmjax.data.sources.cells import filled_cell, label, stripped, with_class
from mmjax.data.sources.contract import MEDIA, MODALITIES, Records, Source
from mmjax.data.sources.fingerprints import Fingerprint, of_text
from mmjax.data.sources.splits import WHOLE, SplitNotFoundError
from mmjax.errors import UserError, nearest


@dataclass(frozen=True)
class HuggingFace(Source):
    """A dataset of the library `datasets` (extra `datasets`): the folder that `save_to_disk` wrote, or the name of one
    that `datasets.load_dataset` has brought into its cache. Nothing is downloaded, and no code of a dataset is run.

    Rows are read from Arrow files where they lie, one by one. `fields` maps a modality or column to a column, with "/"
    into nested ones (`{"text": "answers/text"}`), where the columns aren't named image, text, audio, video and id. All
    other columns are labels, of which a ClassLabel has names. `config` is needed where the cache holds several.
    `splits` translates a split's name (`{"validation": "train[95%:]"}`); the split "all" is every one, in their order.
    """

    dataset: str
    config: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)

    def open(self, split: str, data_dir: str | None = None) -> "HuggingFaceRecords":
        """Opens a split.

        Raises `SplitNotFoundError`; UserError where there is no such dataset, or it has no such column.
        """
        del data_dir  # it has a place of its own
        return HuggingFaceRecords(self, split)

    def places(self) -> dict[str, str]:
        """The folder, where it is one."""
        return {"dataset": self.dataset} if os.path.isdir(os.path.expanduser(self.dataset)) else {}

    def renaming(self, modality: str) -> str:
        """Renames by `fields`."""
        return f"; if a column of another name holds it, say HuggingFace(..., fields={{{modality!r}: NAME}})"


class HuggingFaceRecords(Records):
    """A split of a dataset of Hugging Face's, memory-mapped."""

    def __init__(self, source: HuggingFace, split: str):
        import datasets

        self._arguments = (source, split)
        whole = _loaded(source)
        self._split, self._rows, told = split, *_rows_of(source, split, whole)
        features = self._rows.features
        self._paths = _column_paths(source, features)
        encoded = (datasets.Image, datasets.Audio, datasets.Video)
        for name, feature in features.items():
            if isinstance(feature, encoded):
                self._rows = self._rows.cast_column(name, type(feature)(decode=False))
            elif isinstance(getattr(feature, "feature", None), encoded):
                inner = type(feature.feature)(decode=False)
                self._rows = self._rows.cast_column(name, type(feature)(inner))
        taken = {path[0] for path in self._paths.values()}
        self._labels = [name for name in features if name not in taken and not isinstance(features[name], encoded)]
        self.columns = tuple(dict.fromkeys(("id", *self._paths, *self._labels)))
        self.media: tuple[str, ...] = tuple(
            name for name, path in self._paths.items() if name in MEDIA or isinstance(_feature(features, path), encoded)
        )
        found = {name: features[name] for name in self._labels}
        self.class_names = {name: tuple(each.names) for name, each in found.items() if hasattr(each, "names")}
        self.named = "id" in self._paths
        self._digest = of_text(told + str(sorted((name, str(feature)) for name, feature in features.items())))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        row = self._rows[index]
        record: dict[str, Any] = {
            name: label(with_class(row[name]) if name in self.class_names else row[name]) for name in self._labels
        }
        for name, path in self._paths.items():
            value = _reached(row, path)
            record[name] = _seen(value) if name in self.media else _text(value) if name == "text" else label(value)
        own = stripped(record.get("id")) if self.named else None
        return record | {"id": f"{self._split}/{index}" if own is None else str(own)}

    def fingerprint(self, columns: Sequence[str] | None = None) -> Fingerprint:
        """The number of rows, and a digest of the columns' types and of the files' names and sizes."""
        del columns
        return {"rows": len(self), "files": self._digest}

    def __reduce__(self) -> tuple[Any, ...]:
        return HuggingFaceRecords, self._arguments


def _loaded(source: HuggingFace) -> Any:
    """All splits, by name. Raises UserError where there is no such dataset here."""
    try:
        import datasets
        from datasets.packaged_modules.cache.cache import Cache
    except ImportError as error:
        raise UserError(f"HuggingFace({source.dataset!r}) needs pip install 'mmjax[datasets]'") from error
    folder = os.path.expanduser(source.dataset)
    try:
        if os.path.isdir(folder):
            found = datasets.load_from_disk(folder)
            return found if isinstance(found, dict) else {str(found.split or "train"): found}
        owner, _, name = source.dataset.rpartition("/")
        named = {"dataset_name": name, "repo_id": source.dataset if owner else None}
        held: Any = Cache(**named, config_name=source.config, version="auto", hash="auto")
        return held.as_dataset()
    except (FileNotFoundError, ValueError) as error:
        shown = " ".join(str(error).split())
        raise UserError(
            f"HuggingFace({source.dataset!r}): there is no folder of save_to_disk there, nor a dataset of that name in "
            f"the cache ({shown}); datasets.load_dataset({source.dataset!r}) brings one there, and a folder of Parquet "
            "files too"
        ) from error


def _rows_of(source: HuggingFace, split: str, whole: Mapping[str, Any]) -> tuple[Any, str]:
    """The rows of a split, and a text that tells of their files. Raises `SplitNotFoundError`."""
    import datasets

    files = sorted({each["filename"] for rows in whole.values() for each in rows.cache_files})
    told = repr([(os.path.basename(file), os.path.getsize(file)) for file in files])
    name = source.splits.get(split, split)
    if name == WHOLE and name not in whole:
        return datasets.concatenate_datasets([*whole.values()]), f"{told} {name}"
    if name.partition("[")[0] not in whole:
        raise SplitNotFoundError(
            f"HuggingFace({source.dataset!r}) has no split {name!r}, it has {', '.join(whole)} "
            f"(splits={{{split!r}: ...}} says which is to be taken)"
        )
    try:
        instruction = datasets.ReadInstruction.from_spec(name)
        (part,) = instruction.to_absolute({each: len(rows) for each, rows in whole.items()})
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"HuggingFace({source.dataset!r}, splits={{{split!r}: {name!r}}}): {error}; a part of one split is written "
            "train[95%:] or train[:1000]"
        ) from error
    rows = whole[part.splitname]
    if (part.from_, part.to) != (0, len(rows)):
        rows = rows.select(range(part.from_, part.to))
    if not len(rows):
        raise SplitNotFoundError(f"HuggingFace({source.dataset!r}): its split {name!r} has no row")
    return rows, f"{told} {name}"


def _column_paths(source: HuggingFace, features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The column of each modality and of the id, as a path. Raises UserError where there is none."""
    usual = {name: name for name in (*MODALITIES, "id") if name in features}
    paths = {}
    for name, wanted in {**usual, **source.fields}.items():
        path = tuple(wanted.split("/"))
        if _feature(features, path) is None:
            raise UserError(
                f"HuggingFace({source.dataset!r}, fields={{{name!r}: {wanted!r}}}): there is no such column, there are "
                f"{', '.join(features)}{nearest(path[0], features)}"
            )
        paths[name] = path
    if not any(name != "id" for name in paths):
        raise UserError(
            f"HuggingFace({source.dataset!r}) has no column named image, text, audio or video, but "
            f"{', '.join(features)}: say which is which, HuggingFace(..., fields={{'image': ...}})"
        )
    return paths


def _feature(features: Any, path: Sequence[str]) -> Any:
    """The feature at a path; None where there is none. A list of objects is looked into."""
    found = features
    for part in path:
        while not isinstance(found, Mapping) and hasattr(found, "feature"):
            found = found.feature
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _reached(row: Any, path: Sequence[str]) -> Any:
    for number, part in enumerate(path):
        if isinstance(row, list):
            return [_reached(item, path[number:]) for item in row]
        row = None if row is None else row[part]
    return row


def _seen(value: Any) -> Any:
    """A picture, sound or video as it is stored: its bytes, its file, an array, or a list of these."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return [kept for item in value if (kept := _seen(item)) is not None] or None
    if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
        if value.get("bytes") is not None:
            return filled_cell(value["bytes"])
        path = stripped(value.get("path"))
        return None if path is None else File(path)
    if isinstance(value, list):
        return np.asarray(value)
    return filled_cell(value)


def _text(value: Any) -> Any:
    """A text, several, or texts by language, without those that are empty; None where there is none."""
    if isinstance(value, list):
        return [kept for item in value if (kept := stripped(item)) is not None] or None
    if isinstance(value, Mapping):
        return {name: kept for name, item in value.items() if (kept := stripped(item)) is not None} or None
    return stripped(value)
