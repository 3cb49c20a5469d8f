"""The colour of an emoji, where it clearly has one."""

import numpy as np
from jaxtyping import Bool, UInt8

# OpenMoji's drawings are of these colours alone, but for antialiased edges and skin. Two are left unnamed: an amber
# between orange and yellow, and the dark tones that outlines are of, which say nothing of what they surround.
_PALETTE = {
    "red": ("ea5a47", "d22f27", "781e32"),
    "orange": ("f4aa41", "e27022"),
    "yellow": ("fcea2b",),
    "green": ("b1cc33", "5c9e31", "186648"),
    "blue": ("92d3f5", "61b2e4", "1e50a0"),
    "purple": ("b399c8", "8967aa"),
    "pink": ("ffa7c0", "e67a94"),
    "brown": ("a57939", "6a462f"),
    "grey": ("d0cfce", "9b9b9a"),
    "white": ("ffffff",),
    "amber": ("f1b31c",),
    "outline": ("000000", "3f3f3f"),
}
_NAMES = np.array([name for name, tones in _PALETTE.items() for _ in tones])
_TONES = np.array([tuple(bytes.fromhex(tone)) for tones in _PALETTE.values() for tone in tones], np.int32)
_OPAQUE = 250  # of 255: pixels below it are an edge, mixed with what is behind
_FILLED = 0.35  # of the opaque pixels aren't outline, else lines make the drawing
_CLEAR = 0.65  # of those are of one colour, else nobody would say which


def palette_tone(colour: str) -> tuple[int, ...]:
    """The first of OpenMoji's tones of a colour, which is one of `COLOURS`: red, green and blue, 0 to 255."""
    return tuple(bytes.fromhex(_PALETTE[colour][0]))


def colour_of(drawing: UInt8[np.ndarray, "h w 4"]) -> str | None:
    """The colour of a drawing (RGBA), or None where it has none that is clear.

    Each opaque pixel has the name of the palette's nearest tone (squared distance in RGB). Outlines don't count. The
    most frequent name is the colour if it has 65 % of the other pixels, and these are 35 % of all.
    """
    opaque: Bool[np.ndarray, "h w"] = drawing[..., 3] >= _OPAQUE
    pixels = drawing[opaque][:, :3].astype(np.int32)
    if not len(pixels):
        return None
    names = _NAMES[((pixels[:, None] - _TONES) ** 2).sum(axis=2).argmin(axis=1)]
    filled = names[names != "outline"]
    if len(filled) < _FILLED * len(names):
        return None
    found, times = np.unique(filled, return_counts=True)
    colour = str(found[times.argmax()])
    return colour if colour != "amber" and times.max() >= _CLEAR * len(filled) else None
