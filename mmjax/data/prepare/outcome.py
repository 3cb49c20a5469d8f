"""The outcome of a video: how much of it was prepared, and what was left out, and why."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from mmjax.data.bad_example import BadExample

Part = Literal["video", "frames", "sound", "words"]
COUNTS = ("segments", "frames", "sounds", "words", "words_outside", "words_skipped")


class LeftOut(NamedTuple):
    """A part of a video that was left out, from `start` to `end` in seconds: all of it, the segments whose frames can't
    be decoded, or of segments that are there the sound, or the words.
    """

    video: str
    part: Part
    start: float | None
    end: float | None
    kind: str
    reason: str


class Outcome:
    """Counts of a video, by the names in `COUNTS`, and what was left out. seconds: how long it lasts."""

    def __init__(self, video: str):
        self.video, self.seconds = video, 0.0
        self.counts = dict.fromkeys(COUNTS, 0)
        self.left_out: list[LeftOut] = []

    def leave_out(self, part: Part, reason: BadExample, start: float | None = None, end: float | None = None) -> None:
        """Notes a part; one that begins where the last one of its kind ends lengthens that."""
        last = next((one for one in reversed(self.left_out) if one.part == part), None)
        if last is not None and start is not None and last.end == start:
            self.left_out[self.left_out.index(last)] = last._replace(end=end)
        else:
            self.left_out.append(LeftOut(self.video, part, start, end, reason.kind, reason.reason))

    def lines(self) -> list[dict[str, Any]]:
        """The parts that were left out, as JSON has them."""
        return [one._asdict() for one in self.left_out]


def added_counts(counts: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    """The sum of two counts."""
    return {name: counts[name] + others[name] for name in COUNTS}
