"""Walks through a video's frames in the order in which they are shown, and jumps to keyframes to save decoding.

A frame is the same however it was reached. After a jump decoding begins with a keyframe that is shown no later than the
time asked for; what precedes it on the screen and follows in the file (an open group of pictures) lacks its references,
and is left out. Where a container lands elsewhere, an earlier keyframe is sought, in the end the file's first.
A program stream has times for some frames only, and others are counted from there: it is read on without decoding.
"""

import itertools
import math
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.videos import VideoFile

# Seconds by which an asked time may lie before the first frame or behind the last: a container lasts as long as its
# longest track, and sounds end a little later than pictures.
SLACK = 1.0
_FAR = 2.0  # seconds from which on a jump is tried where no index tells of a keyframe: usual distances of keyframes
_REORDERED = 0.2  # seconds by which a keyframe is shown later than decoded, at most: its index has the latter


_END = object()


class Shown(NamedTuple):
    """A decoded frame. time: in seconds of the video's clock; pts: the same in ticks of the file; frame: PyAV's."""

    time: float
    pts: int
    frame: Any


class Walk:
    """Finds the frames nearest to times that never decrease."""

    def __init__(self, video: VideoFile):
        self._video = video
        self._by_dts = video.container.format.name == "avi"  # which has no times of presentation, but guesses
        self._by_reading = video.container.format.name == "mpeg"
        self._end = video.told_end(video.pictures)
        self._jumped = False
        self._begin()

    def nearest(self, time: float) -> Shown:
        """The frame whose time is nearest, the earlier of two that are equally near.

        Raises:
            BadExample: it is lost, since the file is broken there or cut off; or the time lies more than `SLACK` before
                the first frame or behind the last one's end ("unfit").
        """
        if (self._latest is None or self._latest.time < time) and self._should_jump(time):
            self._jump(time)
        while (self._latest is None or self._latest.time < time) and (found := self._next()) is not None:
            self._before, self._latest = self._latest, found
        if self._latest is None:
            self._check_lost(time, math.inf)
            raise BadExample("the video holds no frame that can be decoded", "empty")
        best = self._latest
        if self._before is not None and time - self._before.time <= abs(best.time - time):
            best = self._before
        self._check_lost(time, abs(best.time - time))
        if self._latest.time < time:
            self._check_end(time, self._latest)
        elif self._before is None and best.time > time + SLACK:
            raise BadExample(
                f"the video has no frame at {time:g} s: its first that can be decoded is at {best.time:g} s", "unfit"
            )
        return best

    def _check_lost(self, time: float, distance: float) -> None:
        for pts in self._lost:
            if abs(self._seconds(pts) - time) <= distance:
                raise BadExample(
                    f"the video is broken at {self._seconds(pts):g} s, by the frame that is nearest to {time:g} s",
                    "undecodable",
                )

    def _check_end(self, time: float, last: Shown) -> None:
        """Raises where nothing is shown at a time after the last frame."""
        base = self._video.pictures.time_base
        lasts = float((last.frame.duration or 0) * base) or (last.time - self._before.time if self._before else 0.0)
        end = last.time + lasts
        short = self._end is not None and float(self._end) > end + SLACK
        if time <= end or (time <= end + SLACK and not (self._cut or short)):
            return
        told = f", though its headers tell of {float(self._end):g} s" if short and self._end is not None else ""
        raise BadExample(
            f"the video has no frame at {time:g} s: its last that can be decoded is at {last.time:g} s{told}",
            "undecodable" if self._cut or short else "unfit",
        )

    def _seconds(self, pts: int) -> float:
        base = self._video.pictures.time_base
        return (pts - self._video.zero) * base.numerator / base.denominator

    def _ticks(self, seconds: float) -> int:
        return self._video.zero + math.floor(seconds / self._video.pictures.time_base)

    def _begin(self, packets: Iterator[Any] | None = None) -> None:
        """Starts with these packets, or where the file stands: at its beginning, or where a jump has landed."""
        self._before: Shown | None = None
        self._latest: Shown | None = None
        self._cut = False  # whether reading ended with an error
        self._packets = self._read() if packets is None else packets
        self._ready: deque[Shown] = deque()
        self._since: list[int] = []  # the times of the packets from the last keyframe on, as they are decoded
        self._lost: set[int] = set()  # the times of frames that are broken, or refer to one that is
        self._broken = False  # whether the packets up to the next keyframe are lost
        self._key: int | None = None  # the time of the first keyframe
        self._fed: int | None = None  # the time of the packet decoded last, in the order of decoding
        self._last: int | None = None  # the time of the frame shown last

    def _read(self) -> Iterator[Any]:
        """The file's packets, and last one that makes the decoder give what it still holds."""
        from av.error import FFmpegError

        try:
            yield from self._video.container.demux(self._video.pictures)
        except FFmpegError:  # the file ends within a packet, or before its index says
            self._cut = True
            yield None

    def _should_jump(self, time: float) -> bool:
        """Whether a keyframe lies between here and there, by the container's index, or by guess where it has none."""
        here = self._latest.time if self._latest is not None else 0.0
        if self._by_reading or time - here <= _REORDERED:
            return self._by_reading and time - here > _REORDERED
        index, goal = self._video.pictures.index_entries, self._ticks(time - _REORDERED)
        found = index.search_timestamp(goal)
        fed = self._video.zero if self._fed is None else self._fed
        if found >= 0 and index[found].timestamp > fed:
            return True
        # Matroska's index is read at the first jump; a broadcast stream has none.
        known = len(index) > 0 and (self._jumped or index[len(index) - 1].timestamp >= goal)
        return not known and time - here > _FAR

    def _jump(self, time: float) -> None:
        """Goes on from a keyframe at or before a time. Its first frame is the latest then."""
        from av.error import FFmpegError

        self._jumped = True
        if self._by_reading and self._skip(time):
            return
        goal, step = self._ticks(time), 1
        while goal > self._video.zero and not self._by_reading:
            try:
                self._video.container.seek(goal, stream=self._video.pictures)
            except FFmpegError:
                break
            self._begin()
            self._latest = self._next()
            if self._latest is not None and self._latest.time <= time:
                return
            goal = min(goal, goal if self._key is None else self._key) - step
            step = max(2 * step, self._ticks(1.0) - self._video.zero)
        self._video.rewind()
        self._video.only(self._video.pictures)
        self._begin()
        self._latest = self._next()

    def _skip(self, time: float) -> bool:
        """Reads on, and drops what isn't needed for a time; whether that has led to a frame before it."""
        goal, held, found = self._ticks(time), [], False
        for packet in self._packets:
            if packet is not None and packet.is_keyframe and packet.pts is not None and packet.pts <= goal:
                held, found = [], True
            held.append(packet)
            if packet is None or (packet.dts is not None and packet.dts > goal):
                break
        packets, cut = itertools.chain(held, self._packets), self._cut
        if not found:
            self._packets = packets
            return True
        self._video.pictures.codec_context.flush_buffers()
        self._begin(packets)
        self._cut, self._latest = cut, self._next()
        return self._latest is not None and self._latest.time <= time

    def _next(self) -> Shown | None:
        """The frame that is shown next, None at the end."""
        while not self._ready:
            packet = next(self._packets, _END)
            if packet is _END:
                return None
            self._feed(packet)
        return self._ready.popleft()

    def _feed(self, packet: Any) -> None:
        """Decodes a packet; its frames that can be shown are ready then. One that is None or empty flushes."""
        from av.error import FFmpegError

        pts = None
        if packet is not None and packet.size:
            pts = packet.dts if self._by_dts or packet.pts is None else packet.pts
            if packet.is_keyframe and not packet.is_corrupt:
                self._broken, self._since = False, []
                self._key = pts if self._key is None else self._key
            if self._key is None or pts is None:
                return  # nothing before the first keyframe can be decoded
            self._fed = pts if packet.dts is None else packet.dts
            self._since.append(pts)
            self._broken = self._broken or packet.is_corrupt
        try:
            frames = self._video.pictures.codec_context.decode(packet)
        except FFmpegError:
            frames = []
            if pts is not None and self._key is not None:
                self._broken = self._broken or pts >= self._key  # what is left out anyway may fail
        if self._broken and pts is not None:
            self._lost.add(pts)
        for frame in frames:
            self._take(frame)

    def _take(self, frame: Any) -> None:
        """Makes a decoded frame ready, and what follows a damaged one in its group of pictures lost."""
        if self._by_dts:
            pts = frame.dts if frame.dts is not None else None if self._last is None else self._last + 1
        else:
            pts = frame.pts
        if pts is None or self._key is None or pts < self._key:
            return
        self._last = pts
        if frame.is_corrupt:
            begin = self._since.index(pts) if pts in self._since else None
            self._lost.update([pts] if begin is None else self._since[begin:])
            self._broken = self._broken or begin is not None
        self._ready.append(Shown(self._seconds(pts), pts, frame))
