"""Cuts a video into segments, one after the other: its frames, its sound and its words."""

import io
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import soundfile

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.subtitles import TimedWord, timed_words
from mmjax.data.decoding.video_sound import sound_between
from mmjax.data.decoding.videos import VideoContent, VideoFacts, video_facts
from mmjax.data.paths import File
from mmjax.data.prepare.listing import ListedVideo
from mmjax.data.prepare.outcome import Outcome
from mmjax.data.prepare.pictures import jpegs_in_turn, last_seconds
from mmjax.data.prepare.settings import PrepareSettings
from mmjax.data.segment_records import Segment

PATIENCE = 60.0  # seconds of a video, of which nothing can be decoded, after which the rest is given up
OPENINGS = 720  # of a video's file, for its sound: one for each segment of 5 seconds of an hour
_ROUNDED = 1e-6  # seconds by which a video's last segment may be too short and still be whole


class SegmentSpan(NamedTuple):
    """A segment's place in the video, in seconds, and the times of its frames."""

    number: int
    start: float
    end: float
    times: tuple[float, ...]


def segment_spans(whole: float, settings: PrepareSettings) -> Iterator[SegmentSpan]:
    """The segments of a video that lasts `whole` seconds.

    They have one length, but the last one has what is left: if a frame's time is in that. A video in which there is
    none at all is one segment, whose frame is in its middle.
    """
    full = math.floor((whole + _ROUNDED) / settings.seconds)
    for number in range(full + 1):
        start = float(number * settings.seconds)
        end = start + settings.seconds if number < full else whole
        times = tuple((number * settings.frames + each + 0.5) / settings.rate for each in range(settings.frames))
        times = times if number < full else tuple(time for time in times if time < whole)
        if not times and not full:
            times = (whole / 2,)
        if times:
            yield SegmentSpan(number, start, end, times)


def cut_video(video: ListedVideo, settings: PrepareSettings, outcome: Outcome) -> Iterator[Segment]:
    """Gives the segments of a video that can be decoded, and notes in `outcome` what can't: it raises nothing for a
    file that is broken. One segment at a time is held.
    """
    try:
        content = video.video.unread()
        facts = video_facts(content)
        whole = facts.seconds if facts.seconds is not None else last_seconds(content)
    except BadExample as reason:
        outcome.leave_out("video", reason)
        return
    outcome.seconds = whole
    words = _Words(video, settings.seconds, outcome)
    sound = _Sound(content, facts, whole, settings, outcome)
    side = settings.short_side
    side = side if side is not None and side < min(facts.width, facts.height) else None
    spans = segment_spans(whole, settings)
    pictures = jpegs_in_turn(content, (span.times for span in segment_spans(whole, settings)), side, settings.quality)
    since: float | None = None  # the begin of what can't be decoded
    try:
        for span, found in zip(spans, pictures, strict=True):
            if isinstance(found, BadExample):
                since = span.start if since is None else since
                if span.end - since >= PATIENCE:
                    outcome.leave_out("frames", found, span.start, whole)
                    break
                outcome.leave_out("frames", found, span.start, span.end)
                continue
            since = None
            frames = [jpeg for _, jpeg in found]
            times = [time for time, _ in found]
            audio, said = sound.of(span), words.of(span)
            outcome.counts["segments"] += 1
            outcome.counts["frames"] += len(frames)
            outcome.counts["sounds"] += audio is not None
            yield Segment(
                video.id, span.number, span.start, span.end, times, frames, audio, said, video.split, video.columns
            )
    except BadExample as reason:  # the file is gone, or can't be opened a second time
        outcome.leave_out("video", reason)
    outcome.counts["words_outside"] += words.left


class _Sound:
    """The sound of a video, as FLAC. Where a minute of it is broken, no more of it is tried.

    Each segment is read as training would read it from the video, sample for sample. Of more than `OPENINGS` segments
    several are read at once, since opening a long file takes long: these begin where they should to half a sample.
    """

    def __init__(self, content: VideoContent, facts: VideoFacts, whole: float, settings: PrepareSettings, out: Outcome):
        self._content, self._rate, self._outcome = content, settings.sound_rate, out
        self._there, self._broken, self._whole = bool(facts.sounds) and self._rate is not None, 0.0, whole
        self._together = math.ceil(whole / settings.seconds / OPENINGS)
        self._seconds = settings.seconds * self._together  # of a stretch that is read at once
        self._stretch, self._held = -1, np.zeros(0, np.int16)

    def of(self, span: SegmentSpan) -> bytes | None:
        """The sound of a segment; None where there is none, or a broken one."""
        if not self._there or self._rate is None:
            return None
        try:
            samples = self._samples(span, self._rate)
        except BadExample as reason:
            self._broken += span.end - span.start
            self._there = self._broken < PATIENCE
            self._outcome.leave_out("sound", reason, span.start, span.end if self._there else self._whole)
            return None
        self._broken = 0.0
        file = io.BytesIO()
        soundfile.write(file, samples, self._rate, format="FLAC", subtype="PCM_16")
        return file.getvalue()

    def _samples(self, span: SegmentSpan, rate: int) -> np.ndarray:
        stretch = span.number // self._together
        if self._together > 1 and stretch != self._stretch:
            self._stretch = stretch
            try:
                begin, end = stretch * self._seconds, min((stretch + 1) * self._seconds, self._whole)
                self._held = sound_between(self._content, begin, end, rate)
            except BadExample:  # of one of its segments, say
                self._held = np.zeros(0, np.int16)
        if not len(self._held):
            return sound_between(self._content, span.start, span.end, rate)
        place, count = (round(time * rate) for time in (span.start - stretch * self._seconds, span.end - span.start))
        part = self._held[place : place + count]
        return np.pad(part, (0, count - len(part)))


class _Words:
    """The words of a video by the segments that their middles lie in. left: the number of words that no segment had."""

    def __init__(self, video: ListedVideo, seconds: float, outcome: Outcome):
        self._seconds, self._outcome = seconds, outcome
        self._near: dict[int, list[tuple[int, TimedWord]]] | None = None
        self.left = 0
        if video.words is None:
            return
        try:
            read = timed_words(video.words.read() if isinstance(video.words, File) else video.words)
        except BadExample as reason:
            outcome.leave_out("words", reason)
            return
        outcome.counts["words_skipped"] += read.skipped
        self._near = defaultdict(list)
        for place, word in enumerate(read.words):
            self._near[math.floor((word.start + word.end) / 2 / seconds)].append((place, word))
        self.left = len(read.words)

    def of(self, span: SegmentSpan) -> Sequence[TimedWord] | None:
        """The words of a segment, not cut off at its ends; None where the video has no words that can be read."""
        if self._near is None:
            return None
        near = sorted(each for number in (-1, 0, 1) for each in self._near.get(span.number + number, ()))
        found = [word for _, word in near if span.start <= (word.start + word.end) / 2 < span.end]
        self.left -= len(found)
        self._outcome.counts["words"] += len(found)
        return found
