"""The record of a segment of a video in a prepared folder: a header in JSON, then the bytes of its frames and sound.

4 bytes      the header's length, little-endian
the header   JSON in UTF-8, its keys in order
the rest     each frame (JPEG), then the sound (FLAC), as long as the header's `sizes` say
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmjax.data.decoding.subtitles import TimedWord
from mmjax.errors import UserError

_COUNTED = 4  # bytes of the header's length


class Segment(NamedTuple):
    """A segment. All times are in seconds of the video's clock.

    video: the id of its video. number: from 0 on, its place in the video. times: of the frames, as they are shown.
    frames: JPEG each. audio: FLAC from `start` to `end`; None where there is none. words: those whose middles lie in
    the segment, whole; None where the video has none. split: the video's. columns: of the whole video, its text say.
    """

    video: str
    number: int
    start: float
    end: float
    times: Sequence[float]
    frames: Sequence[bytes]
    audio: bytes | None
    words: Sequence[TimedWord] | None
    split: str | None = None
    columns: Mapping[str, Any] = {}


def packed_segment(segment: Segment) -> bytes:
    """The bytes of a record: the same for the same segment."""
    header = segment._asdict()
    sizes = [len(frame) for frame in header.pop("frames")]
    audio = header.pop("audio")
    header["sizes"] = [*sizes, None if audio is None else len(audio)]
    header["columns"] = dict(segment.columns)
    text = json.dumps(header, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    return b"".join([len(text).to_bytes(_COUNTED, "little"), text, *segment.frames, audio or b""])


def unpacked_segment(record: bytes) -> Segment:
    """The segment of a record. Raises UserError where the bytes are no such record."""
    try:
        begin = _COUNTED + int.from_bytes(record[:_COUNTED], "little")
        header = json.loads(record[_COUNTED:begin])
        *sizes, heard = header.pop("sizes")
        frames = []
        for size in sizes:
            frames.append(record[begin : begin + size])
            begin += size
        audio = None if heard is None else record[begin : begin + heard]
        if begin + (heard or 0) != len(record):
            raise ValueError(f"it has {len(record):,} bytes, and its header tells of {begin + (heard or 0):,}")
        words = header.pop("words")
        told = None if words is None else [TimedWord(*word) for word in words]
        return Segment(frames=frames, audio=audio, words=told, **header)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"a record is no segment of a video: {error}") from error
