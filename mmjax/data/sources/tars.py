"""Tars of examples, as webdataset and img2dataset write them, as a source: read where they lie, in any order."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mmjax.data.ranged_files import RangedFiles
from mmjax.data.sources.contract import Records, Source
from mmjax.data.sources.fingerprints import Fingerprint, of_text
from mmjax.data.sources.pattern_splits import check_pattern_splits, files_of_split, pattern_folders
from mmjax.data.sources.splits import WHOLE, SplitNotFoundError, hashed_split
from mmjax.data.sources.tar_columns import JSON, TarColumns, parsed_json
from mmjax.data.tar_index_store import TarIndexes
from mmjax.data.tar_reader import read_members


@dataclass(frozen=True)
class Tars(Source):
    """Tars of examples where they lie: `Tars("laion/{00000..01023}.tar")`, or with `*`. Nothing is unpacked.

    Files that follow each other and share a key are an example (`mmjax.data.tar_index`): `000012.jpg`, `000012.txt`,
    `000012.json`. `fields` says which suffix is which modality or column: `{"text": "json/caption"}`, the entry
    `caption` of the `.json`; `{"image": "webp;jpg"}`, the first that there is. By default pictures, captions, sounds
    and videos go by their usual suffixes (`USUAL`); `.cls`, a number, and the entries of the first example's `.json`
    are columns of their own. An example's id is its tar's name and its key, "00012/000120043".

    The tars are the split `train`; `splits` has the patterns of others, `{"validation": "laion/val-*.tar"}`, or
    `shares` gives some of the tars to others, by a hash of their names: `{"validation": 0.01}`. The split "all" is
    every one. Their order is the pattern's, and within a tar that of the examples.

    Each tar is indexed once, with a line of progress; `index` says where that is kept: in the `cache`
    (`$XDG_CACHE_HOME/mmjax/indexes`) or `beside` the tars. An index is made anew where its tar has another size or
    time. A tar that is cut off or broken is used up to there, but for its last example, and named.
    """

    shards: str
    fields: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    index: Literal["cache", "beside"] = "cache"

    def __post_init__(self) -> None:
        check_pattern_splits("Tars", self.splits, self.shares, self.index)

    def open(self, split: str, data_dir: str | None = None) -> "TarRecords":
        """Opens a split, and indexes those of its tars that weren't indexed yet.

        Raises `SplitNotFoundError` where there is none; UserError where a tar is missing or can't be read as one, or no
        example has a suffix that `fields` names.
        """
        del data_dir  # it has paths of its own
        return TarRecords(self, split)

    def places(self) -> dict[str, str]:
        """The folders of the tars."""
        return pattern_folders("shards", self.shards, self.splits)

    def renaming(self, modality: str) -> str:
        """Names a suffix by `fields`."""
        return f"; if a suffix or an entry of the .json holds it, say Tars(..., fields={{{modality!r}: 'json/NAME'}})"

    def tars_of(self, split: str) -> list[str]:
        """The tars of a split. Raises `SplitNotFoundError` where there is none."""
        where = f"Tars({self.shards!r})"
        names = files_of_split(where, split, self.shards, self.splits, self.shares)
        if not self.shares or split == WHOLE:
            return names
        known = {"train": 1 - sum(self.shares.values())} | self.shares
        found = [name for name in names if hashed_split(os.path.basename(name), known) == split]
        if not found:
            raise SplitNotFoundError(
                f"{where}: of {len(names)} tars a share of {known[split]:g} for {split!r} has none: give it tars "
                f"of its own, Tars(..., splits={{{split!r}: ...}})"
            )
        return found


class TarRecords(Records):
    """A split of tars. An example is read from the disk at once, where its files lie near each other."""

    tells_apart = True

    def __init__(self, source: Tars, split: str):
        self._arguments = (source, split)
        self._tars = source.tars_of(split)
        self._root = os.path.commonpath([os.path.abspath(folder) for folder in source.places().values()])
        self._indexes = TarIndexes(self._tars, source.index == "beside")
        facts = self._indexes.facts
        self._ends = np.cumsum(facts.counts)
        if not len(self):
            raise SplitNotFoundError(f"Tars({source.shards!r}): its {len(self._tars)} tars hold no example")
        self._files = RangedFiles(lambda tar: (self._tars[tar], facts.state(tar)))
        entries = self._first_entries() if JSON in facts.suffixes else {}
        self._columns = TarColumns(f"Tars({source.shards!r}", source.fields, facts.suffixes, entries)
        self.media = self._columns.media
        self.columns = ("id", *self._columns.places)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        tar = int(np.searchsorted(self._ends, index, side="right"))
        row = index - (int(self._ends[tar - 1]) if tar else 0)
        held = self._indexes[tar]
        members = [member for member in held.members(row) if member.suffix in self._columns.wanted]
        return {
            "id": f"{self._name(tar)}/{held.key(row)}",
            **self._columns.values(read_members(self._files, tar, members)),
        }

    def fingerprint(self, columns: Sequence[str] | None = None) -> Fingerprint:
        """The number of examples, and a digest of the tars' names, sizes and numbers of examples."""
        del columns
        names = [self._name(tar) for tar in range(len(self._tars))]
        told = [names, self._indexes.facts.sizes.tolist(), self._ends.tolist()]
        return {"rows": len(self), "tars": of_text(json.dumps(told))}

    def __reduce__(self) -> tuple[Any, ...]:
        return TarRecords, self._arguments

    def _name(self, tar: int) -> str:
        """A tar's path within the folder of all, without its suffix."""
        return os.path.relpath(os.path.abspath(self._tars[tar]), self._root).removesuffix(".tar")

    def _first_entries(self) -> dict[str, Any]:
        """The entries of the first JSON that is an object."""
        for tar in range(len(self._tars)):
            held = self._indexes[tar]
            for row in range(len(held)):
                own = [member for member in held.members(row) if member.suffix == JSON]
                parsed = parsed_json(read_members(self._files, tar, own).get(JSON))
                if isinstance(parsed, dict):
                    return parsed
        return {}
