"""Windows of a video as they come to the cut, with words whose pieces are known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.transforms.reserve.streams import ReserveStreams
from mmjax.data.transforms.reserve.subsegments import CutSubsegments, SpokenWords
from mmjax.data.transforms.values import Labelled, Masked

SHIFT = 10


@dataclass(frozen=True)
class Clip:
    """A part of a file, with the fields that the cut reads."""

    content: bytes
    start: float
    end: float | None


class Word(NamedTuple):
    text: str
    start: float
    end: float


class Numerals(Tokenizer):
    """Cuts "3.17" into the pieces 3 and 17."""

    SUFFIX = ".numerals"

    def __init__(self, model: bytes = b""):
        self.model, self.vocab_size, self.pad, self.bos, self.eos = model, 100_000, None, None, None

    def encode(self, text: str) -> list[int]:
        return [int(piece) for word in text.split() for piece in word.split(".")]

    def decode(self, ids: Iterable[int]) -> str:
        return ".".join(map(str, ids))


def numbered(lengths: Sequence[int], times: Sequence[float], lasting: float = 0.2) -> list[Word]:
    """Words of so many pieces, all of which are different: 0, 1, 2, ... in order; spoken round these times."""
    ends = np.cumsum([0, *lengths])
    return [
        Word(".".join(str(piece) for piece in range(ends[i], ends[i + 1])), time - lasting / 2, time + lasting / 2)
        for i, time in enumerate(times)
    ]


def window(words, seconds: float, sound: bool = True, **more) -> dict:
    video = Clip(b"film", 7.0, 7.0 + seconds)
    return {"id": "a", "video": video, "audio": video if sound else None, "words": words, **more}


def cut(record: dict, rng=None, segments: int = 4, each: int = 3, **fields) -> SpokenWords:
    return CutSubsegments(segments=segments, each=each, **fields)(record, rng)["words"]


def streams(segments: int = 4, groups: int = 1, **fields) -> ReserveStreams:
    """The step with so much room that nothing is left out, if nothing else is said."""
    defaults = {"length": 2000, "matching_length": 2000, "span_length": 300}
    return ReserveStreams(Numerals(), segments=segments, groups=groups, **{**defaults, **fields})


def masked(found: Labelled) -> Masked:
    """The array and mask of a step's result."""
    assert isinstance(found.value, Masked)
    return found.value


@st.composite
def spoken(draw, most: int = 40, seconds: float = 20.0) -> list[Word]:
    """Words in the order of time, also several at one time, none, or all in a corner of the window."""
    begin, length = draw(st.sampled_from([(0.0, seconds), (0.0, 0.3 * seconds), (0.7 * seconds, 0.1)]))
    times = sorted(draw(st.lists(st.floats(0, 1, width=32), max_size=most)))
    lengths = draw(st.lists(st.integers(1, 3), min_size=len(times), max_size=len(times)))
    return numbered(lengths, [begin + length * time for time in times])
