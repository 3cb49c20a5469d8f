"""Retrieval with several captions a picture: each caption is a row, its picture is there once."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mmjax.data.sources.contents import Again
from mmjax.data.sources.contract import Records, Source, media_columns
from mmjax.data.transforms.text import PickCaption
from mmjax.errors import UserError


@dataclass(frozen=True)
class EveryCaption(Source):
    """The captions of `source`, a row each, of up to `most` a picture; pictures (and sounds) only in the first row.

    The column `of` names the picture of a caption: `Retrieval(same="of")` then ranks each picture against all captions,
    of which up to `most` are right, and each caption against all pictures, as retrieval on COCO is measured (Karpathy
    and Fei-Fei 2015, arXiv:1412.2306). Rows beyond a picture's last caption hold nothing.
    modality: the captions' name in a record.
    """

    source: Any
    most: int = 5
    modality: str = "text"

    def open(self, split: str, data_dir: str | None = None) -> "EveryCaptionRecords":
        """Opens a split. Raises as the source does; UserError where it has no captions."""
        source: Source = self.source
        records = source.open(split, data_dir)
        if self.modality not in records.columns:
            raise UserError(f"EveryCaption: the source has no {self.modality}, but {', '.join(records.columns)}")
        return EveryCaptionRecords(records, self.most, self.modality)


class EveryCaptionRecords(Records):
    """A split of an `EveryCaption`."""

    distinct = True  # each row's picture is a different one, whatever it looks like

    def __init__(self, records: Records, most: int, modality: str = "text"):
        self._records, self._most, self._modality = records, most, modality
        self.media: tuple[str, ...] = media_columns(records)
        self.columns = ("id", "of", modality, *self.media)

    def __len__(self) -> int:
        return len(self._records) * self._most

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, place = divmod(index, self._most)
        record = self._records[row]
        value = record[self._modality]
        captions = PickCaption().every(value) if value is not None else []
        found = {"id": f"{record['id']}#{place}", "of": record["id"]}
        found[self._modality] = captions[place] if place < len(captions) else None
        return found | {name: record[name] if place == 0 else None for name in self.media}

    def fingerprint(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """The source's."""
        return self._records.fingerprint(columns)


def expanded(records: Records, texts: Sequence[str]) -> Records:
    """A table's records with a row for each caption of those that have a list of them, for evaluation.

    texts: the columns of captions; with several, the longest list counts, and a row holds the n-th of each.
    Pictures and sounds of the second caption on are `Again`; id and labels are the row's. A table without lists, and
    other sources (whose records would have to be read to know), as they are.
    """
    texts = [name for name in texts if name in records.columns]
    if not records.in_memory or not texts:
        return records
    rows = (records[i] for i in range(len(records)))
    lists = ([row[name] for name in texts if isinstance(row[name], list | tuple)] for row in rows)
    counts = [max(1, *(len(PickCaption().every(value)) for value in values), 1) for values in lists]
    return records if max(counts, default=1) == 1 else ListedRecords(records, counts, texts)


class ListedRecords(Records):
    """Records of which some have a list of captions: a row for each of them."""

    def __init__(self, records: Records, counts: list[int], texts: Sequence[str]):
        """counts: how many captions each record has. texts: the columns of captions."""
        self._records, self._ends, self._texts = records, list(accumulate(counts)), tuple(texts)
        self.columns = records.columns
        self.class_names, self.named = records.class_names, records.named
        self.tells_apart, self.distinct = records.tells_apart, records.distinct
        self.media: tuple[str, ...] = media_columns(records)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = bisect_right(self._ends, index)
        place = index - (self._ends[row - 1] if row else 0)
        record = dict(self._records[row])
        for name in self._texts:
            value = record[name]
            captions = PickCaption().every(value) if isinstance(value, list | tuple) else [value]
            record[name] = captions[place] if place < len(captions) else None
        if place:
            record |= {name: Again(record[name]) for name in self.media if record[name] is not None}
        return record
