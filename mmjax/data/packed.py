"""Short texts, several to a row, so that little of a batch is padding."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.sources.contract import Records, Source
from mmjax.data.sources.fingerprints import Fingerprint, of_text
from mmjax.data.token_rows import ready_tokenizer
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.packed_row import PackedTexts
from mmjax.data.transforms.values import Labelled, Masked
from mmjax.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packed(Source):
    """The texts of `source`, as many to a row of `length` tokens as fit: `ReadPacked` ends the chain, and tells where
    each begins. Records have an id, the row's number, and the texts alone.

    Which texts share a row is decided as it is opened, from their lengths: each, in the source's order, goes to the
    first row with room for it of the `window` rows that are open; where none has, a row is begun, and of too many the
    oldest is closed. So every text is in one row, whole, and the rows, addressed by their numbers, are the same in
    every epoch, on any number of hosts and after any resumption. Opening it cuts all texts once, and keeps 40 bytes or
    so of each in memory. Texts that are bad are left out, with a warning that counts them.

    Attributes:
        source: its records have a text.
        chain: the transforms of a text, as in evaluation: nothing is drawn. It ends in `Tokenize`, or in
            `TokenizeConversation` without slots, whose tokenizer is readable before captions are, from a file. Its
            length is the most that one text may have: longer ones are cut by it, or are bad.
        length: tokens of a row.
        window: rows that are open at once.
        modality: the texts' name in a record.
    """

    source: Any
    chain: tuple[Any, ...]
    length: int
    window: int = 64
    modality: str = "text"

    def open(self, split: str, data_dir: str | None = None) -> "PackedRecords":
        """Opens a split. Raises as the source does; UserError where it has no text or none that is good, for a chain
        without a tokenizer, or one that is to be trained, and for a length or a window below 1.
        """
        if self.length < 1 or self.window < 1:
            raise UserError(f"Packed(length={self.length}, window={self.window}): both are 1 or more")
        source: Source = self.source
        records = source.open(split, data_dir)
        if self.modality not in records.columns:
            raise UserError(f"Packed: the source has no {self.modality}, but {', '.join(records.columns)}")
        root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
        return PackedRecords(records, self._ready(root), self)

    def _ready(self, root: Path) -> tuple[Transform, ...]:
        """The chain, whose tokenizer has its model."""
        if not self.chain or self.chain[-1].vocabulary() is None:
            raise UserError("Packed(chain=...) ends in no Tokenize: end it in one, or in TokenizeConversation")
        *cleaning, cut = self.chain
        return (*cleaning, cut.with_tokenizer(ready_tokenizer(cut.vocabulary(), root, "Packed")))


class PackedRecords(Records):
    """A split of `Packed`."""

    media = ()
    named = False

    def __init__(self, records: Records, chain: Sequence[Transform], packed: Packed):
        self._records, self._chain, self._modality = records, tuple(chain), packed.modality
        self.columns = ("id", packed.modality)
        lengths = {index: count for index in range(len(records)) if (count := self._count(index)) is not None}
        if too_long := [index for index, count in lengths.items() if count > packed.length]:
            raise UserError(
                f"Packed(length={packed.length}): the text of {records[too_long[0]]['id']!r} has "
                f"{lengths[too_long[0]]} tokens: give the Tokenize of its chain at most that length"
            )
        if not lengths:
            raise UserError(f"Packed: none of the {len(records)} texts can be used")
        if bad := len(records) - len(lengths):
            log.warning("Packed: %d of %d texts are missing or bad, and left out", bad, len(records))
        self._rows = packed_rows(lengths.items(), packed.length, packed.window)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {"id": str(index), self._modality: PackedTexts(tuple(self._cut(one) for one in self._rows[index]))}

    def fingerprint(self, columns: Sequence[str] | None = None) -> Fingerprint:
        """The number of rows, and a digest of which texts are in each."""
        del columns
        return {**self._records.fingerprint((self._modality,)), "rows": len(self), "packed": of_text(str(self._rows))}

    def _count(self, index: int) -> int | None:
        """The tokens of a text; None where it is missing or bad."""
        try:
            text = self._cut(index)
        except BadExample:
            return None
        value = text.value if isinstance(text, Labelled) else text
        return int(value.mask.sum()) if isinstance(value, Masked) else None

    def _cut(self, index: int) -> Any:
        value = self._records[index][self._modality]
        if value is None:
            raise BadExample("the text is missing", "empty")
        for transform in self._chain:
            value = transform(value, None)
        return value


def packed_rows(texts: Iterable[tuple[int, int]], length: int, window: int) -> list[tuple[int, ...]]:
    """The rows, by the first-fit rule of `Packed`, each of the names of its texts in order. texts: the name of each and
    its length, which is at most that of a row.
    """
    rows: list[list[int]] = []
    room: dict[int, int] = {}  # of the open rows, the oldest first
    for name, count in texts:
        row = next((row for row, left in room.items() if left >= count), None)
        if row is None:
            row, room[len(rows)] = len(rows), length
            rows.append([])
            if len(room) > window:
                del room[next(iter(room))]
        rows[row].append(name)
        room[row] -= count
        if not room[row]:
            del room[row]
    return [tuple(row) for row in rows]
