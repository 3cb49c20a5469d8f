"""Retrieval with several captions a picture: each caption is a row, its picture is there once."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from mmjax.data.sources.contents import Again
from mmjax.data.sources.contract import MODALITIES, Records, Source
from mmjax.data.sources.fingerprints import Fingerprint, fingerprint
from mmjax.data.sources.folder import FolderRecords
from mmjax.data.transforms.text import PickCaption


@dataclass(frozen=True)
class EveryCaption:
    """The captions of `source`, a row each, of up to `most` a picture; pictures (and sounds) only in the first row.

    The column `of` names what a caption is of: `Retrieval(same="of")` then ranks each picture against all captions, of
    which up to `most` are right, and each caption against all pictures, as retrieval on COCO is measured (Karpathy and
    Fei-Fei 2015, arXiv:1412.2306). Rows beyond a picture's last caption hold nothing.
    """

    source: Any
    most: int = 5

    def open(self, split: str, data_dir: str | None = None) -> "EveryCaptionRecords":
        """Opens a split. Raises as the source does; ValueError where it has no captions."""
        source: Source = self.source
        records = source.open(split, data_dir)
        if "text" not in records.columns:
            raise ValueError(f"EveryCaption: the source has no text, but {', '.join(records.columns)}")
        return EveryCaptionRecords(records, self.most)


class EveryCaptionRecords:
    """A split of an `EveryCaption`."""

    distinct = True  # each row's picture is another one, whatever it looks like: the dataset says so

    def __init__(self, records: Records, most: int):
        self._records, self._most = records, most
        self._others = tuple(name for name in MODALITIES if name != "text" and name in records.columns)
        self.columns = ("id", "of", "text", *self._others)

    def __len__(self) -> int:
        return len(self._records) * self._most

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, place = divmod(index, self._most)
        record = self._records[row]
        captions = PickCaption().every(record["text"]) if record["text"] is not None else []
        found = {"id": f"{record['id']}#{place}", "of": record["id"]}
        found["text"] = captions[place] if place < len(captions) else None
        return found | {name: record[name] if place == 0 else None for name in self._others}

    def fingerprint(self) -> Fingerprint:
        """The source's."""
        return fingerprint(self._records)


def expanded(records: Records) -> Records:
    """A table's records with a row for each caption of those that have a list of them, for evaluation.

    Pictures and sounds of the second caption on are `Again`; id and labels are the row's. A table without lists, and
    other sources (whose records would have to be read to know), as they are.
    """
    if not isinstance(records, FolderRecords) or "text" not in records.columns:
        return records
    lists = (value if isinstance(value := records[i]["text"], list | tuple) else () for i in range(len(records)))
    counts = [max(1, len(PickCaption().every(value))) for value in lists]
    return records if max(counts, default=1) == 1 else ListedRecords(records, counts)


class ListedRecords:
    """Records of which some have a list of captions: a row for each of them."""

    def __init__(self, records: Records, counts: list[int]):
        """counts: how many captions each record has."""
        self._records, self._ends = records, list(accumulate(counts))
        self.columns = records.columns
        self.class_names, self.named = getattr(records, "class_names", {}), getattr(records, "named", True)
        self._others = tuple(name for name in MODALITIES if name != "text" and name in records.columns)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = bisect_right(self._ends, index)
        place = index - (self._ends[row - 1] if row else 0)
        record = dict(self._records[row])
        if isinstance(record["text"], list | tuple):
            captions = PickCaption().every(record["text"])
            record["text"] = captions[place] if captions else None
        if place:
            record |= {name: Again(record[name]) for name in self._others if record[name] is not None}
        return record
