"""Files of sound whose containers say less, or more, than is there: streamed, cut off, or several in one.

libsndfile trusts the header: it reads only the first link of a chained Ogg file, nothing of a WAV whose recorder was
killed, and silently the rest of a WAV that was cut off.
"""

from collections.abc import Iterator
from typing import Literal

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding import mp3

Order = Literal["little", "big"]

_SLACK = 64  # bytes by which some writers' headers are off: they include the header
_STREAMED = 0x7FFF_0000  # writers of streams put sizes from here on: libsndfile then reads to the file's end
_FLAC = b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"  # with the header of the first block, which always has 34 bytes


def contained_files(content: bytes) -> list[bytes]:
    """Splits a file into the files that it is a concatenation of, each of which libsndfile reads to its end.

    Raises:
        BadExample: it is cut off, or holds bytes that its header doesn't count; the message has the numbers.
    """
    head = content[:4]
    if head == b"OggS":
        return _cut(content, _links(content))
    if head == b"fLaC":
        starts = [place for marker in _FLAC for place in _places(content, marker)]
        return _cut(content, sorted({0, *starts}))
    if head in (b"RIFF", b"RIFX", b"RF64") and content[8:12] == b"WAVE":
        return _wave(content, "big" if head == b"RIFX" else "little")
    if head == b"FORM" and content[8:11] == b"AIF":
        for name, start, size in _chunks(content, 12, "big"):
            if name == b"SSND":
                _check(start + size, len(content), "AIFF")
    elif head == b".snd" and len(content) >= 12 and (size := int.from_bytes(content[8:12])) < _STREAMED:
        _check(int.from_bytes(content[4:8]) + size, len(content), "AU")
    elif head == b"caff":
        for name, start, size in _chunks(content, 8, "big", 8):
            if name == b"data" and size < 2**63:  # else it was streamed
                _check(start + size, len(content), "CAF")
    elif head == b"riff" and len(content) >= 24:  # Sony's Wave64
        _check(int.from_bytes(content[16:24], "little"), len(content), "W64")
    elif mp3.begins(content):
        return [mp3.whole_mp3(content)]
    return [content]


def _cut(content: bytes, starts: list[int]) -> list[bytes]:
    return [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]


def _places(content: bytes, marker: bytes) -> Iterator[int]:
    place = content.find(marker)
    while place >= 0:
        yield place
        place = content.find(marker, place + 1)


def _links(content: bytes) -> list[int]:
    """The starts of the links of a chained Ogg file: a first page of a stream behind a page that isn't one
    (RFC 3533).
    """
    starts, place, first_before = [0], 0, True
    while place < len(content):
        if content[place : place + 4] != b"OggS":
            further = content.find(b"OggS", place + 1)
            if further < 0:
                break
            place = further
            continue
        first = bool(content[place + 5 : place + 6] and content[place + 5] & 2)
        if first and not first_before:
            starts.append(place)
        first_before = first
        segments = content[place + 26] if place + 26 < len(content) else 0
        end = place + 27 + segments + sum(content[place + 27 : place + 27 + segments])
        _check(max(end, place + 27 + segments), len(content), "Ogg", slack=0)
        place = end
    return starts


def _wave(content: bytes, order: Order) -> list[bytes]:
    large = None  # RF64 has the size in a chunk of its own
    for name, start, size in _chunks(content, 12, order):
        if name == b"ds64":
            large = int.from_bytes(content[start + 8 : start + 16], "little")
        if name != b"data":
            continue
        there = len(content) - start
        size = large if large is not None and size == 0xFFFF_FFFF else size
        if size >= _STREAMED and large is None:
            return [content]
        if size == 0 and there > _SLACK and not _is_chunk(content, start, order):  # the recorder was killed
            known = min(there, _STREAMED).to_bytes(4, order)
            return [content[: start - 4] + known + content[start:]]
        _check(start + size, len(content), "WAV")
        end = start + size + size % 2
        rest = content[end:]
        if rest[:4] == content[:4] and rest[8:12] == b"WAVE":
            return [content[:end], *contained_files(rest)]
        if len(rest) > _SLACK and rest.strip(b"\0") and not _is_chunk(content, end, order):
            raise BadExample(
                f"the WAV's header counts {size:,} bytes of sound, and {len(rest):,} more follow that it doesn't name: "
                "its length is wrong (ffmpeg -ignore_length 1 -i IN OUT.wav reads all)",
                "undecodable",
            )
        return [content]
    return [content]


def _chunks(content: bytes, place: int, order: Order, width: int = 4) -> Iterator[tuple[bytes, int, int]]:
    """Iterates over the chunks of RIFF, IFF or CAF: name, start of its content, and the bytes that its header declares.

    width: bytes of the size field. With four, chunks begin at even places.
    """
    while (start := place + 4 + width) <= len(content):
        size = int.from_bytes(content[place + 4 : start], order)
        yield content[place : place + 4], start, size
        place = start + size + (size % 2 if width == 4 else 0)


def _is_chunk(content: bytes, place: int, order: Order) -> bool:
    name, size = content[place : place + 4], content[place + 4 : place + 8]
    fits = int.from_bytes(size, order) <= len(content) - place
    return len(size) == 4 and all(32 <= letter < 127 for letter in name) and fits


def _check(end: int, there: int, kind: str, slack: int = _SLACK) -> None:
    if end > there + slack:
        raise BadExample(
            f"the {kind} file is cut off: it should have {end:,} bytes, and has {there:,}",
            "undecodable",
        )
