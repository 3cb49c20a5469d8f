"""Draws the frames of `emoji_stories`: emoji on a light background that differs by story."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mmjax.data.datasets.asked_emoji.drawings import drawing
from mmjax.data.datasets.emoji_stories.grammar import HEIGHT, WIDTH, Plot
from mmjax.data.datasets.emoji_stories.motion import Pose, poses

TONES = (
    *((250, 236, 232), (250, 243, 226), (240, 247, 228), (228, 246, 236)),
    *((228, 242, 250), (234, 236, 250), (245, 234, 248), (238, 238, 238)),
)
_PALER = 0.6  # of the way from a tone to white, at the bottom
_MASTER = 96  # pixels of the drawing that all sizes are made from


def backdrop(tone: int) -> UInt8[np.ndarray, "h w 3"]:
    """The background of a story, of one of `TONES`: darker at the top."""
    top = np.array(TONES[tone], float)
    paler = np.linspace(0, _PALER, HEIGHT)[:, None]
    rows = np.round(top + paler * (255 - top)).astype(np.uint8)
    return np.repeat(rows[:, None], WIDTH, axis=1)


def painted_frames(plot: Plot, cast: Sequence[str], lengths: Sequence[int], tone: int) -> UInt8[np.ndarray, "f h w 3"]:
    """The frames of a story, RGB.

    Args:
        plot: the story's.
        cast: the emoji that plays each role, by its id.
        lengths: frames of each event.
        tone: of the background, an index of `TONES`.

    Raises ImportError where `resvg-py` isn't installed.
    """
    empty, stages = backdrop(tone).astype(np.float32), plot.stages()
    frames = np.empty((sum(lengths), HEIGHT, WIDTH, 3), np.uint8)
    number = 0
    for place, length in enumerate(lengths):
        for within in range(length):
            canvas = empty.copy()
            for pose in poses(plot, stages, place, within / length):
                _paint(canvas, cast[pose.role], pose)
            frames[number] = np.round(np.clip(canvas, 0, 255))
            number += 1
    return frames


def _paint(canvas: Float[np.ndarray, "h w 3"], emoji_id: str, pose: Pose) -> None:
    emoji = _sprite(emoji_id, round(pose.side), round(pose.angle))
    side = len(emoji)
    x, y = round(pose.x - side / 2), round(pose.y - side / 2)
    left, top = max(0, x), max(0, y)
    right, bottom = min(WIDTH, x + side), min(HEIGHT, y + side)
    if left < right and top < bottom:
        part = emoji[top - y : bottom - y, left - x : right - x] * pose.opacity
        under = canvas[top:bottom, left:right]
        under *= 1 - part[..., 3:]
        under += 255 * part[..., :3]


@lru_cache(maxsize=4_096)
def _sprite(emoji_id: str, side: int, angle: int) -> Float[np.ndarray, "s s 4"]:
    """An emoji from 0 to 1, its colours already multiplied by its opacity; a turned one needs more than `side`."""
    master = _master(emoji_id)
    if angle:
        turned = master.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        side = round(side * turned.width / master.width)
        master = turned
    small = master.resize((side, side), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(small, np.float32) / 255, 0, 1)


@lru_cache(maxsize=1_024)
def _master(emoji_id: str) -> Image.Image:
    """The visible part of the drawing as a square, its colours multiplied by its opacity."""
    whole = drawing(emoji_id, _MASTER)
    box = whole.getchannel("A").point([0] * 8 + [255] * 248).getbbox() or (0, 0, *whole.size)
    side = max(box[2] - box[0], box[3] - box[1])
    square = Image.new("RGBA", (side, side))
    square.paste(whole.crop(box), ((side - box[2] + box[0]) // 2, (side - box[3] + box[1]) // 2))
    return square.convert("RGBa")
