"""Numbers the rows of a split so that those of the same picture, or the same sound, are equal."""

import hashlib
from collections.abc import Hashable

import numpy as np
from jaxtyping import Bool, Int

from mmjax.evaluate.contract import Embedded


def items_of(embedded: Embedded, modality: str) -> Int[np.ndarray, " n"] | None:
    """The item of each row, as a number, -1 where it has none; None where each row is another item.

    Rows are of one picture (or sound) by its content. A row without one, whose id other rows have too, all with the
    same picture, is of that one: a table with a column `id` may name it in the first row alone. In a table without such
    a column, and where the picture can't be read, the content is "", and the row has no item. Where contents are
    unknown (embeddings written without them), rows of one id with exactly the same embedding are one item.
    """
    if is_words(embedded, modality):
        return None
    valid, ids = embedded.valid[modality], embedded.columns.get("id") or list(range(len(embedded)))
    if (contents := embedded.contents.get(modality)) is not None:
        keys = [("row", i) if not key and valid[i] else key for i, key in enumerate(contents)]
    elif len(set(ids)) < len(ids):
        vectors = embedded.embeddings[modality]
        keys = [(id, _digest(vectors[i])) if valid[i] else None for i, id in enumerate(ids)]
    else:
        return None
    of_id: dict[Hashable, set[Hashable]] = {}
    for key, id in zip(keys, ids, strict=True):
        if key:
            of_id.setdefault(id, set()).add(key)
    numbers: dict[Hashable, int] = {}
    found = []
    for key, id in zip(keys, ids, strict=True):
        if key is None and len(known := of_id.get(id, ())) == 1:
            key = next(iter(known))
        found.append(-1 if not key else numbers.setdefault(key, len(numbers)))
    return np.array(found, np.int64)


def is_words(embedded: Embedded, modality: str) -> bool:
    """True if a modality is texts, each of which is an item of its own: those that were picked stand in the columns."""
    return embedded.kind(modality).words or modality in embedded.columns


def distinct(embedded: Embedded, modality: str, label: str) -> Bool[np.ndarray, " n"]:
    """A mask of the rows to classify: those that have the modality; of rows of one picture (or sound) and one label the
    first.

    A picture in the rows of its five captions is one example, not five, and must not be its own nearest neighbour.
    """
    valid, number = embedded.valid[modality], items_of(embedded, modality)
    there = np.flatnonzero(valid)
    if number is None or len(np.unique(number[there])) == len(there):
        return valid
    found, seen = np.zeros(len(valid), bool), set()
    for row in there.tolist():
        key = int(number[row]), repr(embedded.columns[label][row])
        if key not in seen:
            seen.add(key)
            found[row] = True
    return found


def _digest(vector: np.ndarray) -> bytes:
    return hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
