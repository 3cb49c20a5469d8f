"""Opens a file of video by PyAV (the extra `video`), and tells of one without decoding more than its first frame.

A video's clock starts at 0 with its pictures: with the start of the first track that is a video, whatever time the file
gives to it. Its pictures are upright and have square pixels: a display matrix is obeyed, with its quarter turns and its
flips (other angles: the nearest quarter turn), and a pixel's aspect ratio changes the width.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.pictures import MOST_PIXELS
from mmjax.data.decoding.signatures import format_of, undecodable
from mmjax.errors import UserError

VideoContent = bytes | str  # a file's bytes, or the path of a local file, which is read piece by piece

# FFmpeg would also take a text for a film of letters, and open what a playlist names, be it on another machine.
_CONTAINERS = "mov,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,mxf,nut,dv,ivf,rm"
_FROM_ZERO = "matroska"  # whose duration counts from time 0, not from the first frame
_OLDEST = 18  # the first PyAV whose conversion of colours can be told to be exact
_CODED = 2  # a codec's own frame, of whole blocks, has at most so many times the pixels that are shown
_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


class VideoFacts(NamedTuple):
    """A video in numbers, as its headers give them.

    seconds: from the first frame to the end of the last; None where the headers don't tell. width, height: in pixels,
    upright, and square. rate: mean frames a second, None where it isn't known. codec, sounds: the codecs of the
    pictures and of each track of sound.
    """

    seconds: float | None
    width: int
    height: int
    rate: float | None
    codec: str
    sounds: tuple[str, ...]


class Turn(NamedTuple):
    """A way to turn pictures upright: `transpose` swaps rows and columns first; then rows and columns are reversed."""

    transpose: bool = False
    rows: bool = False
    columns: bool = False

    def turned(self, picture: np.ndarray) -> np.ndarray:
        """Turns a picture [h, w, 3]; the result is a view."""
        picture = picture.swapaxes(0, 1) if self.transpose else picture
        return picture[:: -1 if self.rows else 1, :: -1 if self.columns else 1]


class _Nameless:
    """An open file without a name, by whose ending FFmpeg would guess what it is, or take it for a pattern of names."""

    def __init__(self, content: VideoContent):
        file: Any = io.BytesIO(content) if isinstance(content, bytes) else open(content, "rb", buffering=0)  # noqa: SIM115
        self.read, self.seek, self.tell, self.close = file.read, file.seek, file.tell, file.close


class VideoFile:
    """An open file. container: PyAV's. pictures: the track that is the video. zero: the time at which it starts, in
    ticks of `pictures.time_base`.
    """

    container: Any
    pictures: Any
    zero: int

    def __init__(self, content: VideoContent, most_pixels: int):
        self._options = {"format_whitelist": _CONTAINERS, "max_pixels": str(_CODED * most_pixels + 2**16)}
        self._file = _Nameless(content)
        self.container = None
        try:
            self.rewind()
        except BaseException:
            self.close()
            raise

    def rewind(self) -> None:
        """Opens the file anew, at its beginning: not every container can be sought in."""
        import av
        from av.stream import Disposition

        if self.container is not None:
            self.container.close()
        self._file.seek(0)
        self.container = av.open(self._file, options=self._options, metadata_errors="replace")
        still = Disposition.attached_pic | Disposition.timed_thumbnails
        moving = [stream for stream in self.container.streams.video if not stream.disposition & still]
        if not moving:
            raise BadExample("the file holds no video: it has sound alone, or a picture that stands still", "empty")
        self.pictures = moving[0]
        self.zero = self.pictures.start_time or 0

    def close(self) -> None:
        """Closes the file."""
        if self.container is not None:
            self.container.close()
        self._file.close()

    @property
    def sounds(self) -> tuple[Any, ...]:
        """The tracks of sound."""
        return tuple(self.container.streams.audio)

    @property
    def delay(self) -> Fraction:
        """The file's time, in seconds, at which the video's clock starts."""
        return self.zero * self.pictures.time_base

    def only(self, stream: Any) -> None:
        """Makes a track the only one that is read, and one thread decode it: many workers decode beside each other.

        Raises:
            BadExample: this build of FFmpeg has no decoder for its codec.
        """
        from av.stream import Discard

        if stream.codec_context is None:
            raise BadExample(
                f"the video can't be decoded: this build of FFmpeg has no decoder for the codec of its {stream.type} "
                "track: convert it first (ffmpeg -i IN OUT.mp4)",
                "undecodable",
            )
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        if stream.type == "video":
            stream.codec_context.options = {"max_pixels": self._options["max_pixels"]}
        for other in self.container.streams:
            if other.index != stream.index:
                other.discard = Discard.all

    def shown_size(self, most_pixels: int) -> tuple[int, int]:
        """The width and height of the pictures with square pixels, before they are turned.

        Raises:
            BadExample: there are more than `most_pixels`, as coded or so ("too_large"), or the header gives no size.
        """
        width, height = self.pictures.codec_context.width, self.pictures.codec_context.height
        if not (width and height):
            raise BadExample("the video can't be decoded: its headers don't tell its size", "undecodable")
        wide = max(1, round(width * (self.pictures.sample_aspect_ratio or 1)))
        check_pixels(max(width, wide), height, most_pixels)
        return wide, height

    def told_end(self, stream: Any) -> Fraction | None:
        """The time at which a track ends by the headers, in seconds of the video's clock; None where they don't tell.

        A container's own duration is taken for its pictures': sound may end before.
        """
        if stream.duration is not None:
            return ((stream.start_time or 0) + stream.duration) * stream.time_base - self.delay
        ends = []
        if self.container.duration is not None and stream.type == "video":
            from_zero = self.container.format.name.startswith(_FROM_ZERO)
            first = 0 if from_zero else self.container.start_time or 0
            ends.append(Fraction(first + self.container.duration, 1_000_000))
        if tagged := _DURATION.match(stream.metadata.get("DURATION", "")):  # Matroska's, a track's own
            ends.append(3_600 * int(tagged[1]) + 60 * int(tagged[2]) + Fraction(tagged[3]))
        return min(ends) - self.delay if ends else None


def check_pixels(width: int, height: int, most_pixels: int) -> None:
    """Raises BadExample ("too_large") where a frame has more than `most_pixels`."""
    if width * height > most_pixels:
        raise BadExample(
            f"the video's frames have {width}×{height} pixels, more than most_pixels={most_pixels:,}", "too_large"
        )


@contextlib.contextmanager
def open_video(content: VideoContent, most_pixels: int = MOST_PIXELS) -> Iterator[VideoFile]:
    """Opens a file; whatever goes wrong within the `with` is a BadExample.

    Raises:
        BadExample: the file can't be read, is no video ("undecodable"), or has no pictures that move ("empty").
        UserError: PyAV isn't there, or the content is neither bytes nor a path.
    """
    try:
        import av
    except ImportError as error:
        raise UserError("decoding videos needs PyAV: pip install 'mmjax[video]'") from error
    if int(av.__version__.split(".")[0]) < _OLDEST:  # else all videos would be bad examples
        raise UserError(f"PyAV {av.__version__} is too old to decode videos: pip install 'mmjax[video]'")
    if not isinstance(content, bytes | str):
        raise UserError(f"a video is given as bytes, or as the path of a local file (str), not as {type(content)}")
    head: object = content
    try:
        head = _head(content)
        found = format_of(head)
        if found is not None and found.kind == "picture":  # FFmpeg takes one for a video of one frame
            raise ValueError("a still picture")
        with contextlib.closing(VideoFile(content, most_pixels)) as video:
            yield video
    except (BadExample, UserError):
        raise
    except Exception as error:  # FFmpeg's, the system's, and what broken headers do to PyAV and numpy
        raise BadExample(undecodable("video", head, error), "undecodable") from error


def video_facts(content: VideoContent) -> VideoFacts:
    """A video's facts by its headers, and by its first frame, which has the display matrix.

    Raises BadExample as `open_video` does, and where the first frame can't be decoded or the size isn't told.
    """
    with open_video(content) as video:
        video.only(video.pictures)
        width, height = video.shown_size(MOST_PIXELS)
        sounds = tuple(_codec(stream) for stream in video.sounds)
        end, rate, codec = video.told_end(video.pictures), video.pictures.average_rate, _codec(video.pictures)
        first = next(iter(video.container.decode(video.pictures)), None)
        if first is None:
            raise BadExample("the video holds no frame that can be decoded", "empty")
        if turn_of(first).transpose:
            width, height = height, width
        seconds = float(end) if end is not None and end > 0 else None
        return VideoFacts(seconds, width, height, float(rate) if rate else None, codec, sounds)


def turn_of(frame: Any) -> Turn:
    """The turn that a frame's display matrix asks for."""
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return Turn()
    # Of the place (x, y) it makes (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].astype(np.int64)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, d < 0, a < 0)
    return Turn(True, b < 0, c < 0)


def _codec(stream: Any) -> str:
    return "unknown" if stream.codec_context is None else stream.codec_context.codec.canonical_name


def _head(content: VideoContent) -> bytes:
    if isinstance(content, bytes):
        return content[:4_096]
    with open(content, "rb") as file:
        return file.read(4_096)
