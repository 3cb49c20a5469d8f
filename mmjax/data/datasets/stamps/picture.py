"""The picture of a stamp: its drawing, over white, in the middle of a square."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmjax.data.decoding.signatures import in_words
from mmjax.errors import UserError

IMAGE_SIZE = 224
_DRAWN = 512  # pixels of an SVG's width, before it is cut out and scaled down
# Pixels of an inch, as in Inkscape at the time: files in pt, cm or mm without a viewBox fill their page with it.
_DPI = 90
_SEEN = 8  # of 255: smaller differences from white are invisible


def draw(file: Path) -> UInt8[np.ndarray, "224 224 3"] | None:
    """Draws a PNG or SVG file; None where nothing is visible on white.

    Raises:
        UserError: the file, which the message names, can't be drawn.
    """
    try:
        drawn = Image.open(io.BytesIO(_rendered(file) if file.suffix == ".svg" else file.read_bytes())).convert("RGBA")
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be drawn: {in_words(error)}") from error
    picture = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    seen = Image.fromarray((255 - np.asarray(picture)).max(axis=2) > _SEEN).getbbox()
    if seen is None:
        return None
    picture = picture.crop(seen)
    side = max(picture.size)
    width, height = (max(1, round(IMAGE_SIZE * length / side)) for length in picture.size)
    square = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "white")
    scaled = picture.resize((width, height), Image.Resampling.LANCZOS)
    square.paste(scaled, ((IMAGE_SIZE - width) // 2, (IMAGE_SIZE - height) // 2))
    return np.asarray(square)


def png(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """The picture as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def _rendered(file: Path) -> bytes:
    import resvg_py

    svg = file.read_text(encoding="utf-8")
    return resvg_py.svg_to_bytes(svg_string=svg, width=_DRAWN, dpi=_DPI, skip_system_fonts=True)
