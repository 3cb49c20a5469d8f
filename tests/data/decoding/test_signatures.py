"""What can't be decoded is named by its content, with what could read it."""

import gzip
import io
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.signatures import format_of, in_words, undecodable
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.image import Decode
from tests.data.conftest import picture_bytes, sound_bytes, tone


def ftyp(brand: bytes, *others: bytes) -> bytes:
    """The start of what ISO's base media format is the container of."""
    box = b"ftyp" + brand + bytes(4) + b"".join(others)
    return (len(box) + 4).to_bytes(4) + box + bytes(100)


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt"), "a")  # of no time of day: it is a part of the tests' names
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ftyp(b"M4A ", b"mp42"), r"it is AAC or ALAC in MP4 \(m4a\), which isn't read here: .*ffmpeg -i IN OUT.flac"),
        (ftyp(b"isom", b"mp41"), r"it is MP4, no sound: take the sound out .*ffmpeg -i IN -vn OUT.flac"),
        (b"\xff\xf1\x50\x80\x2e\x7f\xfc" + bytes(200), r"it is AAC \(ADTS\), which isn't read here: .*ffmpeg"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(99), r"it is WMA or WMV \(ASF\), which isn't read here: .*ffmpeg"),
        (b"#!AMR\n" + bytes(99), "it is AMR, which isn't read here"),
        (b"MThd" + bytes(99), "it is MIDI, no sound: it holds notes, no sound: render it first"),
        (b"\x1a\x45\xdf\xa3" + bytes(99), "it is WebM or Matroska, no sound: take the sound out"),
        (picture_bytes((1, 2, 3)), "it is PNG, no sound$"),
        (b"", r"it is empty \(0 bytes\)$"),
        (LFS, "it is a Git LFS pointer, no sound: fetch its file: git lfs pull"),
        (b"<!DOCTYPE html><title>404</title>", r"it is a web page \(HTML\), no sound: the download may have failed"),
        (b'{"error": "not found"}', "it is JSON or the like, no sound"),
        (b"RIFF\x24\0\0\0WAVEfmt ", r"it is WAV, but broken, cut off or of a rare kind \(LibsndfileError: "),
        (sound_bytes(tone(440))[:60], "it is FLAC, but broken, cut off or of a rare kind"),
        (bytes(range(128, 160)), r"it is of no known format, its first bytes are b'\\x80\\x81"),
    ],
)
def test_a_sound_that_cannot_be_decoded(content, message):
    with pytest.raises(BadExample, match=f"^the sound can't be decoded: {message}") as bad:
        DecodeAudio()(content, None)
    assert bad.value.kind == "undecodable"
    assert "object at 0x" not in str(bad.value)
    assert "\n" not in str(bad.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ftyp(b"heic", b"mif1"), r"it is HEIC, which isn't read here: .*magick IN OUT.png"),
        (b"\xff\x0a" + bytes(99), "it is JPEG XL, which isn't read here: .*magick"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "it is JPEG XL, which isn't read here"),
        (ftyp(b"mif1", b"avif"), "it is AVIF, but broken, cut off or of a rare kind"),
        (ftyp(b"crx "), r"it is a camera's raw picture \(CR3\), which isn't read here"),
        (SVG, r"it is SVG, no picture: it is a drawing: draw it first \(rsvg-convert"),
        (b"%PDF-1.7\n" + bytes(99), "it is PDF, no picture: draw its pages first"),
        (bytes(128) + b"DICM" + bytes(99), "it is DICOM, which isn't read here: pydicom reads it"),
        (zipped(), "it is a ZIP archive, no picture: unpack it first"),
        (gzip.compress(b"a", mtime=0), "it is gzip, no picture: unpack it first"),
        (sound_bytes(tone(440), format="WAV"), "it is WAV, no picture$"),
        (LFS, "it is a Git LFS pointer, no picture: fetch its file: git lfs pull"),
        (b"", r"it is empty \(0 bytes\)$"),
        (b"a grey cat", r"it is text \('a grey cat'\), no picture$"),
        ("un chat, là".encode(), r"it is text \('un chat, là'\), no picture$"),
        ("image,text\n".encode("utf-16"), r"it is text \('image,text'\), no picture$"),
        (picture_bytes((1, 2, 3), (50, 50))[:-40], r"it is PNG, but broken, cut off or of a rare kind \(OSError: "),
        (picture_bytes((1, 2, 3), (90, 90), format="JPEG")[:500], "it is JPEG, but broken, cut off"),
        (
            b"\xff\xd8\xff",
            r"it is JPEG, but broken, cut off or of a rare kind \(UnidentifiedImageError: cannot identify",
        ),
    ],
)
def test_a_picture_that_cannot_be_decoded(content, message):
    with pytest.raises(BadExample, match=f"^the picture can't be decoded: {message}") as bad:
        Decode()(content, None)
    assert bad.value.kind == "undecodable"
    assert "object at 0x" not in str(bad.value)


def spoilt(content: bytes) -> list[bytes]:
    """The file cut off at several places, and with bytes of its head and body that aren't its own."""
    made = [content[:size] for size in (4, 12, 20, 44, len(content) // 2)]
    draw = np.random.default_rng(0)
    for most in (24, 60, 200, len(content)):
        for _ in range(6):
            array = bytearray(content)
            for place in draw.integers(0, min(most, len(content)), 4):
                array[place] = draw.integers(256)
            made.append(bytes(array))
    return made


@pytest.mark.filterwarnings("ignore")
def test_no_decoder_shows_where_an_object_lies_in_memory():
    sounds = [
        "WAV",
        "WAV GSM610",
        "WAV IMA_ADPCM",
        "RF64",
        "W64",
        "FLAC",
        "OGG",
        "OGG OPUS",
        "MP3",
        "AIFF",
        "AU",
        "CAF",
    ]
    pictures = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX", "SGI", "JPEG2000", "AVIF"]
    wave, kinds = 0.3 * np.sin(np.arange(8_000) / 9), [name.partition(" ") for name in sounds]
    given = [(DecodeAudio(), sound_bytes(wave, 8_000, name, subtype or None)) for name, _, subtype in kinds]
    given += [(Decode(), picture_bytes((1, 2, 3), (50, 40), format=name)) for name in pictures]
    said = []
    for decode, content in given:
        for part in spoilt(content):
            try:
                decode(part, None)
            except BadExample as error:
                said.append(str(error))
    assert len(said) > 200
    assert [text for text in said if " at 0x" in text] == []


def test_an_error_in_words_names_no_object():
    stream = io.BytesIO(b"no picture")
    with pytest.raises(OSError) as bad:  # noqa: PT011 (PIL's own words are looked at)
        Image.open(stream)
    assert " at 0x" in str(bad.value)
    assert in_words(bad.value) == "cannot identify image file"
    assert in_words("Error opening <a.b._Stream object at 0x7F3A>: Format not recognised.") == "Format not recognised."
    assert in_words(f"{stream.read!r} failed") == "failed"
    assert in_words("a < b at 0 > c") == "a < b at 0 > c"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_pictures_that_are_read_are_known_as_such(format):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, format)
    found = format_of(stream.getvalue())
    assert found is not None
    assert (found.kind, found.read) == ("picture", True)


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        *[(format, None) for format in ("WAV", "FLAC", "MP3", "AIFF", "AU", "CAF", "W64", "RF64")],
        *[("OGG", "VORBIS"), ("OGG", "OPUS")],
    ],
)
def test_sounds_that_are_read_are_known_as_such(format, subtype):
    found = format_of(sound_bytes(tone(440, 0.2), format=format, subtype=subtype))
    assert found is not None
    assert (found.kind, found.read) == ("sound", True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ftyp(b"isom", b"mp41"), r"it is MP4, but broken, cut off or of a rare kind \(ValueError: a\)$"),
        (b"\x1a\x45\xdf\xa3" + bytes(99), "it is WebM or Matroska, but broken"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(99), r"it is WMA or WMV \(ASF\), but broken"),
        ((b"G" + bytes(187)) * 3, "it is an MPEG transport stream, but broken"),
        (b"\0\0\0\x01\x67" + bytes(99), "it is a bare stream of H.264 or H.265, which isn't read here: .*-framerate"),
        (b"\0\0\x01\xb3" + bytes(99), "it is a bare stream of MPEG video, which isn't read here: .*-framerate"),
        (picture_bytes((1, 2, 3)), "it is PNG, no video$"),
        (sound_bytes(tone(440), format="WAV"), "it is WAV, no video$"),
        (ftyp(b"M4A ", b"mp42"), r"it is AAC or ALAC in MP4 \(m4a\), no video$"),
    ],
)
def test_a_video_that_cannot_be_decoded(content, message):
    assert re.match(f"the video can't be decoded: {message}", undecodable("video", content, ValueError("a")))


def test_any_bytes_have_a_format_or_none():
    rng = np.random.default_rng(0)
    for length in range(40):
        for _ in range(20):
            format_of(rng.integers(0, 256, length).astype(np.uint8).tobytes())
