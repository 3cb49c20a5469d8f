"""Draws what each word looks at on the pictures of a few examples."""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mmjax.evaluate.report.findings import Findings
from mmjax.evaluate.report.markup import Markup, short, tag
from mmjax.evaluate.report.media import Media

SIDE = 112  # pixels of a picture
WORDS = 16  # of a text that are drawn
DARK = 0.2  # brightness of a patch that isn't looked at


def word_looks(found: Findings, media: Media) -> Markup | None:
    """Pictures of each example: as the model sees it, and for each word, bright where it looks; None where there are no
    such maps."""
    made = []
    for looked in found.looked:
        for name, pixels in looked.pictures.items():
            maps = looked.maps.maps.get(name)
            if maps is None or maps.ndim != 3:
                continue
            tiles: list[Any] = [_tile(media, pixels, "the picture", None)]
            tiles += [
                _tile(media, _lit(pixels, each), f"where {short(word, 30)!r} looks", short(word, 14))
                for word, each in list(zip(looked.maps.words, maps, strict=True))[:WORDS]
            ]
            caption = tag("figcaption", tag("q", short(media.caption(looked.row), 160)), f" by {looked.objective}")
            made.append(tag("figure", caption, tag("ul", tiles, class_="looks"), class_="panel"))
    return tag("div", made) if made else None


def _tile(media: Media, pixels: UInt8[np.ndarray, "h w 3"], said: str, word: str | None) -> Markup:
    uri = media.made(pixels, SIDE)
    shown = tag("span", "(no picture)", class_="gone") if uri is None else tag("img", src=uri, alt=said, loading="lazy")
    return tag("li", shown, tag("small", word or "as it is"))


def _lit(pixels: UInt8[np.ndarray, "h w 3"], looks: Float[np.ndarray, "rows columns"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture, as bright as the map, whose largest value leaves it as it is."""
    most = float(looks.max())
    share = Image.fromarray((looks / (most if most > 0 else 1)).astype(np.float32))
    height, width = pixels.shape[:2]
    light = np.asarray(share.resize((width, height), Image.Resampling.NEAREST))[..., None]
    return np.rint(pixels * (DARK + (1 - DARK) * light)).astype(np.uint8)
