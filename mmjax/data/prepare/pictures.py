"""Frames of a video as JPEG, segment by segment, in one pass through the file."""

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.pictures import MOST_PIXELS
from mmjax.data.decoding.video_frames import FrameConversion
from mmjax.data.decoding.video_walk import Walk
from mmjax.data.decoding.videos import VideoContent, open_video

JpegFrames = list[tuple[float, bytes]]  # the time of each frame, in seconds of the video's clock, and its JPEG


def jpegs_in_turn(
    content: VideoContent, asked: Iterable[Sequence[float]], short_side: int | None, quality: int
) -> Iterator[JpegFrames | BadExample]:
    """Gives for each segment, of which `asked` has the times, the frames that `frames_at` finds for them, or why one of
    them can't be had.

    The times never decrease. The file is opened once; of its frames but two are held at a time, and the JPEGs of one
    segment.

    Raises `BadExample` where the file can't be opened, as `open_video` does.
    """
    with open_video(content) as video:
        video.only(video.pictures)
        convert, walk = FrameConversion(video, MOST_PIXELS, short_side), Walk(video)
        size: tuple[int, ...] | None = None
        for times in asked:
            found: JpegFrames = []
            try:
                for time in times:
                    shown = walk.nearest(time)
                    if found and found[-1][0] == shown.time:
                        found.append(found[-1])
                        continue
                    picture = convert(shown)
                    size = size or picture.shape
                    if picture.shape != size:
                        raise BadExample("the video is turned by a quarter on its way", "undecodable")
                    found.append((shown.time, _jpeg(picture, quality)))
            except BadExample as reason:
                yield reason.with_traceback(None)
            else:
                yield found


def last_seconds(content: VideoContent) -> float:
    """The end of a video's last frame, in seconds, for one whose headers don't tell: all of it is read, nothing is
    decoded. Raises `BadExample` as `open_video` does.
    """
    with open_video(content) as video:
        video.only(video.pictures)
        packets = video.container.demux(video.pictures)
        times = (packet.pts + (packet.duration or 0) for packet in packets if packet.pts is not None)
        end = max(itertools.chain(times, [video.zero]))
        return float((end - video.zero) * video.pictures.time_base)


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "JPEG", quality=quality)
    return file.getvalue()
