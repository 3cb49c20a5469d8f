"""Frames of a video that is stored as such: an array, or a list of pictures or of files of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding import pictures
from mmjax.data.decoding.pictures import MOST_PIXELS

_WHITE = (255, 255, 255)  # behind what is transparent


def stored_frames(
    value: Sequence[Any] | np.ndarray, places: Sequence[int], most_pixels: int = MOST_PIXELS
) -> UInt8[np.ndarray, "f h w 3"]:
    """The frames at these places of an array `[N, H, W, 3]`, or of a list of pictures of one size; no other is decoded.

    Raises:
        BadExample: there is no frame, one can't be decoded or has more than `most_pixels`, or their sizes differ.
    """
    if not len(value):
        raise BadExample("the video has no frames", "empty")
    frames = [pictures.rgb(value[place], _WHITE, most_pixels, upright=True) for place in places]
    if len(shapes := {frame.shape for frame in frames}) > 1:
        raise BadExample(f"the video's frames have the sizes {sorted(shapes)}: they must have one", "undecodable")
    return np.stack(frames)
