"""Cached features: a frozen tower's embeddings, computed once by `mmjax embed`, in place of the tower's input."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mmjax.data import embedding_files
from mmjax.data.bad_example import BadExample
from mmjax.data.sources.contract import Records, Source, media_columns
from mmjax.data.sources.fingerprints import of_text
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.errors import UserError

SPLIT = "{split}"


@dataclass(frozen=True)
class Features(Source):
    """A source, one modality of which comes as the vectors that `mmjax embed` wrote of it.

    A tower that is locked gives the same for the same picture, so it need run but once (LiT: Zhai et al. 2022,
    arXiv:2111.07991, section 5.1); pictures are then seen without augmentation. Its chain is `(Vector(size),)` and its
    tower `mmjax.models.Given`.

    Attributes:
        source: the source that was embedded.
        folder: the embeddings, with "{split}" in it: `vectors/{split}`.
        modality: the one that the vectors replace.
    """

    source: Any
    folder: str
    modality: str = "image"

    def open(self, split: str, data_dir: str | None = None) -> "FeatureRecords":
        """Opens a split of both.

        Raises:
            UserError: some or all of its examples have no embeddings.
        """
        if SPLIT not in self.folder:
            raise UserError(f"Features(folder={self.folder!r}) must have {SPLIT} in it: a folder for each split")
        source: Source = self.source
        records = source.open(split, data_dir)
        folder = self.folder.replace(SPLIT, split)
        found = embedding_files.read(folder, (self.modality,))
        vectors, valid = found.embeddings[self.modality], found.valid[self.modality]
        rows: dict[str, Any] = {}
        for i, id in enumerate(map(str, found.columns["id"])):  # rows may share a picture, and then its id
            if rows.get(id) is None:
                rows[id] = vectors[i] if valid[i] else None
        if not len(rows) <= len(records) <= len(found):
            count = f"{len(found):,} examples, and the {split} split has {len(records):,}"
            raise UserError(f"{folder} has embeddings of {count}: embed it again")
        written = of_text(json.dumps(embedding_files.manifest(folder)["digests"], sort_keys=True))
        return FeatureRecords(records, self.modality, rows, folder, written)

    def places(self) -> dict[str, str]:
        """The folder of the embeddings."""
        return {"folder": self.folder}


class FeatureRecords(Records):
    """A split's records with their vectors."""

    def __init__(self, records: Records, modality: str, rows: dict[str, Any], folder: str, written: str):
        """written: identifies the embeddings' files."""
        self._records, self._modality, self._rows, self._folder = records, modality, rows, folder
        self._written = written
        self.columns = records.columns
        self.media = tuple(dict.fromkeys((*media_columns(records), modality)))
        self.class_names, self.named = records.class_names, records.named
        self.tells_apart, self.distinct = records.tells_apart, records.distinct

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        if record["id"] not in self._rows:
            raise UserError(f"{self._folder} has no embedding of {record['id']!r}: embed the split again")
        return record | {self._modality: self._rows[record["id"]]}

    def fingerprint(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """The source's, with that of the embeddings."""
        return {**self._records.fingerprint(columns), "embeddings": self._written}


@dataclass(frozen=True)
class Vector(Transform):
    """Takes a vector of `size` numbers as float32, unchanged."""

    size: int

    def __call__(self, value: Any, rng: Rng) -> Float[np.ndarray, " {self.size}"]:
        del rng
        vector = np.asarray(value)
        if vector.shape != (self.size,) or not np.issubdtype(vector.dtype, np.floating):
            raise UserError(
                f"Vector(size={self.size}) was given {vector.dtype}{list(vector.shape)}: its source must be "
                "Features(...), of embeddings of that size"
            )
        if not np.isfinite(vector).all():
            raise BadExample("the vector has numbers that aren't finite", "not_finite")
        return vector.astype(np.float32)

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self.size,), "float32")
