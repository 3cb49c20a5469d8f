"""Decodes pictures: whatever PIL reads, its own images and arrays -> RGB of 8 bits, upright if that is asked for."""

import io
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.signatures import undecodable

Picture = UInt8[np.ndarray, "height width 3"]

# PIL's own bound on pixels that it unpacks without a warning: a quarter of a gigabyte.
MOST_PIXELS = 89_478_485
_LARGEST = 65_535  # of 16 bits

# The transposition that turns a picture of this EXIF orientation upright (Exif 2.32, 4.6.4: places of row 0, column 0).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def rgb(value: Any, background: tuple[int, int, int] | None, most_pixels: int, upright: bool) -> Picture:
    """Decodes a picture to 8-bit RGB; the arguments are the fields of `Decode`.

    Raises:
        BadExample: it is no picture, a broken one, too large, or its type leaves open which value is white.
    """
    try:
        picture = Image.open(io.BytesIO(value)) if isinstance(value, bytes) else value
        if isinstance(picture, Image.Image) and picture.width * picture.height > most_pixels:
            raise BadExample(
                f"the picture has {picture.width}×{picture.height} pixels, more than most_pixels={most_pixels:,}",
                "too_large",
            )
        if not isinstance(picture, Image.Image):
            array = np.asarray(picture)
            if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size:
                return array  # the result is RGB already
            picture = _from_array(array)
        turn = _turn(picture) if upright else None
        picture = _colours(_in_8_bits(picture), background)
        return np.asarray(picture if turn is None else picture.transpose(turn))
    except BadExample:
        raise
    except Image.DecompressionBombError as error:
        raise BadExample(f"the picture is too large: {error}", "too_large") from error
    # A broken file makes PIL raise nearly anything: SyntaxError from a PNG's chunks, struct.error, EOFError, ...
    except Exception as error:
        raise BadExample(undecodable("picture", value, error), "undecodable") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype not in (np.uint8, np.uint16, bool):  # white may be 1.0 or 255
        raise BadExample(f"a picture is an array of uint8 or uint16, not {array.dtype}", "undecodable")
    if array.dtype == np.uint16:
        _check_levels(array, f"the {array.dtype} array")
        array = _eight_bits(array)
    return Image.fromarray(array)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """The transposition that turns the picture upright. `ImageOps.exif_transpose` would rewrite the EXIF block, and
    fail on a broken one.
    """
    picture.load()  # PIL turns a TIFF here; a PNG's EXIF may follow the pixels
    try:
        return _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken block makes PIL raise nearly anything, too
        return None


def _colours(picture: Image.Image, background: tuple[int, int, int] | None) -> Image.Image:
    if picture.mode == "LAB":  # PIL doesn't convert it
        raise BadExample(
            "the picture's colours are L*a*b*: save it as RGB (magick IN -colorspace sRGB OUT)", "undecodable"
        )
    if background is None:
        return picture.convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        opaque = Image.new("RGBA", picture.size, (*background, 255))
        picture = Image.alpha_composite(opaque, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")  # converting would copy it


def _in_8_bits(picture: Image.Image) -> Image.Image:
    """Converts a grey picture of more bits to 8: PIL's own conversion makes all levels above 255 white."""
    if picture.mode == "F":
        low, high = picture.getextrema()
        raise BadExample(
            f"the picture's levels are floats from {low:g} to {high:g}, and nothing says which is white: save it with "
            "8 or 16 bits",
            "undecodable",
        )
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        return picture
    levels = np.asarray(picture)
    wide = picture.mode == "I"  # 32 bits, which hold 16 where the file's format has no more
    if not (picture.format in ("PNG", "PPM") or (picture.format is not None and not wide)):
        _check_levels(levels, f"the picture of {32 if wide else 16} bits")
    grey = Image.fromarray(_eight_bits(levels))
    transparent = picture.info.get("transparency")  # a grey level, of 16 bits
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey


def _check_levels(levels: np.ndarray, what: str) -> None:
    """Raises where the range of these levels isn't 0 to 65,535: they would come out black or white."""
    low, high = int(levels.min(initial=0)), int(levels.max(initial=0))
    if low < 0 or high > _LARGEST:
        raise BadExample(
            f"{what} has levels from {low:,} to {high:,}, and 0 to 65,535 is what can be told: save it with 8 or 16 "
            "bits",
            "undecodable",
        )
    if 0 < high <= 255:
        raise BadExample(
            f"{what} has levels up to {high} alone, which are 8 bits by their looks and would be black as 16: give "
            "them as uint8",
            "undecodable",
        )


def _eight_bits(levels: np.ndarray) -> np.ndarray:
    """Converts levels of 16 bits to 8."""
    return np.round(levels.clip(0, _LARGEST) / 257).astype(np.uint8)
