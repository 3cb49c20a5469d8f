"""Pictures as people see them, however the camera was held, and grey levels by the range that they are meant in."""

import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.image import Decode, Resize, seen_upright
from tests.data.conftest import kind_of

ORIENTATION = 0x0112
# What stands in the file where the picture is U (Exif 2.32, 4.6.4, by where the file's row 0 and column 0 are seen).
HELD = {
    1: lambda u: u,
    2: lambda u: u[:, ::-1],  # top, right
    3: lambda u: u[::-1, ::-1],  # bottom, right
    4: lambda u: u[::-1],  # bottom, left
    5: lambda u: u.swapaxes(0, 1),  # left, top
    6: lambda u: u[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda u: u[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda u: u[::-1].swapaxes(0, 1),  # left, bottom
}
LOSSLESS: dict[str, dict] = {
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "MPO": {"quality": 100, "subsampling": 0},  # of a phone with two cameras
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def upright() -> np.ndarray:
    """32×48, of four flat quarters that differ, so that any turn shows."""
    quarters = np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [230, 230, 230]]], np.uint8)
    return quarters.repeat(16, axis=0).repeat(24, axis=1)


def held(orientation: int, format: str = "PNG") -> bytes:
    """The file of a camera that was held so."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stream = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(HELD[orientation](upright())))
    more = {"append_images": [stored], "save_all": True} if format == "MPO" else {}
    stored.save(stream, format, exif=exif, **LOSSLESS[format], **more)
    return stream.getvalue()


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b).max()) if a.shape == b.shape else 255


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize("orientation", HELD)
def test_a_picture_is_seen_upright_however_the_camera_was_held(format, orientation):
    content = held(orientation, format)
    tolerance = 0 if format in ("PNG", "WEBP", "TIFF") else 6
    assert apart(Decode()(content, None), upright()) <= tolerance
    opened = Image.open(io.BytesIO(content))
    assert apart(Decode()(opened, None), upright()) <= tolerance  # which still carries it
    assert apart(Decode()(opened.convert("RGB"), None), upright()) <= tolerance
    assert apart(Decode()(ImageOps.exif_transpose(opened), None), upright()) <= tolerance  # turned once, not twice
    as_held = Decode(upright=False)(content, None)
    # PIL itself turns TIFF as it reads it, for whoever opens one by it.
    assert apart(as_held, upright() if format == "TIFF" else HELD[orientation](upright())) <= tolerance


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16", "CMYK"])
def test_pictures_of_every_mode_are_turned(mode):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50
    stored = Image.fromarray(np.ascontiguousarray(HELD[6](grey)))
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    stream = io.BytesIO()
    (stored if mode == "I;16" else stored.convert(mode)).save(stream, "TIFF" if mode == "CMYK" else "PNG", exif=exif)
    expected = np.where(grey > 127, 255, 0) if mode == "1" else grey
    for background in ((255, 255, 255), None):
        decoded = Decode(background)(stream.getvalue(), None)[..., 0]
        assert decoded.shape == (2, 3)
        if mode != "1":
            assert apart(decoded, expected) <= 1
    assert Decode(upright=False)(stream.getvalue(), None).shape == ((2, 3, 3) if mode == "CMYK" else (3, 2, 3))


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_an_orientation_that_there_is_not_turns_nothing(value):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    stream = io.BytesIO()
    Image.fromarray(upright()).save(stream, "PNG", exif=exif)
    assert apart(Decode()(stream.getvalue(), None), upright()) == 0


def test_a_broken_exif_block_costs_no_picture():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    block = exif.tobytes()
    rng = np.random.default_rng(0)
    blocks = [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0" + bytes(40), b"\xff" * 30, block[:20]]
    blocks += [
        bytes(np.where(rng.random(len(block)) < 0.2, rng.integers(256), list(block)).astype("u1")) for _ in range(40)
    ]
    for broken in blocks:
        stream = io.BytesIO()
        Image.fromarray(upright()).save(stream, "JPEG", quality=100, subsampling=0, exif=broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's, on what is odd
            decoded = Decode()(stream.getvalue(), None)
        assert sorted(decoded.shape) == [3, 32, 48]
    # The orientation is known where another tag of the block can't be written anew.
    odd = block[:-4] + struct.pack(">I", 0)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(HELD[6](upright()))).save(stream, "JPEG", quality=100, exif=odd)
    assert Decode()(stream.getvalue(), None).shape == (32, 48, 3)


def test_a_chain_for_peoples_own_pictures_turns_them():
    chain = (Decode((1, 2, 3), upright=False), Resize(8))
    assert seen_upright(chain) == (Decode((1, 2, 3), upright=True), Resize(8))


# --- levels ---


def tiff(levels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "TIFF")
    return stream.getvalue()


@pytest.mark.parametrize("way", ["file", "image"])
@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (
            np.array([[0, 0.25, 1]], np.float32),
            "floats from 0 to 1, and nothing says which is white: save it with 8 or 16",
        ),
        (np.array([[0, 128, 255]], np.float32), "floats from 0 to 255"),
        (np.array([[0, 40_000, 2_000_000]], np.int32), "levels from 0 to 2,000,000"),
        (np.array([[-5, 4, 300]], np.int32), "levels from -5 to 300"),
        (np.array([[0, 100, 255]], np.int32), "levels up to 255 alone, which are 8 bits by their looks"),
    ],
)
def test_levels_of_which_nothing_says_what_is_white_are_refused(levels, message, way):
    value = tiff(levels) if way == "file" else Image.fromarray(levels)
    for background in ((255, 255, 255), None):
        with pytest.raises(BadExample, match=message) as bad:
            Decode(background)(value, None)
        assert bad.value.kind == "undecodable"


def test_thirty_two_bits_that_hold_sixteen_are_those():
    levels = np.array([[0, 257, 32_768, 65_535]], np.int32)
    for value in (tiff(levels), Image.fromarray(levels)):
        assert Decode()(value, None)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert not Decode()(tiff(np.zeros((2, 2), np.int32)), None).any()  # black by any reading


def test_sixteen_bits_by_the_files_word_may_be_dark_an_array_may_not():
    dark = np.array([[0, 100, 200]], np.uint16)
    for format in ("PNG", "TIFF"):
        stream = io.BytesIO()
        Image.fromarray(dark).save(stream, format)
        assert Decode()(stream.getvalue(), None)[0, :, 0].tolist() == [0, 0, 1]
    for value in (dark, Image.fromarray(dark)):
        with pytest.raises(BadExample, match=r"levels up to 200 alone.*give them as uint8"):
            Decode()(value, None)
    pgm = b"P5 3 1 65535\n" + dark.astype(">u2").tobytes()
    assert Decode()(pgm, None)[0, :, 0].tolist() == [0, 0, 1]
    big = Image.fromarray(np.array([[0, 257, 65_535]], np.uint16)).convert("I").convert("I;16B")
    assert Decode()(big, None)[0, :, 0].tolist() == [0, 1, 255]


def test_colours_of_sixteen_bits_become_eight():
    colours = np.array([[[0, 257, 65_535], [128, 129, 32_768]]], np.uint16)
    assert Decode()(colours, None).tolist() == [[[0, 1, 255], [0, 1, 128]]]


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.int64, np.float32, np.float16, complex])
def test_arrays_of_other_types_are_refused(dtype):
    assert kind_of(Decode(), np.ones((4, 4, 3), dtype)) == "undecodable"


def test_modes_of_other_colours_come_out_as_colours_or_are_refused():
    red = Image.new("RGB", (4, 4), (250, 10, 10))
    for mode in ("CMYK", "YCbCr", "HSV", "RGBX"):
        assert apart(Decode()(red.convert(mode), None), np.asarray(red)) <= 3
    with pytest.raises(BadExample, match=r"L\*a\*b\*: save it as RGB"):
        Decode()(Image.new("LAB", (4, 4)), None)
    bits = np.array([[True, False]])
    assert Decode()(bits, None)[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_it_is_the_first(format):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    stream = io.BytesIO()
    more = {"lossless": True} if format == "WEBP" else {}
    frames[0].save(stream, format, save_all=True, append_images=frames[1:], **more)
    assert getattr(Image.open(io.BytesIO(stream.getvalue())), "n_frames", 1) == 3
    assert Decode()(stream.getvalue(), None)[2, 3].tolist() == [255, 0, 0]
