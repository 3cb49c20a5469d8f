"""Cuts a window of a video into sub-segments: a clip of the sound for each, and the words that are spoken in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import RecordTransform, Rng, Transform
from mmjax.data.transforms.document import Document
from mmjax.data.transforms.text import Prompt
from mmjax.errors import UserError

ROUNDED = 1e-6  # seconds by which a window may be too short for its sub-segments


class SubsegmentTimes(NamedTuple):
    """The places of a window's sub-segments in time.

    starts: their begins in seconds from the window's begin, `[segments * each]`. seconds: the length of one.
    segments: the number of segments, which all have as many sub-segments. sources: the number of the video that each
    segment comes from.
    """

    starts: Float[np.ndarray, " subsegments"]
    seconds: float
    segments: int
    sources: tuple[int, ...]

    @property
    def centres(self) -> Float[np.ndarray, " subsegments"]:
        """The middle of each sub-segment, in seconds."""
        return self.starts + self.seconds / 2


class SpokenWords(Document):
    """The words of a window, each in one sub-segment, on the way to `ReserveStreams`. The transforms before that clean
    each word, and the text that stands before all, by itself.

    words: in the order in which they are spoken. centres: the middle of each, in seconds. places: the sub-segment of
    each, which never falls. times: of the sub-segments. heard: whether there is a sound. before: a text of the whole
    video, its title say.
    """

    def __init__(
        self,
        words: Sequence[str],
        centres: Float[np.ndarray, " words"],
        places: Int[np.ndarray, " words"],
        times: SubsegmentTimes,
        heard: bool,
        before: str = "",
        cleaning: tuple[Transform, ...] = (),
    ):
        self._words, self._before, self._cleaning = words, before, cleaning
        self.centres, self.places, self.times, self.heard = centres, places, times, heard

    @property
    def words(self) -> list[str]:
        """The words, cleaned: "" where nothing is left of one."""
        if not self._cleaning:
            return list(self._words)
        return [self._cleaned(word).strip() if word.strip() else "" for word in self._words]

    @property
    def before(self) -> str:
        """The text before all words, cleaned; "" where there is none."""
        return self._cleaned(self._before) if self._before.strip() else ""

    @property
    def sentences(self) -> list[str]:
        """The texts that a tokenizer learns from: what stands before, and all words."""
        return [text for text in (self.before, " ".join(filter(None, self.words))) if text.strip()]

    def other(self, rng: np.random.Generator) -> Document:
        """Always raises UserError: the words belong to a video."""
        del rng
        raise UserError("the words of a video belong to no document, and have no other one beside them")

    def mapped(self, transform: Transform) -> "SpokenWords":
        """The words, each transformed as in evaluation, in their places. Raises UserError for a `Prompt`, which stands
        before a whole text.
        """
        if isinstance(transform, Prompt):
            raise UserError(f"{transform} before spoken words would stand in front of every one of them: leave it out")
        cleaning = (*self._cleaning, transform)
        return SpokenWords(self._words, self.centres, self.places, self.times, self.heard, self._before, cleaning)


@dataclass(frozen=True)
class CutSubsegments(RecordTransform):
    """Cuts a window of a video into `segments` of one length, and `each` sub-segments of `seconds` out of every one.

    It takes what `CutWindow` leaves: clips, with a begin and an end, in the columns `audio` and `video`, and in `words`
    a list of words with `text`, `start` and `end` in seconds from the window's begin. It gives in `audio` a list of
    `segments * each` clips, or None where there is no sound; and in `words` the words by sub-segment (`SpokenWords`),
    also where there are none, or None where there is neither a word nor a sound.

    The time that a segment's sub-segments leave over lies before, between and behind them: in training in shares of
    draws from [0, 1], in evaluation in equal shares. A word belongs to the sub-segment whose centre is nearest to its
    own (the earlier one of two), or to a later one that a word before it belongs to.

    before: the column with a text of the whole video, such as its title, for the stream of matching; a list of texts is
    joined. sources: the column that says which video each segment is from, `segments` numbers, where a window holds
    several; a record without it has one video.

    Raises `BadExample` for a window that is too short, or times that are no numbers; UserError where fields can't be,
    or there are no clips.
    """

    random = True

    segments: int = 16
    each: int = 3
    seconds: float = 1.6
    audio: str = "audio"
    words: str = "words"
    video: str = "video"
    before: str | None = None
    sources: str = "video_src"

    def __post_init__(self) -> None:
        for name in ("segments", "each"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"CutSubsegments({name}={value!r}): it is a whole number from 1 on")
        if not (isinstance(self.seconds, int | float) and 0 < self.seconds < math.inf):
            raise UserError(f"CutSubsegments(seconds={self.seconds!r}): a sub-segment lasts more than 0 seconds")

    def __call__(self, record: dict[str, Any], rng: Rng) -> dict[str, Any]:
        sound, given = record.get(self.audio), record.get(self.words) or ()
        unread = given if isinstance(given, BadExample) else None  # subtitles that are broken leave the sound
        spoken: Sequence[Any] = () if isinstance(given, BadExample) else given
        clip = sound if sound is not None else record.get(self.video)
        if clip is None or (sound is None and not spoken):
            return {**record, self.audio: None, self.words: None}
        times = SubsegmentTimes(self._starts(self._length(clip), rng), self.seconds, self.segments, self._from(record))
        centres = _centres(spoken)
        places = in_order(centres, times.centres)
        before = record.get(self.before) if self.before is not None else None
        text = " ".join(map(str, before)) if isinstance(before, list | tuple) else str(before or "")
        words = SpokenWords([word.text for word in spoken], centres, places, times, sound is not None, text)
        clips = None if sound is None else self._clips(sound, times)
        return {**record, self.audio: clips, self.words: words if unread is None else unread}

    def columns(self, before: tuple[str, ...]) -> tuple[str, ...]:
        return (*before, self.words) if self.words not in before and self.audio in before else before

    def _length(self, clip: Any) -> float:
        """The seconds of a segment."""
        start, end = getattr(clip, "start", None), getattr(clip, "end", None)
        if start is None or end is None:
            raise UserError(
                f"CutSubsegments found {clip!r:.60}, and cuts clips with a begin and an end: put "
                "CutWindow(seconds=...) before it"
            )
        if not (length := (end - start) / self.segments) >= self.each * self.seconds - ROUNDED:
            raise BadExample(
                f"the window lasts {end - start:.4g} s, and {self.segments} segments of {self.each} times "
                f"{self.seconds:g} s last {self.segments * self.each * self.seconds:.4g} s",
                "unfit",
            )
        return length

    def _starts(self, length: float, rng: Rng) -> Float[np.ndarray, " subsegments"]:
        """The begin of each sub-segment, for segments of `length` seconds."""
        shares = np.ones((self.segments, self.each + 1)) if rng is None else rng.random((self.segments, self.each + 1))
        shares += np.finfo(float).tiny  # not all of them are 0
        gaps = np.cumsum(shares / shares.sum(1, keepdims=True), axis=1)[:, :-1]
        spare = max(length - self.each * self.seconds, 0.0)
        starts = np.arange(self.segments)[:, None] * length + gaps * spare + np.arange(self.each) * self.seconds
        return starts.reshape(-1)

    def _clips(self, sound: Any, times: SubsegmentTimes) -> list[Any]:
        begins = (sound.start + times.starts).tolist()
        return [replace(sound, start=begin, end=begin + self.seconds) for begin in begins]

    def _from(self, record: dict[str, Any]) -> tuple[int, ...]:
        """The number of the video that each segment is from."""
        given = record.get(self.sources)
        if given is None:
            return (0,) * self.segments
        numbers = np.asarray(given)
        if numbers.shape != (self.segments,) or numbers.dtype.kind not in "iu":
            raise BadExample(
                f"{self.sources!r} is {given!r:.60}, and says the number of each of {self.segments} segments' video",
                "unfit",
            )
        return tuple(numbers.tolist())


def in_order(
    centres: Float[np.ndarray, " words"], middles: Float[np.ndarray, " subsegments"]
) -> Int[np.ndarray, " words"]:
    """The place of the nearest of `middles`, which rise, for each of `centres`, or that of a word before it where it
    is later; of two that are as near, the earlier one.
    """
    after = np.searchsorted(middles, centres).clip(1, max(len(middles) - 1, 1))
    near = np.minimum(after, len(middles) - 1)
    nearest = np.where(centres - middles[after - 1] <= middles[near] - centres, after - 1, near)
    return np.maximum.accumulate(nearest)


def _centres(words: Sequence[Any]) -> Float[np.ndarray, " words"]:
    times = np.asarray([(word.start, word.end) for word in words], float).reshape(-1, 2)
    if not np.isfinite(times).all():
        raise BadExample("a word's begin or end is no finite number of seconds", "not_finite")
    return times.mean(1)
