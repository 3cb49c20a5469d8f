"""Where examples come from: a TFDS dataset, or a table of one's own pictures, captions and sounds.

A source is a frozen dataclass of plain fields. `source.open(split)` gives `Records`: index-addressed records, each a
dict with `id` (str), of `image`, `text` and `audio` what there is, as stored (bytes or `File`, str, list or dict of
str), and every other column, for evaluation.
"""

import logging
from typing import Any, Protocol

MODALITIES = ("image", "text", "audio")

log = logging.getLogger(__name__)


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
