"""Relative positions of the tokens of one input or of several: a learned number for each head and distance, added to
the attention's logits (Shaw et al. 2018, arXiv:1803.02155; as BEiT and VLMo have them: Bao et al. 2021,
arXiv:2106.08254, arXiv:2111.02358)."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from mmjax.errors import UserError

Extents = Mapping[str, tuple[int, ...]]  # of each way: (rows, columns) of a grid, or (length,) of a sequence


def check_extents(extents: Extents, ways: tuple[str, ...]) -> None:
    """Raises UserError where one of the ways has no extent, or an extent is no grid's and no sequence's."""
    if missing := [way for way in ways if way not in extents]:
        raise UserError(f"relative={dict(extents)} has no extent of the ways {missing}: it needs one of each way")
    if unknown := [way for way in extents if way not in ways]:
        raise UserError(f"relative has extents of {unknown}, which are no ways; there are {', '.join(ways)}")
    for way, extent in extents.items():
        if len(extent) not in (1, 2) or min(extent) < 1:
            raise UserError(
                f"relative: the extent {extent} of {way!r} must be (rows, columns) of a grid or (length,) of a sequence"
            )


def distance_count(extents: Extents) -> int:
    """The number of distances: (2 R - 1)(2 C - 1) + 3 of a grid of R x C, the last ones from and to a CLS; 2 L - 1 of a
    sequence; and one from each way to each other."""
    return sum(map(_own, extents.values())) + len(extents) * (len(extents) - 1)


def distances(extents: Extents, ways: tuple[tuple[str, int], ...]) -> Int[np.ndarray, "n n"]:
    """The number of the distance from each token (row) to each (column), of `ways` one after the other.

    ways: each with the number of its tokens: of a grid all patches, perhaps after a CLS; of a sequence up to its
    length.

    Raises:
        UserError: a way has another number of tokens than its extent allows.
    """
    starts = dict(zip(extents, np.cumsum([0, *map(_own, extents.values())]).tolist(), strict=False))
    names = list(extents)
    between = sum(map(_own, extents.values()))
    rows = []
    for name, length in ways:
        row = []
        for other, other_length in ways:
            if other == name:
                row.append(starts[name] + _within(name, extents[name], length))
                continue
            place = names.index(name) * (len(names) - 1) + names.index(other) - (names.index(other) > names.index(name))
            row.append(np.full((length, other_length), between + place))
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows).astype(np.int32)


def _own(extent: tuple[int, ...]) -> int:
    """The number of distances within a way."""
    spans = math.prod(2 * size - 1 for size in extent)
    return spans + 3 if len(extent) == 2 else spans


def _within(name: str, extent: tuple[int, ...], length: int) -> Int[np.ndarray, "n n"]:
    cells = math.prod(extent)
    cls = len(extent) == 2 and length == cells + 1
    if length > cells + cls or (len(extent) == 2 and length < cells):
        allowed = f"{cells} or, with a CLS, {cells + 1}" if len(extent) == 2 else f"up to {cells}"
        raise UserError(f"relative positions of {name!r} are of {extent}, {allowed} tokens, and it has {length}")
    places = np.indices(extent).reshape(len(extent), -1)[:, : length - cls]
    steps = places[:, None, :] - places[:, :, None] + (np.array(extent) - 1)[:, None, None]
    found = np.asarray(np.ravel_multi_index(tuple(steps), tuple(2 * size - 1 for size in extent)))
    if not cls:
        return found
    spans = math.prod(2 * size - 1 for size in extent)
    whole = np.empty((length, length), found.dtype)
    whole[1:, 1:], whole[0, 1:], whole[1:, 0], whole[0, 0] = found, spans, spans + 1, spans + 2
    return whole
