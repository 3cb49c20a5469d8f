"""A source whose columns are called otherwise: a known dataset, by a model's own names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmjax.data.sources.contract import Records, Source, media_columns


@dataclass(frozen=True)
class Renamed(Source):
    """`source` with some of its columns called otherwise: `names` says of each new name which column it is."""

    source: Any
    names: dict[str, str]

    def open(self, split: str, data_dir: str | None = None) -> "RenamedRecords":
        """Opens a split. Raises as the source does."""
        source: Source = self.source
        return RenamedRecords(source.open(split, data_dir), {column: name for name, column in self.names.items()})


class RenamedRecords(Records):
    """A split's records by their new names."""

    def __init__(self, records: Records, names: Mapping[str, str]):
        """names: the new name of each column that gets one."""
        self._records, self._names = records, dict(names)
        self.columns = tuple(self._names.get(column, column) for column in records.columns)
        self.media = tuple(self._names.get(column, column) for column in media_columns(records))
        self.class_names = {self._names.get(column, column): of for column, of in records.class_names.items()}
        self.named, self.distinct, self.tells_apart = records.named, records.distinct, records.tells_apart
        self.in_memory = records.in_memory

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {self._names.get(column, column): value for column, value in self._records[index].items()}

    def fingerprint(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """The source's, its columns by their new names."""
        old = {name: column for column, name in self._names.items()}
        found = self._records.fingerprint(None if columns is None else [old.get(name, name) for name in columns])
        return {self._names.get(key, key): value for key, value in found.items()}
