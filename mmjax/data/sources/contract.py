"""The contract of sources: a TFDS dataset, a table of one's own files, or another kind of storage.

A source is a frozen dataclass of plain fields, a subclass of `Source`. `source.open(split)` gives `Records`:
index-addressed records, each a dict with `id` (str), of the modalities (`image`, `text`, `audio`, `video`, or by names
of one's own) what there is, as stored (bytes or `File`, str, list or dict of str, an array), and every other column,
for evaluation. A source that wraps another one has it in its field `source`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmjax.data.transforms.contract import require_own_fields

# The default names of columns in tables, and in datasets of TFDS.
MODALITIES = ("image", "text", "audio", "video")
MEDIA = ("image", "audio", "video")  # those that aren't words

log = logging.getLogger(__name__)


class Records:
    """An opened split of a source. It can be sent to another process, which opens the files anew.

    columns: what the records hold, in order, `id` among it.
    media: the columns that hold what is seen or heard rather than read; None: those of the usual names.
    class_names: what the numbers in a column are called, in order, by column.
    named: whether the ids are the data's own, which say what belongs together.
    tells_apart: whether such ids also tell apart what looks alike; an id made of a split and a row tells nothing.
    distinct: whether each row's picture is another one, whatever it looks like.
    in_memory: whether all records can be looked at without reading much.
    """

    columns: tuple[str, ...]
    media: tuple[str, ...] | None = None
    class_names: Mapping[str, tuple[str, ...]] = {}
    named: bool = True
    tells_apart: bool = False
    distinct: bool = False
    in_memory: bool = False

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        raise NotImplementedError

    def fingerprint(self, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Plain numbers and strings that are equal as long as the records are those that a run began with: `rows`, and
        digests of the columns, where they can be told one by one. Here: the number of rows alone.

        columns: those that count besides the id; None: all that usually train.
        """
        del columns
        return {"rows": len(self)}


class Source:
    """A description of data that can be opened. Only `open` must be written."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        require_own_fields(cls, Source)

    def open(self, split: str, data_dir: str | None = None) -> Records:
        """Opens a split. Raises `SplitNotFoundError` where there is none, UserError where the fields are wrong."""
        raise NotImplementedError

    def places(self) -> dict[str, str]:
        """The files and folders that its fields name, by field: what a record that comes from others leads to."""
        return {}

    def to_build(self) -> str | None:
        """The command that would build what opening it builds in one of its `places`; None where it builds nothing
        there, as here."""
        return None

    def index_file(self) -> str | None:
        """The file that says which examples there are, where that is small enough to be compared; here: none."""
        return None

    def at(self, data_dir: str) -> "Source":
        """The source with its dataset in that folder. Here: as it is, and what it wraps there."""
        inner = getattr(self, "source", None)
        return self if inner is None else replace(self, source=inner.at(data_dir))  # type: ignore[type-var]

    def renaming(self, modality: str) -> str:
        """The end of an error: how a column of another name is told to be a modality; "" where it can't be."""
        del modality
        return ""


def nested_sources(source: Source) -> Iterator[Source]:
    """A source, and those that it wraps, from without inwards."""
    inner: Source | None = source
    while inner is not None:
        yield inner
        inner = getattr(inner, "source", None)


def media_columns(records: Records) -> tuple[str, ...]:
    """The columns that hold what is seen or heard rather than read, as bytes, files or arrays: evaluation gives them
    only where they are asked for."""
    return tuple(name for name in MEDIA if name in records.columns) if records.media is None else records.media
