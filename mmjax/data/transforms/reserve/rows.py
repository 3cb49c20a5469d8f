"""Rows of tokens with pointers, laid out of parts, and shortened where they are too long."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

NOTHING = -1  # a pointer that points to nothing
POINTERS = ("segments", "blocks", "audio_ptr", "text_ptr", "target_ptr", "frame_ptr")


class RowPart(NamedTuple):
    """Consecutive tokens of a row that belong together.

    ids: the tokens. segment, block: of all of them. audio: the first of as many tokens of the sound, or -1. text,
    target, frame: the span, the sub-segment and the segment that they must match, or -1. kept: whether it must stay.
    whole: whether it stays or goes as a whole.
    """

    ids: Sequence[int]
    segment: int
    block: int
    audio: int = NOTHING
    text: int = NOTHING
    target: int = NOTHING
    frame: int = NOTHING
    kept: bool = False

    @property
    def whole(self) -> bool:
        """True where its tokens stay or go together: those of a sound do, and those that must stay."""
        return self.kept or self.audio != NOTHING


def fitted(parts: Sequence[RowPart], room: int, rng: np.random.Generator) -> list[RowPart]:
    """The parts shortened to at most `room` tokens together; those that must stay need no more.

    First the ends lose tokens, the farthest from all that must stay, of the longer end first; a sound goes as a whole.
    Where what is between is too long by itself, whole parts of it are drawn, as many as have room.
    """
    if sum(len(part.ids) for part in parts) <= room:
        return list(parts)
    held = [place for place, part in enumerate(parts) if part.kept]
    first, last = (held[0], held[-1] + 1) if held else (len(parts), len(parts))
    before, middle, behind = parts[:first], list(parts[first:last]), parts[last:]
    spare = room - sum(len(part.ids) for part in middle)
    if spare < 0:
        return _sampled(middle, room, rng)
    most_before, most_behind = (sum(len(part.ids) for part in end) for end in (before, behind))
    nearest = _end(behind, min(most_behind, max(spare - most_before, spare // 2)), front=True)
    spare -= sum(len(part.ids) for part in nearest)
    return [*_end(before[::-1], spare, front=False)[::-1], *middle, *nearest]


def _end(parts: Sequence[RowPart], room: int, front: bool) -> list[RowPart]:
    """The parts, from the nearest one on, as far as there is room; `front`: of the last one, its first tokens."""
    found = []
    for part in parts:
        if len(part.ids) > room:
            if not part.whole and room > 0:
                ids = part.ids[:room] if front else part.ids[len(part.ids) - room :]
                found.append(part._replace(ids=ids))
            break
        found.append(part)
        room -= len(part.ids)
    return found


def _sampled(parts: Sequence[RowPart], room: int, rng: np.random.Generator) -> list[RowPart]:
    room -= sum(len(part.ids) for part in parts if part.kept)
    chosen = set()
    for place in rng.permutation(len(parts)).tolist():
        part = parts[place]
        if not part.kept and len(part.ids) <= room:
            chosen.add(place)
            room -= len(part.ids)
    return [part for place, part in enumerate(parts) if part.kept or place in chosen]


def laid_out(rows: Sequence[Sequence[RowPart]], length: int, pad: int) -> dict[str, Int32[np.ndarray, "rows length"]]:
    """The arrays of rows of parts that fit in `length`: "" the ids, and one for each of `POINTERS`.

    Behind the parts the id is `pad`, the segment 0, and all else -1.
    """
    parts = [part for row in rows for part in row]
    lengths = np.asarray([len(part.ids) for part in parts], np.intp)
    ends = np.cumsum(lengths)
    counts = [sum(len(part.ids) for part in row) for row in rows]
    filled = np.arange(length) < np.asarray(counts)[:, None]
    found = {"": np.full((len(rows), length), pad, np.int32), "segments": np.zeros((len(rows), length), np.int32)}
    found |= {name: np.full((len(rows), length), NOTHING, np.int32) for name in POINTERS[1:]}
    if not parts:
        return found
    found[""][filled] = [id for part in parts for id in part.ids]
    told = np.asarray([part[1:7] for part in parts], np.int32)
    told = np.repeat(told, lengths, axis=0)
    within = np.arange(len(told), dtype=np.int32) - np.repeat(ends - lengths, lengths).astype(np.int32)
    told[:, 2] += np.where(told[:, 2] == NOTHING, 0, within)
    for column, name in enumerate(POINTERS):
        found[name][filled] = told[:, column]
    return found
