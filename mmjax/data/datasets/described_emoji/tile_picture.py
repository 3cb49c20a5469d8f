"""The picture of a scene of `described_emoji`."""

import io
from functools import lru_cache

from PIL import Image

from mmjax.data.datasets.asked_emoji.colours import palette_tone
from mmjax.data.datasets.asked_emoji.drawings import drawing
from mmjax.data.datasets.described_emoji.tiles import CELL, TiledScene

PICTURE_SIDE = 4 * CELL  # pixels


def draw_tiles(scene: TiledScene) -> bytes:
    """The tiles of a scene over white, with their emoji: PNG, RGB, `PICTURE_SIDE` pixels a side."""
    picture = Image.new("RGB", (PICTURE_SIDE, PICTURE_SIDE), "white")
    for tile in scene.tiles:
        picture.paste(palette_tone(tile.colour), tile.box)
        for each in tile.copies:
            emoji = _drawn(tile.emoji, each.side)
            picture.paste(emoji, (each.x, each.y), emoji.getchannel("A"))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


_drawn = lru_cache(maxsize=8_192)(drawing)  # all that the dataset shows: 25 MB
