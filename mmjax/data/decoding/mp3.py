"""Counts the frames of MP3 files whose length libsndfile would guess, and puts a header with their number first.

Where an MP3 has no Xing header, libsndfile takes the length from the first frame's bit rate, and reads no further: two
thirds are lost where that is low. Of two files joined it reads as many frames as the first one's header says. The
headers of MPEG audio frames are ISO 11172-3, 2.4.2.3; Xing's header ("Info" at a constant rate) holds flags and, by the
first flag, the number of frames.
"""

import struct
from dataclasses import dataclass, field

from mmjax.data.bad_example import BadExample

_LAYERS = {3: 1, 2: 2, 1: 3}  # by the header's bits; 0 is reserved
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # MPEG 1, 2, 2.5
_BIT_RATES = {  # kbit/s by (MPEG 1, layer); 0 stands for "free", which gives no length
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAME = 0xFFFE_0C00  # sync, version, layer and sample rate
_SLACK = 2  # frames by which encoders' counts differ: some count the header, some omit the last frame
_JUNK = 4_096  # bytes between frames that are no frames: rests of tags, a frame that was cut where files were joined


@dataclass
class _Frames:
    """The frames of a file: `audio` holds their (start, length); `said` the count in each Xing header, None where it
    has none.

    header: of the first frame. tag: the frame that a Xing header is in, if the file starts with one.
    """

    header: int = 0
    tag: bytes = b""
    audio: list[tuple[int, int]] = field(default_factory=list)
    said: list[int | None] = field(default_factory=list)
    junk: int = 0

    @property
    def samples(self) -> int:
        """Samples per channel of one frame."""
        return _samples(self.header)


def whole_mp3(content: bytes) -> bytes:
    """Returns an MP3 file that libsndfile decodes to its end: the same where its header is right, else one with a right
    header.

    Raises:
        BadExample: frames that the header counts are missing, or the frames aren't of one kind.
    """
    found = scan(content)
    if not found.audio:
        return content
    count, counts = len(found.audio), [said for said in found.said if said is not None]
    if counts and len(counts) == len(found.said) and sum(counts) > count + _SLACK:
        raise BadExample(
            f"the MP3 is cut off: its header says {sum(counts):,} frames, and {count:,} are there", "undecodable"
        )
    if found.junk > max(_JUNK, len(content) // 20):
        raise BadExample(
            f"the MP3 has {found.junk:,} bytes that are no frames like its first ones: parts of several rates, or mono "
            "and stereo, may have been joined (ffmpeg can decode them one by one)",
            "undecodable",
        )
    if len(counts) == 1 == len(found.said) and abs(counts[0] - count) <= _SLACK:
        return content
    if _LAYERS[found.header >> 17 & 3] != 3:  # the older layers have no such header, nor changing rates in practice
        return content
    return _counted(found) + b"".join(content[start : start + length] for start, length in found.audio)


def scan(content: bytes) -> _Frames:
    """Finds all frames, skipping tags and junk between them."""
    found, place, end = _Frames(), 0, -1
    while (place := _over_tags(content, place)) + 4 <= len(content):
        header = int.from_bytes(content[place : place + 4])
        length = _length(header)
        fits = length > 0 and (not found.header or _kind(header) == _kind(found.header))
        # Unless a frame has just ended, a frame counts only if another follows: noise can hold a header's bits.
        if not fits or (place != end and not _follows(content, place + length, header)):
            further = content.find(b"\xff", place + 1)
            further = len(content) if further < 0 else further
            found.junk += further - place if found.header else 0
            place = further
            continue
        found.header = found.header or header
        frame = content[place : place + length]
        if (said := _said(header, frame)) is not False:
            if not found.audio and not found.said and said is not None and frame[36:40] != b"VBRI":
                found.tag = frame
            found.said.append(said)
        elif len(frame) == length:
            found.audio.append((place, length))
        place = end = place + length
    return found


def _follows(content: bytes, place: int, header: int) -> bool:
    """True if a frame of that kind, a tag, or the file's end comes next."""
    if place >= len(content) or _over_tags(content, place) != place:
        return True
    following = int.from_bytes(content[place : place + 4])
    return _kind(following) == _kind(header) and _length(following) > 0


def _over_tags(content: bytes, place: int) -> int:
    """The place behind the tags that start at `place`: ID3 (both versions), APE."""
    while True:
        head = content[place : place + 16]
        if head.startswith(b"ID3") and len(head) >= 10 and max(head[6:10]) < 128:
            size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            place += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head.startswith(b"TAG") and len(content) - place >= 128:
            place += 128
        elif head.startswith(b"APETAGEX") and len(head) == 16:
            place += 32 + int.from_bytes(head[12:16], "little")
        else:
            return place


def _length(header: int) -> int:
    """A frame's length in bytes; 0 where these four bytes are no header, or one without a length."""
    version, layer = header >> 19 & 3, _LAYERS.get(header >> 17 & 3)
    if header >> 21 != 0x7FF or version not in _RATES or layer is None:
        return 0
    if (header >> 12 & 15) == 15 or (header >> 10 & 3) == 3:
        return 0
    bits = 1_000 * _BIT_RATES[version == 3, layer][header >> 12 & 15]
    rate, padding = _RATES[version][header >> 10 & 3], header >> 9 & 1
    if not bits:
        return 0
    return (12 * bits // rate + padding) * 4 if layer == 1 else _samples(header) // 8 * bits // rate + padding


def _kind(header: int) -> tuple[int, bool]:
    """The properties that all frames of a file share: version, layer, sample rate, and whether they are mono."""
    return header & _SAME, _mono(header)


def _mono(header: int) -> bool:
    return header >> 6 & 3 == 3


def _samples(header: int) -> int:
    layer = _LAYERS[header >> 17 & 3]
    return {1: 384, 2: 1_152, 3: 1_152 if header >> 19 & 3 == 3 else 576}[layer]


def _xing(header: int) -> int:
    """The place of a Xing header in a frame: behind the side information, which is longer in MPEG 1 and in stereo."""
    return 4 + ((17, 9) if _mono(header) else (32, 17))[header >> 19 & 3 != 3]


def _said(header: int, frame: bytes) -> int | bool | None:
    """False for a frame of sound; for a header frame (Xing, Info, VBRI) its number of frames, or None where it has
    none.
    """
    place = _xing(header)
    if frame[place : place + 4] in (b"Xing", b"Info"):
        counted = len(frame) >= place + 12 and frame[place + 7] & 1
        return int.from_bytes(frame[place + 8 : place + 12]) if counted else None
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return int.from_bytes(frame[50:54])
    return False


def _counted(found: _Frames) -> bytes:
    """A Xing header for the frames: the file's own with another number, or one in the shortest frame that takes it."""
    place, count, size = _xing(found.header), len(found.audio), sum(length for _, length in found.audio)
    if found.tag:  # it may have the length of the encoder's initial silence
        sized = found.tag[place + 7] & 2 and len(found.tag) >= place + 16
        numbers = struct.pack(">II", count, size + len(found.tag)) if sized else count.to_bytes(4)
        return found.tag[: place + 8] + numbers + found.tag[place + 8 + len(numbers) :]
    tag = struct.pack(">4sIII", b"Xing", 3, count, size)
    for bits in range(1, 15):
        header = found.header & ~(15 << 12) & ~(1 << 9) | bits << 12 | 1 << 16  # no padding, no checksum
        if (length := _length(header)) >= place + len(tag):
            return (header.to_bytes(4) + bytes(place - 4) + tag).ljust(length, b"\0")
    raise AssertionError("a frame of 320 kbit/s is shorter than 52 bytes")


def begins(content: bytes) -> bool:
    """True if the content looks like MPEG audio: frames at once, or behind tags (and zeros, which some writers add)."""
    place = _over_tags(content, 0)
    start = content[place : place + _JUNK].lstrip(b"\0")[:4] if place else content[:4]
    return len(start) == 4 and _length(int.from_bytes(start)) > 0
