"""Indexes of text files by line: where each line begins, kept as the indexes of tars are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mmjax.data.index_files import index_path, load_arrays, save_arrays
from mmjax.data.ranged_files import FileState, file_state
from mmjax.errors import UserError

FORMAT = 1
_PIECE = 2**24  # bytes that are searched at once


class LineIndex(NamedTuple):
    """The lines of a file that aren't empty: where each begins, and how many bytes it has without its end."""

    state: FileState
    starts: Int[np.ndarray, " n"]
    sizes: Int[np.ndarray, " n"]


def index_lines(path: str) -> LineIndex:
    """Finds a file's lines, which end by a line feed, perhaps with a carriage return before it.

    Raises UserError where it can't be read, is compressed, or is no UTF-8 by its first bytes (UTF-16 has a mark there).
    """
    state, feeds, at, last = file_state(path), [], 0, b"\n"
    try:
        with open(path, "rb") as file:
            begin = file.read(4)
            if begin[:2] in (b"\xff\xfe", b"\xfe\xff") or begin[:2] == b"\x1f\x8b" or begin == b"\x28\xb5\x2f\xfd":
                kind = "in UTF-16" if begin[0] in (0xFE, 0xFF) else "compressed"
                raise UserError(f"{path} is {kind}: write it as plain UTF-8, of which lines are found and read")
            file.seek(0)
            while piece := file.read(_PIECE):
                feeds.append(np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n")) + at)
                at, last = at + len(piece), piece
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    ends = np.concatenate([*feeds, [at] if last[-1:] != b"\n" else []]).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)]
    mark = 3 if begin[:3] == b"\xef\xbb\xbf" else 0
    starts[:1] += mark
    sizes = ends - starts
    kept = sizes > 1  # of one byte is a carriage return, or a digit, which is no object
    return LineIndex(state, starts[kept], sizes[kept])


def indexes_of(paths: Sequence[str], beside: bool) -> list[LineIndex]:
    """The indexes of files, those that are kept and up to date, or made now and kept. Raises as `index_lines` does."""
    found = []
    for path in paths:
        kept, state = index_path(path, beside), file_state(path)
        if (held := load_arrays(kept, FORMAT, state)) is not None and {"starts", "sizes"} <= held[1].keys():
            found.append(LineIndex(state, held[1]["starts"], held[1]["sizes"]))
            continue
        made = index_lines(path)
        save_arrays(kept, {"format": FORMAT, "state": list(made.state)}, {"starts": made.starts, "sizes": made.sizes})
        found.append(made)
    return found
