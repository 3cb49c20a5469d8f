"""Recognises a file by its first bytes, so that the error of one that can't be decoded has its format, and a way to
read it.
"""

import re
from typing import Literal, NamedTuple

Kind = Literal["picture", "sound", "video", "other"]


class Format(NamedTuple):
    """A file format. name: for people. read: whether Pillow, libsndfile or PyAV reads it as they come. advice: replaces
    the kind's advice. either: whether a container whose kind is "sound" may hold a video too.
    """

    name: str
    kind: Kind
    read: bool = False
    advice: str = ""
    either: bool = False


_PICTURE = "convert it first (ImageMagick: magick IN OUT.png)"
_SOUND = "convert it first (ffmpeg -i IN OUT.flac)"
_VIDEO = "convert it first (ffmpeg -i IN OUT.mp4)"
_BARE = "its frames have no times: put it into a container first (ffmpeg -framerate RATE -i IN -c copy OUT.mp4)"
_TRACK = "take the sound out of it first (ffmpeg -i IN -vn OUT.flac)"
_UNPACK = "unpack it first"
_LOST = "the download may have failed"

# By (offset, bytes). The first that fits counts.
_MAGIC: tuple[tuple[int, bytes, Format], ...] = (
    (0, b"\xff\xd8\xff", Format("JPEG", "picture", True)),
    (0, b"\x89PNG", Format("PNG", "picture", True)),
    (0, b"GIF8", Format("GIF", "picture", True)),
    (8, b"WEBP", Format("WebP", "picture", True)),
    (0, b"BM", Format("BMP", "picture", True)),
    (0, b"FUJIFILMCCD-RAW", Format("a camera's raw picture (RAF)", "picture")),
    (8, b"CR\x02", Format("a camera's raw picture (CR2)", "picture")),
    (0, b"IIRO", Format("a camera's raw picture (ORF)", "picture")),
    (0, b"II*\0", Format("TIFF", "picture", True)),
    (0, b"MM\0*", Format("TIFF", "picture", True)),
    (0, b"\0\0\0\x0cJXL ", Format("JPEG XL", "picture")),
    (0, b"\0\0\0\x0cjP", Format("JPEG 2000", "picture", True)),
    (0, b"8BPS", Format("Photoshop's PSD", "picture", True)),
    (0, b"gimp xcf", Format("GIMP's XCF", "picture")),
    (0, b"\x76\x2f\x31\x01", Format("OpenEXR", "picture")),
    (0, b"#?RADIANCE", Format("Radiance HDR", "picture")),
    (0, b"AT&TFORM", Format("DjVu", "picture")),
    (0, b"BPG\xfb", Format("BPG", "picture")),
    (128, b"DICM", Format("DICOM", "picture", advice="pydicom reads it: save its pixels as PNG")),
    (0, b"%PDF", Format("PDF", "other", advice="draw its pages first (pdftoppm -png IN OUT)")),
    (0, b"%!PS", Format("PostScript", "other", advice="draw it first (ImageMagick: magick IN OUT.png)")),
    (8, b"WAVE", Format("WAV", "sound", True)),
    (8, b"AVI ", Format("AVI", "video", True)),
    (0, b"fLaC", Format("FLAC", "sound", True)),
    (28, b"OpusHead", Format("Opus in Ogg", "sound", True)),
    (29, b"vorbis", Format("Vorbis in Ogg", "sound", True)),
    (28, b"Speex   ", Format("Speex in Ogg", "sound")),
    (0, b"OggS", Format("Ogg", "sound", True, either=True)),
    (0, b"FORM", Format("AIFF", "sound", True)),
    (0, b".snd", Format("AU", "sound", True)),
    (0, b"caff", Format("Apple's CAF", "sound", True)),
    (0, b"riff", Format("Sony's Wave64", "sound", True)),
    (0, b"RF64", Format("RF64", "sound", True)),
    (0, b"ID3", Format("MP3", "sound", True)),
    (0, b"#!AMR", Format("AMR", "sound")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Format("WMA or WMV (ASF)", "sound", either=True)),
    (0, b"wvpk", Format("WavPack", "sound")),
    (0, b"MAC ", Format("Monkey's Audio", "sound")),
    (0, b"TTA1", Format("True Audio", "sound")),
    (0, b"MPCK", Format("Musepack", "sound")),
    (0, b"DSD ", Format("DSD (DSF)", "sound")),
    (0, b".RMF", Format("RealMedia", "sound", either=True)),
    (0, b"MThd", Format("MIDI", "other", advice="it holds notes, no sound: render it first (fluidsynth)")),
    (0, b"\x1a\x45\xdf\xa3", Format("WebM or Matroska", "video", True)),
    (0, b"FLV\x01", Format("Flash video", "video", True)),
    (0, b"\0\0\x01\xba", Format("MPEG video", "video", True)),
    (0, b"\0\0\x01\xb3", Format("a bare stream of MPEG video", "video", advice=_BARE)),
    (0, b"\0\0\0\x01", Format("a bare stream of H.264 or H.265", "video", advice=_BARE)),
    (0, b"version https://git-lfs", Format("a Git LFS pointer", "other", advice="fetch its file: git lfs pull")),
    (0, b"PK\x03\x04", Format("a ZIP archive", "other", advice=_UNPACK)),
    (0, b"\x1f\x8b", Format("gzip", "other", advice=_UNPACK)),
    (0, b"BZh", Format("bzip2", "other", advice=_UNPACK)),
    (0, b"\xfd7zXZ", Format("xz", "other", advice=_UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Format("Zstandard", "other", advice=_UNPACK)),
    (0, b"7z\xbc\xaf", Format("a 7z archive", "other", advice=_UNPACK)),
    (0, b"Rar!", Format("a RAR archive", "other", advice=_UNPACK)),
    (257, b"ustar", Format("a tar archive", "other", advice=_UNPACK)),
    (0, b"PAR1", Format("Parquet", "other", advice="it is a table: Folder(...) reads it")),
    (0, b"\x93NUMPY", Format("a NumPy array", "other", advice="give its array: np.load")),
    (0, b"\x89HDF", Format("HDF5", "other")),
    (0, b"SQLite format 3", Format("an SQLite database", "other")),
)  # fmt: skip

# ISO's base media file (MP4 and its relatives) is told by its brand.
_BRANDS: tuple[tuple[tuple[bytes, ...], Format], ...] = (
    ((b"M4A ", b"M4B ", b"M4P ", b"F4A "), Format("AAC or ALAC in MP4 (m4a)", "sound")),
    ((b"avif", b"avis"), Format("AVIF", "picture", True)),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), Format("HEIC", "picture")),
    ((b"crx ",), Format("a camera's raw picture (CR3)", "picture")),
    ((b"qt  ",), Format("QuickTime", "video", True)),
    ((b"",), Format("MP4", "video", True)),
)


def format_of(content: bytes) -> Format | None:
    """The format of a content by its first bytes; None where they match none."""
    if content[4:8] == b"ftyp":
        brands = content[8 : min(64, int.from_bytes(content[:4]))]  # the main brand, a version, and other brands
        if b"avif" in brands or b"avis" in brands:  # AVIF's main brand may be HEIC's mif1
            return _BRANDS[1][1]
        return next(found for names, found in _BRANDS if content[8:12].startswith(names))
    for offset, magic, found in _MAGIC:
        if content[offset : offset + len(magic)] == magic:
            return found
    if len(content) > 376 and content[0] == content[188] == content[376] == 0x47:  # packets of 188 bytes
        return Format("an MPEG transport stream", "video", True)
    if content[:2] == b"\xff\x0a":
        return Format("JPEG XL", "picture")
    if found := _text(content[:1_000]):
        return found
    if len(content) > 1 and content[0] == 0xFF and content[1] & 0xF6 == 0xF0:  # ADTS: MPEG's sync, layer 0
        return Format("AAC (ADTS)", "sound")
    if len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0:
        return Format("MP3", "sound", True)
    return None


def _text(head: bytes) -> Format | None:
    for coding in ("utf-8-sig", "utf-16"):
        try:
            text = head.decode(coding) if coding == "utf-8-sig" or head[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        except UnicodeDecodeError as error:
            text = head[: error.start].decode(coding) if error.start > len(head) - 4 else ""  # cut within a letter
        if text and all(letter.isprintable() or letter in "\r\n\t\f" for letter in text):
            break
    else:
        return None
    if "<svg" in text:
        return Format("SVG", "other", advice="it is a drawing: draw it first (rsvg-convert IN -o OUT.png)")
    if re.match(r"\s*<(!doctype html|html|head|body)", text, re.IGNORECASE):
        return Format("a web page (HTML)", "other", advice=_LOST)
    if re.match(r"\s*(<\?xml|<[A-Za-z])", text):
        return Format("XML", "other", advice=_LOST)
    if text.lstrip()[:1] in ("{", "["):
        return Format("JSON or the like", "other", advice=_LOST)
    if "/annex/objects/" in text:
        return Format("a git-annex pointer", "other", advice="fetch its file: git annex get")
    first = text.strip().splitlines()[0] if text.strip() else ""
    return Format(f"text ({first[:30]!r})", "other")


_OBJECT = re.compile(r"(Error opening )?<[^<>]* at 0x[0-9A-Fa-f]+>:? ?")  # `<_io.BytesIO object at 0x7f2c>`


def in_words(error: object) -> str:
    """An error's message, without Python's names of objects: they have an address that differs at each run."""
    return _OBJECT.sub("", str(error)).strip()


def undecodable(wanted: Kind, content: object, error: Exception) -> str:
    """Why a "picture", a "sound" or a "video" can't be decoded: what its bytes are, and what could read them.

    content: the bytes, or the first 4,096 of them.
    """
    start = f"the {wanted} can't be decoded: "
    told = in_words(error)  # that it is no format known says nothing once the content is named
    told = f"{type(error).__name__}: {told}" if told else type(error).__name__
    if not isinstance(content, bytes | bytearray):
        return start + told
    if not content:
        return f"{start}it is empty (0 bytes)"
    found = format_of(bytes(content[:4_096]))
    if found is None:
        return f"{start}it is of no known format, its first bytes are {bytes(content[:8])!r} ({told})"
    if (found.read and found.kind == wanted) or (found.either and wanted == "video"):
        return f"{start}it is {found.name}, but broken, cut off or of a rare kind ({told})"
    if found.kind == wanted:
        advice = found.advice or {"picture": _PICTURE, "sound": _SOUND, "video": _VIDEO}[wanted]
        return f"{start}it is {found.name}, which isn't read here: {advice}"
    advice = found.advice or (_TRACK if found.kind == "video" and wanted == "sound" else "")
    return f"{start}it is {found.name}, no {wanted}" + (f": {advice}" if advice else "")
