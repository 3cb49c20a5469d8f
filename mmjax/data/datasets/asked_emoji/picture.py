"""The picture of a scene of `asked_emoji`."""

import io
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmjax.data.datasets.asked_emoji.drawings import drawing
from mmjax.data.datasets.asked_emoji.scenes import SIDE, Scene


def draw(scene: Scene) -> bytes:
    """The emoji of a scene over white: PNG, RGB, `SIDE` pixels a side."""
    stream = io.BytesIO()
    Image.fromarray(painted(scene)).save(stream, "PNG")
    return stream.getvalue()


def painted(scene: Scene) -> UInt8[np.ndarray, "side side 3"]:
    """The same as an array. What was painted once is kept, so it takes microseconds at last."""
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for placed in scene.placed:
        rows, columns = slice(placed.y, placed.y + placed.side), slice(placed.x, placed.x + placed.side)
        picture[rows, columns] = _emoji(placed.thing.id, placed.side)  # each has a quarter of its own
    return picture


@lru_cache(maxsize=32_768)  # all emoji of training in all sizes: 100 MB
def _emoji(emoji_id: str, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """One emoji over white."""
    emoji = drawing(emoji_id, side)
    picture = Image.new("RGB", emoji.size, "white")
    picture.paste(emoji, mask=emoji.getchannel("A"))
    return np.asarray(picture)
