"""Cuts a stretch out of a video's sound, by the clock of its pictures, to one sample."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import soxr

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.loudness import Waveform, in_scale, to_int16
from mmjax.data.decoding.signatures import in_words
from mmjax.data.decoding.videos import VideoContent, VideoFile, open_video
from mmjax.errors import UserError

MOST_SAMPLES = 100_000_000
_SETTLING = 0.5  # seconds that are decoded before: an MP3's frames borrow bits of ten, Opus needs 0.08 s (RFC 7845)
_AROUND = 0.1  # seconds on both sides that the resampler's filter reaches into
_JITTER = 0.01  # seconds by which a frame's time may differ from where the one before it ends, without a gap
_SLACK = 1.0  # seconds by which a track may end before its headers say


class Piece(NamedTuple):
    """A frame of sound. place: its first sample's time by the video's clock, in samples of the track's rate, a real
    number; samples: [T, channels] as decoded; error: why they couldn't be decoded and are 0.
    """

    place: float
    samples: np.ndarray
    error: str = ""


def sound_between(
    content: VideoContent,
    start: float,
    end: float,
    rate: int,
    *,
    track: int = 0,
    most_samples: int = MOST_SAMPLES,
) -> Waveform:
    """Decodes the sound of a video from `start` to `end`, as the mean of its channels at `rate`, in int16.

    Sample 0 is at `start`, to half a sample at `rate` as far as the container's own times are so exact; a codec's
    delay is accounted for where the container tells it. There is silence where the track has nothing. At the track's
    own rate int16 is unchanged; otherwise it is resampled as files of sound are (`sounds`).

    Args:
        content: a file's bytes, or the path of a local file.
        start, end: in seconds by the video's clock, which starts with its pictures (`videos`).
        rate: in Hz, of the result.
        track: number of the track of sound, from 0 on.
        most_samples: so many samples may be between `start` and `end`, at the track's rate and at `rate`.

    Returns:
        int16 [round((end - start) * rate)].

    Raises:
        BadExample: the video has no sound ("empty") or not that track ("unfit"), the stretch is too long ("too_large"),
            or the sound is broken or cut off there, or no video ("undecodable", "empty"; "not_finite").
        UserError: `end` is before `start`, one isn't finite, `rate` or `track` is out of range, or PyAV is missing.
    """
    if not (math.isfinite(start) and math.isfinite(end) and start <= end):
        raise UserError(f"start={start!r}, end={end!r}: give two finite times in seconds, the earlier one first")
    if rate < 1 or track < 0:
        raise UserError(f"rate={rate}, track={track}: a rate is at least 1 Hz, and tracks are counted from 0")
    length = round((end - start) * rate)
    with open_video(content) as video:
        stream = _track(video, track)
        video.only(stream)
        return _between(video, stream, (start, end), rate, length, most_samples)


def _track(video: VideoFile, track: int) -> Any:
    sounds = video.sounds
    if not sounds:
        raise BadExample("the video has no sound", "empty")
    if track >= len(sounds):
        count = f"{len(sounds)} tracks" if len(sounds) > 1 else "one track"
        raise BadExample(f"track={track} isn't there: the video has {count} of sound, counted from 0", "unfit")
    return sounds[track]


def _between(
    video: VideoFile, stream: Any, span: tuple[float, float], rate: int, length: int, most_samples: int
) -> Waveform:
    start, end = span
    reader = _Reader(video, stream)
    own = reader.rate
    if max(length, math.ceil((end - start) * own)) > most_samples:
        raise BadExample(
            f"the sound from {start:g} to {end:g} s has more than most_samples={most_samples:,} samples, at {rate} or "
            f"at {own} Hz",
            "too_large",
        )
    pieces = reader.pieces(start - _AROUND, end + _AROUND)
    placed = _placed(pieces, reader)
    # The first run's places are on the grid of the samples; later ones are moved to it, by half a sample at most.
    shift = placed[0][0] % 1.0 if placed else 0.0
    first = math.floor((start - _AROUND) * own)
    samples = np.zeros(math.ceil((end + _AROUND) * own) - first + 1, np.float32)
    for place, part in placed:
        begin = round(place - shift) - first
        low, high = max(begin, 0), min(begin + len(part), len(samples))
        if low < high:
            samples[low:high] = part[low - begin : high - begin]
    begin = round((start - (first + shift) / own) * rate)
    if own != rate:
        found = to_int16(soxr.resample(samples, own, rate))
    elif all(piece.samples.dtype == np.int16 for piece in pieces):
        found = (samples * 2**15).astype(np.int16)
    else:
        found = to_int16(samples)
    return np.ascontiguousarray(found[begin : begin + length])


class _Reader:
    """Reads a track's frames. rate: the track's own, in Hz. coarse: samples in a tick of its times. anchor: the places
    where its first frame begins and ends, which containers with coarse times have exactly, too.
    """

    def __init__(self, video: VideoFile, stream: Any):
        self._video = video
        self._stream: Any = stream
        self.rate, self.coarse = 0, 0.0
        self._tick, self._zero = stream.time_base, video.delay  # fractions, of seconds
        self._frames = self._decoded(None)
        first = next((piece for piece in self._frames if not piece.error), None)
        if first is None:
            raise BadExample("the video's track of sound holds no frame that can be decoded", "empty")
        self._first = first
        self.anchor = (first.place, first.place + len(first.samples))
        self.coarse = float(stream.time_base * self.rate)  # samples a tick

    def pieces(self, low: float, high: float) -> list[Piece]:
        """The frames that have something between two times, in seconds of the video's clock, in order.

        Raises:
            BadExample: one of them is broken, or the track ends before its headers say.
        """
        needed = low - _SETTLING
        near = needed * self.rate <= self.anchor[1] + self.rate  # a second on at most
        frames = self._again() if near else self._sought(needed)
        found, last = [], -math.inf
        for piece in frames:
            last = (piece.place + len(piece.samples)) / self.rate
            if last > low and piece.place < high * self.rate:
                if piece.error:
                    where = f"at {piece.place / self.rate:g} s"
                    raise BadExample(f"the video's sound is broken {where}: {piece.error}", "undecodable")
                found.append(piece)
            if piece.place >= high * self.rate:
                break
        else:
            self._check_end(low, high, last)
        return found

    def _again(self) -> Iterator[Piece]:
        yield self._first
        yield from self._frames

    def _check_end(self, low: float, high: float, last: float) -> None:
        told = self._video.told_end(self._stream)
        if told is not None and min(float(told), high - _AROUND) > last + _SLACK and float(told) > low + _AROUND:
            raise BadExample(
                f"the video's sound is cut off: it ends at {max(last, 0):g} s, but its headers tell of "
                f"{float(told):g} s",
                "undecodable",
            )

    def _sought(self, needed: float) -> Iterator[Piece]:
        """The frames from a time on, or from before it."""
        from av.error import FFmpegError

        # MP4 has an index for each track; Matroska's and others' is the pictures'.
        by: Any = self._stream if self._video.container.format.name.startswith("mov") else self._video.pictures
        goal, step = Fraction(needed) + self._video.delay, Fraction(1, 2)
        while goal > self._video.delay + Fraction(self.anchor[0]) / self.rate:
            try:
                self._video.container.seek(math.floor(goal / by.time_base), stream=by)
            except FFmpegError:
                break
            packets = self._video.container.demux(self._stream)
            packet = next(packets, None)
            if packet is not None and packet.pts is not None and self._place(packet.pts) <= needed * self.rate:
                return self._decoded(needed, packets)
            goal, step = goal - step, 2 * step
        index = self._stream.index
        self._video.rewind()
        self._stream = next(one for one in self._video.sounds if one.index == index)
        self._video.only(self._stream)
        return self._decoded(needed)

    def _decoded(self, needed: float | None, packets: Iterator[Any] | None = None) -> Iterator[Piece]:
        """Decodes packets, but those that end before a time in seconds of the video's clock."""
        from av.error import FFmpegError

        context = self._stream.codec_context
        for packet in packets or self._video.container.demux(self._stream):
            if needed is not None and packet.pts is not None and self._end(packet) < needed * self.rate:
                continue
            try:
                frames = context.decode(packet)
                error = "a packet is cut off" if packet.size and packet.is_corrupt else ""
            except FFmpegError as raised:
                frames, error = [], in_words(raised.strerror)
            if error and packet.pts is not None:
                lost = np.zeros((max(self._lasting(packet), 1), 1), np.float32)
                yield Piece(self._place(packet.pts), lost, error)
                continue
            for frame in frames:
                if frame.pts is not None and frame.samples:
                    yield self._piece(frame)

    def _piece(self, frame: Any) -> Piece:
        if self.rate not in (0, frame.sample_rate):
            raise BadExample(
                f"the video's sound changes its rate from {self.rate} to {frame.sample_rate} Hz", "undecodable"
            )
        self.rate = frame.sample_rate
        samples = frame.to_ndarray()
        samples = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
        return Piece(self._place(frame.pts), samples)

    def _end(self, packet: Any) -> float:
        return self._place(packet.pts) + self._lasting(packet)

    def _lasting(self, packet: Any) -> int:
        """The length of a packet, in samples."""
        return round((packet.duration or 0) * self._tick.numerator * self.rate / self._tick.denominator)

    def _place(self, pts: int) -> float:
        """A time of the track, in samples by the video's clock. In whole numbers, which are divided once: fractions
        take longer than the decoder.
        """
        tick, zero = self._tick, self._zero
        ticks = pts * tick.numerator * zero.denominator - zero.numerator * tick.denominator
        return ticks * self.rate / (tick.denominator * zero.denominator)


def _placed(pieces: list[Piece], reader: _Reader) -> list[tuple[float, np.ndarray]]:
    """Joins frames that follow each other to runs; each with the place of its first sample, and its samples."""
    runs: list[list[Piece]] = []
    expected = math.inf
    for piece in pieces:
        if abs(piece.place - expected) > _JITTER * reader.rate + 2 * reader.coarse:
            runs.append([])
            expected = piece.place
        runs[-1].append(piece)
        expected += len(piece.samples)
    return [(_place_of(run, reader), _floats([piece.samples for piece in run])) for run in runs]


def _place_of(run: list[Piece], reader: _Reader) -> float:
    """The place of a run's first sample, by the times of all its frames.

    Coarse ticks (Matroska's are milliseconds) are rounded times: then the place is a whole number of frames behind the
    track's first one, where such a one fits.
    """
    before = np.cumsum([0] + [len(piece.samples) for piece in run[:-1]])
    places = np.array([piece.place for piece in run]) - before
    middle = float(places.min() + places.max()) / 2
    size = len(run[0].samples)
    exact = reader.anchor[1] + size * round((middle - reader.anchor[1]) / size)
    return exact if reader.coarse > 1 and abs(exact - middle) <= reader.coarse else middle


def _floats(parts: list[np.ndarray]) -> np.ndarray:
    """The samples [T] of frames as floats with full scale 1.0, the mean of their channels."""
    if len({(part.dtype, part.shape[1]) for part in parts}) > 1:  # a track whose layout changes
        return np.concatenate([_floats([part]) for part in parts])
    samples = np.concatenate(parts)
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
    return in_scale(samples.mean(axis=1, dtype=np.float32))
