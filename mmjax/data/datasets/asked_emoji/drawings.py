"""The drawings of single emoji in `asked_emoji`."""

import io
from functools import lru_cache

from PIL import Image

from mmjax.data.datasets.spoken_emoji.example import picture_folder


def drawing(emoji_id: str, side: int) -> Image.Image:
    """OpenMoji's drawing in `side` pixels a side, RGBA. Raises ImportError where `resvg-py` isn't installed."""
    import resvg_py

    # No system fonts: a drawing would else depend on what the machine has installed.
    rendered = resvg_py.svg_to_bytes(svg_string=_svg(emoji_id), width=side, height=side, skip_system_fonts=True)
    return Image.open(io.BytesIO(rendered)).convert("RGBA")


@lru_cache(maxsize=4_096)
def _svg(emoji_id: str) -> str:
    return (picture_folder() / f"{emoji_id}.svg").read_text(encoding="utf-8")
