"""Videos whose frames carry their number in grey blocks, so that a picture says which frame it is; and their sounds."""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

ROWS, COLUMNS = 2, 5  # blocks: ten bits


def numbered(number: int, width: int, height: int) -> np.ndarray:
    """A picture [h, w, 3] of ten blocks, dark or light, by the bits of a number."""
    bits = np.array([number >> i & 1 for i in range(ROWS * COLUMNS)]).reshape(ROWS, COLUMNS)
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    return np.repeat(np.where(bits, 215, 40).astype(np.uint8)[rows][:, columns, None], 3, axis=2)


def number_of(picture: np.ndarray) -> int:
    """The number that a picture carries."""
    height, width = picture.shape[:2]
    found = 0
    for i in range(ROWS * COLUMNS):
        row, column = divmod(i, COLUMNS)
        high, wide = height // ROWS, width // COLUMNS
        middle = picture[row * high + high // 3 : row * high + 2 * high // 3 + 1]
        level = middle[:, column * wide + wide // 3 : column * wide + 2 * wide // 3 + 1].mean()
        found |= int(level > 128) << i
    return found


class Clip(NamedTuple):
    """A recipe. times: of frames, in ticks of `tick` seconds; by default `frames` at 25 a second. prepare: changes the
    track before the first frame is made.
    """

    codec: str = "libx264"
    container: str = "mp4"
    frames: int = 60
    options: dict[str, str] = {}
    times: Sequence[int] | None = None
    tick: Fraction = Fraction(1, 25)
    size: tuple[int, int] = (100, 60)
    pixels: str = "yuv420p"
    prepare: Callable[[Any], None] | None = None
    container_options: dict[str, str] = {}
    picture: Callable[[int, int, int], np.ndarray] = numbered

    def made(self, path: Path | None = None) -> bytes:
        """The file's bytes, by way of a path where one is given."""
        stream = io.BytesIO()
        given = stream if path is None else str(path)
        with av.open(given, "w", format=self.container, options=self.container_options) as out:
            add_pictures(out, self)
        return stream.getvalue() if path is None else path.read_bytes()


def add_pictures(out: Any, clip: Clip) -> None:
    track = out.add_stream(clip.codec, rate=25, options=quiet(clip))
    track.width, track.height = clip.size
    track.pix_fmt, track.codec_context.time_base = clip.pixels, clip.tick
    if clip.prepare is not None:
        clip.prepare(track)
    for number, time in enumerate(clip.times if clip.times is not None else range(clip.frames)):
        frame = av.VideoFrame.from_ndarray(clip.picture(number, *clip.size), "rgb24")
        frame = frame.reformat(format=clip.pixels, dst_color_range=track.codec_context.color_range or None)
        frame.pts, frame.time_base = time, clip.tick
        out.mux(track.encode(frame))
    out.mux(track.encode())


def quiet(clip: Clip) -> dict[str, str]:
    """The options, and one thread, and no words of the encoder's."""
    if clip.codec == "libx264":
        return {"threads": "1", "preset": "ultrafast", **clip.options}
    if clip.codec == "libx265":
        parts = clip.options.get("x265-params", "")
        return {"preset": "ultrafast", "x265-params": f"log-level=none:pools=1{':' if parts else ''}{parts}"}
    if clip.codec == "libvpx-vp9":
        return {"threads": "1", "deadline": "realtime", "cpu-used": "8", **clip.options}
    return clip.options


class Seen(NamedTuple):
    """A frame as a decoder gives it from the first to the last. time: in seconds from the track's start."""

    time: float
    number: int


def every_frame(content: bytes) -> list[Seen]:
    """All frames of the first track, decoded one after the other."""
    with av.open(io.BytesIO(content), "r") as file:
        track = file.streams.video[0]
        start, base = track.start_time or 0, track.time_base
        assert base is not None
        frames = [(frame.pts, number_of(frame.to_ndarray(format="rgb24"))) for frame in file.decode(track)]
    return [Seen(float((pts - start) * base), number) for pts, number in frames if pts is not None]


def packet_times(content: bytes) -> list[float]:
    """The times of all frames in seconds from the track's start, by demuxing alone."""
    with av.open(io.BytesIO(content), "r") as file:
        track = file.streams.video[0]
        start, base = track.start_time or 0, track.time_base
        assert base is not None
        found = [packet.pts for packet in file.demux(track) if packet.size and not packet.is_discard]
    return sorted(float((pts - start) * base) for pts in found if pts is not None)


def nearest_of(seen: Sequence[Seen], time: float) -> Seen:
    """The frame nearest to a time, the earlier of two, by looking at all of them."""
    return min(seen, key=lambda one: (abs(one.time - time), one.time))
