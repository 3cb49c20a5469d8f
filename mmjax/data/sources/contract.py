"""The contract of sources: a TFDS dataset, or a table of one's own pictures, captions and sounds.

A source is a frozen dataclass of plain fields. `source.open(split)` gives `Records`: index-addressed records, each a
dict with `id` (str), of `image`, `text` and `audio` what there is, as stored (bytes or `File`, str, list or dict of
str), and every other column, for evaluation.
"""

import logging
from typing import Any, Protocol

# What columns are called in tables, and in datasets of TFDS, where nothing else is said.
MODALITIES = ("image", "text", "audio")
MEDIA = ("image", "audio")  # of these what isn't words

log = logging.getLogger(__name__)


class Records(Protocol):
    """An opened split of a source. It can be sent to another process, which opens the files anew.

    It may also have `media`, the columns that hold pictures, sounds and the like (see `media_columns`), and
    `fingerprint(columns)` (see `fingerprints.fingerprint`).
    """

    columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class Source(Protocol):
    """A description of data that can be opened."""

    def open(self, split: str, data_dir: str | None = None) -> Records:
        """Opens a split. Raises `SplitNotFoundError` where there is none, UserError where the fields are wrong."""
        ...


def media_columns(records: Any) -> tuple[str, ...]:
    """The columns that hold what is seen or heard rather than read, as bytes, files or arrays: evaluation gives them
    only where they are asked for. What `records.media` says; where there is none, those of the usual names."""
    return getattr(records, "media", tuple(name for name in MEDIA if name in records.columns))
