"""Decodes the frames of a video that are nearest to given times, to RGB of 8 bits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.pictures import MOST_PIXELS
from mmjax.data.decoding.video_walk import SLACK, Shown, Walk
from mmjax.data.decoding.videos import VideoContent, VideoFile, check_pixels, open_video, turn_of
from mmjax.errors import UserError

Frames = UInt8[np.ndarray, "frames height width 3"]
Times = Float64[np.ndarray, " frames"]

# FFmpeg converts these, where their size stays, six times as fast as others, with errors of a level; four pixels share
# their chroma.
_USUAL = ("yuv420p", "yuvj420p")


def frames_at(
    content: VideoContent,
    seconds: Sequence[float] | np.ndarray,
    *,
    most_pixels: int = MOST_PIXELS,
    short_side: int | None = None,
) -> tuple[Frames, Times]:
    """Decodes for each asked time the frame that is nearest, the earlier of two that are equally near.

    Only the result and a few frames of the codec's own are held at once. The frames are upright, with square pixels,
    and all of the size that the headers tell, also where the size changes on the way. RGB is made by the matrix and the
    range that the file names (BT.601 and limited where it names none), to a level; the gamma stays the file's, also
    HDR's. Interlaced frames stay interlaced.

    Args:
        content: a file's bytes, or the path of a local file.
        seconds: in any order, also several times the same, by the video's own clock (`videos`). Up to `SLACK` before
            the first frame or behind the last one's end they get that frame.
        most_pixels: a frame may have so many, as coded and as returned.
        short_side: the shorter side becomes so long while the colours are converted: by area averaging, or bicubic
            where it grows. None leaves the size.

    Returns:
        The frames, and the time of each in seconds.

    Raises:
        BadExample: the file is no video ("undecodable", "empty"), has larger frames ("too_large"), is broken at one of
            the times ("undecodable"), or shows nothing then ("unfit").
        UserError: no times, or some that aren't finite or lie before -`SLACK`; `short_side` below 1; PyAV is missing.
    """
    asked = np.asarray(seconds, np.float64)
    if asked.ndim != 1 or not asked.size or not np.isfinite(asked).all() or asked.min() < -SLACK:
        raise UserError(f"seconds={seconds!r}: give at least one time, finite and not below -{SLACK:g} s")
    if short_side is not None and short_side < 1:
        raise UserError(f"short_side={short_side}: a side has at least 1 pixel")
    with open_video(content, most_pixels) as video:
        video.only(video.pictures)
        convert = FrameConversion(video, most_pixels, short_side)
        walk = Walk(video)
        frames, times, before, place = np.zeros((0, 0, 0, 3), np.uint8), np.zeros(len(asked)), None, -1
        for i in np.argsort(asked, kind="stable"):
            shown = walk.nearest(float(asked[i]))
            if before is None or shown.pts != before.pts:
                picture = convert(shown)
                if before is None:
                    frames = np.empty((len(asked), *picture.shape), np.uint8)
                elif picture.shape != frames.shape[1:]:
                    raise BadExample("the video is turned by a quarter on its way", "undecodable")
                frames[i] = picture
            else:
                frames[i] = frames[place]
            times[i], before, place = shown.time, shown, i
    return frames, times


class FrameConversion:
    """Converts frames of an open video to RGB, upright and of the size asked for; the arguments are those of
    `frames_at`, and it raises as that does.
    """

    def __init__(self, video: VideoFile, most_pixels: int, short_side: int | None):
        from av.video.reformatter import Interpolation, VideoReformatter

        width, height = video.shown_size(most_pixels)
        if short_side is not None:
            shorter = min(width, height)
            width, height = (max(short_side, round(side * short_side / shorter)) for side in (width, height))
            check_pixels(width, height, most_pixels)
        self._size, self._most_pixels, self._reformatter = (width, height), most_pixels, VideoReformatter()
        # Chroma of full width, or grey would come out 1.7 levels too dark; and no rounding of a machine's own vectors.
        exact = Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
        self._shrink, self._grow = Interpolation.AREA | exact, Interpolation.BICUBIC | exact
        self._keep = Interpolation.AREA

    def __call__(self, shown: Shown) -> np.ndarray:
        """A view of the picture, [h, w, 3]."""
        frame: Any = shown.frame
        check_pixels(frame.width, frame.height, self._most_pixels)
        width, height = self._size
        if (width, height) == (frame.width, frame.height) and frame.format.name in _USUAL:
            way = self._keep
        else:
            way = self._shrink if width <= frame.width and height <= frame.height else self._grow
        rgb = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=way, threads=1)
        plane: Any = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : 3 * width]
        return turn_of(frame).turned(rows.reshape(height, width, 3))
