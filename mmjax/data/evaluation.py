"""Iterates over a split once, in order: batches and columns for evaluators."""

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epy

from mmjax.data.chains import Row, evaluation, identity, stack
from mmjax.data.pipeline import Columns, Mixture, Prepared, host_rows, prepare
from mmjax.data.sources.contents import Again, item_key, read_once
from mmjax.data.sources.contract import Records, media_columns
from mmjax.errors import UserError, nearest

with epy.lazy_imports():  # it brings jax and Orbax, which nothing else here needs
    import grain

CONTENT = "#"  # what a column's name ends in that tells which picture or sound a row holds


def evaluation_batches(
    mixture: Mixture | Prepared,
    split: str,
    batch_size: int,
    *,
    columns: Sequence[str] | None = None,
    host: tuple[int, int] = (0, 1),
    rows: range | None = None,
    contents: bool = False,
) -> Iterator[tuple[Row, Columns]]:
    """Iterates over every example of a split once, in a stable order, without augmentation: (batch, columns).

    The last batch is padded with zeros, valid False. `columns` holds, for the real rows alone, the values that don't go
    to the device: `id`, the caption that was picked as `text`, labels; None asks for all but the bytes of pictures and
    sounds (`columns=("id", "image")` gives them). `contents` asks for `image#`, `audio#` and so on besides: they are
    the same in rows that hold the same picture or sound (`contents.content_key`). `rows`: only these of the split. A
    source that lacks the split is left out, a column it lacks is None. Each of a table's list of captions is an example
    of its own; the picture is in the batch with the first of them alone, and has the same `image#` in all. Raises
    `SplitNotFoundError`, and UserError for a column that no source has.
    """
    prepared = mixture if isinstance(mixture, Prepared) else prepare(mixture)
    mine = host_rows(batch_size, host)
    opened = prepared.judged(split)
    columns_of = prepared.record_transforms.columns
    known = list(dict.fromkeys(column for records in opened.values() for column in columns_of(records.columns)))
    for column in columns or ():
        if column not in known:
            raise UserError(f"no source has a column {column!r}, there are {', '.join(known)}{nearest(column, known)}")
    # A class or a number is as light as a word: a label is a column too.
    heavy = {modality for modality, spec in prepared.chains.specs.items() if not spec.kind.words and spec.shape}
    heavy |= {column for records in opened.values() for column in media_columns(records)}
    wanted = tuple(columns) if columns is not None else tuple(column for column in known if column not in heavy)
    rows = range(sum(map(len, opened.values()))) if rows is None else rows
    looked = tuple(m for m in prepared.chains.specs if contents and m in known and m in heavy)
    make = _EvaluationRow(prepared, opened, wanted, batch_size, rows, looked, split)
    padded = -(-len(rows) // batch_size) * batch_size
    stream = grain.MapDataset.range(padded).map(make).batch(mine, batch_fn=_stack_with_columns)
    index, count = host
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=prepared.mixture.prefetch)
    yield from stream[index::count].to_iter_dataset(options)


def class_names(prepared: Prepared, split: str) -> dict[str, tuple[str, ...]]:
    """The names of a column's class numbers, in order, by column; only columns in which all sources agree."""
    found: dict[str, tuple[str, ...]] = {}
    differ = set()
    for records in prepared.open(split).values():
        for column, names in records.class_names.items():
            if found.setdefault(column, names) != names:
                differ.add(column)
    return {column: names for column, names in found.items() if column not in differ}


def evaluation_count(prepared: Prepared, split: str) -> int:
    """The number of examples that `evaluation_batches` gives."""
    return sum(map(len, prepared.judged(split).values()))


def raw(prepared: Prepared, split: str, place: int, column: str) -> Any:
    """A column of one example as stored, by its place in `evaluation_batches`: the bytes of a picture or a sound, the
    caption that evaluation picks; None where it is missing.
    """
    opened = prepared.judged(split)
    ends = list(itertools.accumulate(len(records) for records in opened.values()))
    source = bisect_right(ends, place)
    record = list(opened.values())[source][place - (ends[source - 1] if source else 0)]
    record = {name: value.value if isinstance(value, Again) else value for name, value in record.items()}
    return prepared.chains.raw(prepared.record_transforms(record, evaluation), column)


def whole_column(prepared: Prepared, split: str, column: str) -> list[Any]:
    """A column of every example of a split, as `raw` gives it, in the order of `evaluation_batches`.

    Raises UserError where no source has it.
    """
    opened = prepared.judged(split)
    columns_of = prepared.record_transforms.columns
    known = list(dict.fromkeys(name for records in opened.values() for name in columns_of(records.columns)))
    if column not in known:
        raise UserError(f"no source has a column {column!r}, there are {', '.join(known)}{nearest(column, known)}")
    found = []
    for records in opened.values():
        for index in range(len(records)):
            own = {name: None if isinstance(value, Again) else value for name, value in records[index].items()}
            found.append(prepared.chains.raw(prepared.record_transforms(own, evaluation), column))
    return found


class _EvaluationRow:
    """Maps a place among `rows` of all examples to (row, columns); beyond the last one, to (zeros, None)."""

    def __init__(
        self,
        prepared: Prepared,
        opened: Mapping[str, Records],
        columns: Sequence[str],
        batch_size: int,
        rows: range,
        contents: Sequence[str],
        split: str,
    ):
        """contents: modalities whose contents are identified in each row."""
        self.chains, self.record_transforms = prepared.chains, prepared.record_transforms
        self.opened, self.columns, self.batch_size = opened, columns, batch_size
        self.rows, self.contents, self.split = rows, contents, split
        self.names = list(opened)
        self.ends = list(itertools.accumulate(len(records) for records in opened.values()))

    def __call__(self, place: int) -> tuple[Row, dict[str, Any] | None]:
        if place >= len(self.rows):
            return {**self.chains.row({}, evaluation), "index": _u32(place % self.batch_size), "id": _u32([0, 0])}, None
        at = self.rows[place]
        source = bisect_right(self.ends, at)
        name = self.names[source]
        records, index = self.opened[name], at - (self.ends[source - 1] if source else 0)
        record = dict(records[index])
        contents: dict[str, str | None] = {}
        for modality in self.contents:
            record[modality] = read_once(record.get(modality))
            own = records.tells_apart and str(record["id"]) != f"{self.split}/{index}"
            contents[modality + CONTENT] = item_key(records, record[modality], record["id"] if own else None)
        id = record["id"]
        record = {column: None if isinstance(value, Again) else value for column, value in record.items()}
        record = self.record_transforms(record, evaluation)
        row = {**self.chains.row(record, evaluation), **identity(place % self.batch_size, name, id)}
        return row, {column: self.chains.raw(record, column) for column in self.columns} | contents


def _stack_with_columns(rows: Sequence[tuple[Row, dict[str, Any] | None]]) -> tuple[Row, Columns]:
    real = [columns for _, columns in rows if columns is not None]
    return stack([row for row, _ in rows]), {name: [columns[name] for columns in real] for name in (real or [{}])[0]}


def _u32(value: int | list[int]) -> np.ndarray:
    return np.asarray(value, np.uint32)
