"""Bad examples of every kind, made out of good ones of `tests/tiny.py`'s data."""

import random
import struct
import zlib
from pathlib import Path

import numpy as np
import soundfile

# id -> what is wrong with it: all of the training split
SPOILT: dict[str, tuple[str, str]] = {
    "red-disc-0.png": ("image", "undecodable"),
    "yellow-disc-0.png": ("image", "too_large"),
    "green-disc-0.png": ("audio", "not_finite"),
    "cyan-disc-0.png": ("text", "empty"),
    "blue-disc-0.png": ("image", "undecodable"),
    "pink-disc-0.png": ("audio", "too_large"),
    "red-square-0.png": ("audio", "undecodable"),
}


def spoil(table: str) -> None:
    """Makes the examples of SPOILT bad: a picture cut off, one gone, one that claims to be gigantic; a sound of NaN,
    one that would be hours long, one of zeros; a list of captions that are all blank."""
    folder = Path(table).parent
    picture = folder / "red-disc-0.png"
    picture.write_bytes(picture.read_bytes()[:60])
    (folder / "yellow-disc-0.png").write_bytes(huge_png(60_000))
    soundfile.write(folder / "green-disc-0.wav", np.array([0.1, np.nan, 0.1]), 16_000, subtype="FLOAT")
    lines = Path(table).read_text().splitlines()
    lines = [line.replace("a cyan disc", '"["" ""]"') if line.startswith("cyan-disc-0.png") else line for line in lines]
    Path(table).write_text("\n".join(lines) + "\n")
    (folder / "blue-disc-0.png").unlink()
    soundfile.write(folder / "pink-disc-0.wav", np.zeros(20_000, np.int16), 1)  # at one sample a second
    (folder / "red-square-0.wav").write_bytes(bytes(100))


def huge_png(side: int) -> bytes:
    """A hundred bytes that say that they are a picture of `side` × `side`."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def flip(path: Path, choose: random.Random | None = None) -> None:
    """Turns a bit of a file round, one in its middle or any."""
    contents = bytearray(path.read_bytes())
    place, bit = (choose.randrange(len(contents)), choose.randrange(8)) if choose else (len(contents) // 2, 0)
    contents[place] ^= 1 << bit
    path.write_bytes(contents)
