"""Retrieval with several captions a picture: each caption is a row, its picture is there once."""

from dataclasses import dataclass
from typing import Any

from mmjax.data.captions import PickCaption
from mmjax.data.fingerprints import Fingerprint, fingerprint
from mmjax.data.sources import MODALITIES, Records, Source


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
