"""The picture of a scene of `asked_emoji`, as a file."""

import io

from PIL import Image

from mmjax.data.datasets.asked_emoji.drawings import drawing
from mmjax.data.datasets.asked_emoji.scenes import SIDE, Scene


def draw(scene: Scene) -> bytes:
    """The emoji of a scene over white: PNG, RGB, `SIDE` pixels a side."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    for placed in scene.placed:
        emoji = drawing(placed.thing.id, placed.side)
        picture.paste(emoji, (placed.x, placed.y), mask=emoji.getchannel("A"))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
