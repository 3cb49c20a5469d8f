"""Makes the golden files: small pictures as other projects preprocess them, and texts as open_clip cuts them.

    python -m tests.data.golden.make

Needs transformers and open_clip. The tests compare with the files, so that they hold where neither is installed.
"""

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.benchmarks.step_sides import allow_any_torchvision
from tests.data.vocabularies import NAMED, TEXTS, write_open_clip

FOLDER = Path(__file__).parent
SIZE = 16  # of the preprocessed pictures
CROP = 21  # larger than SIZE, and odd
LENGTH = 77

HUGGING_FACE: dict[str, dict[str, Any]] = {
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIZE}, "crop_size": SIZE},
    "clip_padded": {"image_processor_type": "CLIPImageProcessor", "size": SIZE, "crop_size": CROP},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": SIZE, "width": SIZE}},
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": SIZE, "width": SIZE}},
}
OPEN_CLIP: dict[str, dict[str, Any]] = {
    "shortest": {"size": SIZE},
    "squash": {"size": SIZE, "resize_mode": "squash", "interpolation": "bilinear"},
    "longest": {"size": SIZE, "resize_mode": "longest", "fill_color": 7},
}


def pictures() -> dict[str, Image.Image]:
    """By name, which is a mode's and a size's; each is kept as a file."""

    def rgb(height: int, width: int) -> Image.Image:
        rows, columns = np.mgrid[:height, :width]
        red, green = 255 * columns / (width - 1), 255 * rows / (height - 1)
        blue = 127.5 + 127.5 * np.sin(columns * rows / 23)
        return Image.fromarray(np.stack([red, green, blue], -1).round().astype(np.uint8))

    clear = rgb(19, 30)
    clear.putalpha(Image.fromarray(np.tile(np.arange(0, 240, 8, dtype=np.uint8), (19, 1))))
    return {
        "landscape": rgb(21, 46),
        "portrait": rgb(47, 19),
        "square": rgb(16, 16),
        "small": rgb(9, 13),
        "grey": rgb(33, 25).convert("L"),
        "one_bit": rgb(20, 24).convert("1"),
        "palette": rgb(24, 37).quantize(16),
        "transparent": clear,
        "cmyk": rgb(31, 18).convert("CMYK"),
    }


def let_torchvision_load() -> None:
    """Both projects import torchvision where it is installed, whichever torch it was built for."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision"):
        allow_any_torchvision()


def by_hugging_face(name: str, picture: Image.Image) -> np.ndarray:
    """The picture before it is scaled and normalised, uint8."""
    let_torchvision_load()
    import transformers  # pyright: ignore[reportMissingImports]

    config = dict(HUGGING_FACE[name])
    kind = getattr(transformers, config.pop("image_processor_type") + "Pil")
    processor = kind(**config, do_convert_rgb=True, do_rescale=False, do_normalize=False)
    return np.asarray(processor(picture)["pixel_values"][0]).transpose(1, 2, 0)


def by_open_clip(name: str, picture: Image.Image) -> np.ndarray:
    let_torchvision_load()
    from open_clip.transform import image_transform  # pyright: ignore[reportMissingImports]

    config = dict(OPEN_CLIP[name])
    if picture.mode not in ("RGB", "L"):  # which it would resize and fill up as they are, see `from_open_clip`
        picture = picture.convert("RGB")
    transform: Any = image_transform(config.pop("size"), is_train=False, mean=(0, 0, 0), std=(1, 1, 1), **config)
    return np.round(transform(picture).numpy().transpose(1, 2, 0) * 255).astype(np.uint8)


def open_clip_ids() -> list[list[int]]:
    """The ids of all texts, without the padding's zeros at the end."""
    let_torchvision_load()
    from open_clip.tokenizer import SimpleTokenizer  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = SimpleTokenizer(str(write_open_clip(Path(folder))))
    return [[int(i) for i in np.trim_zeros(row.numpy(), "b")] for row in tokenizer([*TEXTS, *NAMED], LENGTH)]


def main() -> None:
    made = pictures()
    for name, picture in made.items():
        picture.save(FOLDER / f"{name}.{'tif' if picture.mode == 'CMYK' else 'png'}")
    for sides, by in ((HUGGING_FACE, by_hugging_face), (OPEN_CLIP, by_open_clip)):
        for side in sides:
            rows = [by(side, picture) for picture in made.values()]
            Image.fromarray(np.concatenate(rows)).save(FOLDER / f"as_{side}.png", optimize=True)
    (FOLDER / "open_clip_ids.json").write_text(json.dumps(open_clip_ids()))


if __name__ == "__main__":
    main()
