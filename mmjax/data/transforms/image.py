"""Transforms of pictures: from encoded bytes or arrays to uint8 pixels of one size (`text.py`, `audio.py`: the others).

A modality has a chain of transforms, `transform(value, rng) -> value`, each a frozen dataclass of plain fields. `rng`
is the example's own `numpy.random.Generator` in training and None in evaluation, where every transform is deterministic
and an augmentation is the identity. A chain ends in arrays of one shape (`Spec`), so a batch has one structure for a
run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from mmjax.data.bad_example import BadExample as BadExample  # a transform raises it; importable from here
from mmjax.data.decoding import pictures
from mmjax.data.decoding.pictures import MOST_PIXELS, Picture
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.image_input import WHITE, PictureInput

# Rec. 601 luma, what PIL's and torchvision's greyscale use.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_AT_A_TIME = 2**22  # pixels converted to floats at a time: floats take eight times the memory of a picture
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
Method = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Decode(Transform):
    """Decodes bytes (anything PIL reads), a PIL image or a uint8 or uint16 array to RGB uint8 `[H, W, 3]`.

    Transparent pixels become `background`, 0 to 255 a channel; None keeps the colour under the transparency, as
    OpenAI's CLIP, open_clip and torchvision do. Of several frames the first is used. Grey levels of 16 bits are scaled
    to 8; floats, and 32 bits that hold other ranges than 16, are refused. A picture whose header says that it has more
    than `most_pixels` isn't unpacked (a file of some kilobytes can hold gigabytes); the default is PIL's own bound, a
    quarter of a gigabyte.

    upright: whether a picture is turned as its EXIF orientation says (JPEG, PNG, WebP, AVIF, and PIL images that carry
    it still; TIFF is turned by PIL in any case), as people see it. Most projects' and papers' own preprocessing doesn't
    turn it.
    """

    background: tuple[int, int, int] | None = WHITE
    most_pixels: int = MOST_PIXELS
    upright: bool = True

    def __call__(self, value: Any, rng: Rng) -> Picture:
        del rng
        return pictures.rgb(value, self.background, self.most_pixels, self.upright)

    def spec(self, before: Spec | None) -> None:
        return None

    def by_hand(self, upright: bool) -> Transform:
        return replace(self, upright=True) if upright else self


@dataclass(frozen=True)
class Resize(Transform):
    """Scales to `size` × `size`, whatever the aspect (as SigLIP does). Antialiased."""

    size: int
    method: Method = "bicubic"

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        del rng
        return resized(value, self.size, self.size, self.method)

    def spec(self, before: Spec | None) -> Spec:
        return _picture(self.size)


@dataclass(frozen=True)
class ResizeShorter(Transform):
    """Scales so that the shorter side has `size` pixels (as CLIP does; `CenterCrop` or a random crop follows).

    The longer side is rounded down, as torchvision and Hugging Face do.
    """

    size: int
    method: Method = "bicubic"

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        del rng
        return resized(value, *self.sides(*value.shape[:2]), self.method)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """The height and width of the result for a picture of this height and width."""
        short = min(height, width)
        return self.size * height // short, self.size * width // short

    def spec(self, before: Spec | None) -> None:
        return None


@dataclass(frozen=True)
class ResizeLonger(Transform):
    """Scales so that the longer side has `size` pixels; the shorter one is rounded (open_clip's resize_mode "longest").

    `CenterCrop(size, fill=...)` follows, which fills the rest.
    """

    size: int
    method: Method = "bicubic"

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        del rng
        height, width = value.shape[:2]
        ratio = max(height, width) / self.size  # in open_clip's order, for the same roundings
        return resized(value, max(1, round(height / ratio)), max(1, round(width / ratio)), self.method)

    def spec(self, before: Spec | None) -> None:
        return None


@dataclass(frozen=True)
class CenterCrop(Transform):
    """Crops to the middle `size` × `size` pixels.

    Where the middle falls between two pixels the projects differ: `middle` "down" starts at the pixel before, as
    Hugging Face does (its image processors without torch), "even" at the one with an even number, as torchvision and
    open_clip do. A smaller picture is padded with `fill`; None means that it is a bad example.
    """

    size: int
    middle: Literal["down", "even"] = "down"
    fill: tuple[int, int, int] | None = None

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        del rng
        height, width = value.shape[:2]
        lacks = min(height, width) < self.size
        if lacks and self.fill is None:
            raise BadExample(
                f"a picture of {height}×{width} is smaller than CenterCrop({self.size}): put ResizeShorter before it",
                "unfit",
            )
        top, left = self.start(height), self.start(width)
        if not lacks:
            return value[top : top + self.size, left : left + self.size]
        result = np.full((self.size, self.size, 3), self.fill, np.uint8)
        rows, columns = (slice(max(0, -start), max(0, -start) + side) for start, side in ((top, height), (left, width)))
        result[rows, columns] = value[max(0, top) : max(0, top) + self.size, max(0, left) : max(0, left) + self.size]
        return result

    def start(self, side: int) -> int:
        """The start of the crop on a side; negative where the picture is smaller."""
        if self.middle == "down":
            return (side - self.size) // 2
        # torchvision rounds the place of a crop, half to even, but pads the smaller half first.
        return round((side - self.size) / 2) if side >= self.size else -((self.size - side) // 2)

    def spec(self, before: Spec | None) -> Spec:
        return _picture(self.size)


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """Crops a random part of the picture and scales it to `size` × `size` (Szegedy et al. 2015, arXiv:1409.4842).

    The part has a share of the picture's area drawn from `area` and a width/height drawn log-uniformly from `aspect`.
    If ten draws don't fit into the picture, it is the largest part in the middle with such a width/height, as in
    torchvision. In evaluation it is the largest square in the middle.
    """

    random = True

    size: int
    area: tuple[float, float] = (0.9, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    method: Method = "bicubic"

    _ATTEMPTS = 10  # as torchvision

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        height, width = value.shape[:2]
        least, most = self.aspect if rng is not None else (1.0, 1.0)
        box_height, box_width = min(height, round(width / least)), min(width, round(height * most))
        top, left = (height - box_height) // 2, (width - box_width) // 2
        for _ in range(self._ATTEMPTS if rng is not None else 0):
            assert rng is not None
            pixels = height * width * rng.uniform(*self.area)
            aspect = math.exp(rng.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
            wide, high = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
            if 0 < wide <= width and 0 < high <= height:
                box_height, box_width = high, wide
                top, left = int(rng.integers(0, height - high + 1)), int(rng.integers(0, width - wide + 1))
                break
        part = value[top : top + box_height, left : left + box_width]
        return resized(part, self.size, self.size, self.method)

    def spec(self, before: Spec | None) -> Spec:
        return _picture(self.size)


@dataclass(frozen=True)
class RandomAffine(Transform):
    """Moves, turns and scales the picture a little round its middle; uncovered pixels become `fill`.

    `translate` is the largest shift as a share of the side, `degrees` the largest turn, `scale` the range of sizes.
    """

    random = True

    translate: float = 0.0
    degrees: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    fill: tuple[int, int, int] = WHITE

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        if rng is None:
            return value
        height, width = value.shape[:2]
        shift_x, shift_y, turn = rng.uniform(-1, 1, 3)
        angle, scale = math.radians(turn * self.degrees), rng.uniform(*self.scale)
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        middle_x, middle_y = width / 2, height / 2
        from_x, from_y = middle_x + shift_x * self.translate * width, middle_y + shift_y * self.translate * height
        # PIL wants the inverse map, from a pixel of the result to the place in the picture that it shows.
        coefficients = (
            *(cos, sin, middle_x - cos * from_x - sin * from_y),
            *(-sin, cos, middle_y + sin * from_x - cos * from_y),
        )
        moved = Image.fromarray(value).transform(
            (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=self.fill
        )
        return np.asarray(moved)


@dataclass(frozen=True)
class RandomFlip(Transform):
    """Mirrors left and right with this probability."""

    random = True

    probability: float = 0.5

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        return value[:, ::-1] if rng is not None and rng.random() < self.probability else value


@dataclass(frozen=True)
class ColorJitter(Transform):
    """Scales brightness, contrast and saturation, each by a factor drawn from `[1 - x, 1 + x]`."""

    random = True

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        if rng is None:
            return value
        ranges = np.array([self.brightness, self.contrast, self.saturation])
        brightness, contrast, saturation = (1 + ranges * rng.uniform(-1, 1, 3)).astype(np.float32)
        # One 3×3 map and an offset do all three: saturation is about each pixel's grey, contrast about the mean grey.
        mixing = np.outer(_LUMA, np.full(3, 1 - saturation, np.float32)) + saturation * np.eye(3, dtype=np.float32)
        flat = value.reshape(-1, 3)
        mean_grey = np.float32(flat.mean(axis=0, dtype=np.float32) @ _LUMA)
        result = np.empty_like(flat)
        for start in range(0, len(flat), _AT_A_TIME):
            pixels = flat[start : start + _AT_A_TIME].astype(np.float32) @ (brightness * contrast * mixing)
            pixels += brightness * (1 - contrast) * mean_grey + np.float32(0.5)  # the half makes it rounding
            result[start : start + _AT_A_TIME] = np.clip(pixels, 0, 255, out=pixels)
        return result.reshape(value.shape)


def seen_upright(chain: Sequence[Transform]) -> tuple[Transform, ...]:
    """The chain for users' own pictures: they are turned as their EXIF orientation says, whatever the
    chain's setting.
    """
    return tuple(replace(step, upright=True) if isinstance(step, Decode) else step for step in chain)


def _picture(size: int) -> Spec:
    return Spec((size, size, 3), "uint8", kind=PictureInput)


def resized(
    value: Picture, height: int, width: int, method: str, box: tuple[float, float, float, float] | None = None
) -> Picture:
    """Scales a picture to that size; box: scales only this part, (left, top, right, bottom) in pixels.

    Raises BadExample where the result would be too large for memory.
    """
    if box is None and value.shape[:2] == (height, width):
        return value
    if height * width > MOST_PIXELS:
        raise BadExample(
            f"a picture of {value.shape[0]}×{value.shape[1]} would become one of {height:,}×{width:,}, more than "
            f"{MOST_PIXELS:,} pixels",
            "too_large",
        )
    return np.asarray(Image.fromarray(value).resize((width, height), _RESAMPLING[method], box))
