"""Transforms of one example: what a transform is, and those of pictures (`captions.py`, `waveforms.py`: the others).

A modality has a chain of transforms, `transform(value, rng) -> value`, each a frozen dataclass of plain fields. `rng`
is the example's own `numpy.random.Generator` in training and None in evaluation, where every transform is deterministic
and an augmentation is the identity. A chain ends in arrays of one shape (`Spec`), so a batch has one structure for a
run.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from mmjax.kinds import KINDS, Kind

Rng = np.random.Generator | None
Picture = UInt8[np.ndarray, "height width 3"]

WHITE = (255, 255, 255)
# Rec. 601 luma, what PIL's and torchvision's greyscale use.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
Method = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class BadExample(Exception):  # noqa: N818 (it is no error of the program's)
    """What an example holds can't be used: its rows become zeros with valid=False, and the run goes on.

    kind: what it is counted as. "undecodable": no picture or sound, or one that is broken or gone; "too_large": more
    than a machine should be made to unpack; "empty"; "not_finite": NaN or infinity; "unfit": sound, but not for this
    chain, such as a picture smaller than its crop.
    """

    def __init__(self, reason: str, kind: Kind):
        super().__init__(reason, kind)  # both, so that it can be sent to another process
        self.reason, self.kind = reason, kind

    def __str__(self) -> str:
        return self.reason

    @property
    def code(self) -> int:
        """What stands for the kind in a batch's `<modality>_bad`: its place in `KINDS`, from 1 on; 0 is not bad."""
        return KINDS.index(self.kind) + 1


class Spec(NamedTuple):
    """One example's array of a modality: `shape`, `dtype`, and whether a bool mask over its first axis goes with it.

    labels: what else the chain tells of the example, (name, shape, dtype) each; in a batch it is `<modality>_<name>`.
    """

    shape: tuple[int, ...]
    dtype: str
    masked: bool = False
    labels: tuple[tuple[str, tuple[int, ...], str], ...] = ()


class Masked(NamedTuple):
    """An array and the mask over its first axis: True where it holds something, False where it is padding."""

    values: Shaped[np.ndarray, "length *rest"]
    mask: Bool[np.ndarray, " length"]


class Labelled(NamedTuple):
    """An array, with its mask or not, and by name the labels that the `Spec` announces."""

    value: np.ndarray | Masked
    labels: Mapping[str, Any]


class Transform:
    """A step of a modality's chain. `random` says whether it draws from `rng`."""

    random: ClassVar[bool] = False

    def __call__(self, value: Any, rng: Rng) -> Any:
        """Gives the transformed value. Raises `BadExample` where the value can't be used."""
        raise NotImplementedError

    def spec(self, before: Spec | None) -> Spec | None:
        """The result's shape and dtype given the input's; None where it varies. Here: what came in."""
        return before


@dataclass(frozen=True)
class Decode(Transform):
    """Encoded bytes (anything PIL reads), a PIL image or a uint8 or uint16 array -> RGB uint8 `[H, W, 3]`.

    What is transparent becomes `background`, 0 to 255 a channel; None leaves the colour that stands under the
    transparency, as OpenAI's CLIP, open_clip and torchvision do. Grey levels of 16 bits are scaled to 8. A picture
    whose header says that it has more than `most_pixels` isn't unpacked (a file of some kilobytes can hold gigabytes);
    the default is PIL's own bound, a quarter of a gigabyte.
    """

    background: tuple[int, int, int] | None = WHITE
    most_pixels: int = 89_478_485

    def __call__(self, value: Any, rng: Rng) -> Picture:
        del rng
        try:
            picture = Image.open(io.BytesIO(value)) if isinstance(value, bytes) else value
            if isinstance(picture, Image.Image) and picture.width * picture.height > self.most_pixels:
                raise BadExample(
                    f"the picture has {picture.width}×{picture.height} pixels, more than most_pixels="
                    f"{self.most_pixels:,}",
                    "too_large",
                )
            if not isinstance(picture, Image.Image):
                picture = np.asarray(picture)
                if picture.dtype not in (np.uint8, np.uint16, bool):  # 1.0 or 255 may be white: nothing says which
                    raise BadExample(f"a picture is an array of uint8 or uint16, not {picture.dtype}", "undecodable")
                picture = Image.fromarray(picture)
            if picture.mode == "I" or picture.mode.startswith("I;16"):
                picture = _in_8_bits(picture)
            if self.background is None:
                return np.asarray(picture.convert("RGB"))
            if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                opaque = Image.new("RGBA", picture.size, (*self.background, 255))
                picture = Image.alpha_composite(opaque, picture)
            return np.asarray(picture.convert("RGB"))
        except BadExample:
            raise
        except Image.DecompressionBombError as error:
            raise BadExample(f"the picture is too large: {error}", "too_large") from error
        # A broken file makes PIL raise nearly anything: SyntaxError from a PNG's chunks, struct.error, EOFError, ...
        except Exception as error:
            raise BadExample(f"the picture can't be decoded: {type(error).__name__}: {error}", "undecodable") from error

    def spec(self, before: Spec | None) -> None:
        return None


@dataclass(frozen=True)
class Resize(Transform):
    """To `size` × `size`, whatever the aspect (as SigLIP does). Antialiased."""

    size: int
    method: Method = "bicubic"

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        del rng
        return _resized(value, self.size, self.size, self.method)

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
        height, width = value.shape[:2]
        short = min(height, width)
        return _resized(value, self.size * height // short, self.size * width // short, self.method)

    def spec(self, before: Spec | None) -> None:
        return None


@dataclass(frozen=True)
class ResizeLonger(Transform):
    """Scales so that the longer side has `size` pixels; the shorter one is rounded (open_clip's resize_mode "longest").

    `CenterCrop(size, fill=...)` follows, which fills what is missing.
    """

    size: int
    method: Method = "bicubic"

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        del rng
        height, width = value.shape[:2]
        ratio = max(height, width) / self.size  # in open_clip's order, for the same roundings
        return _resized(value, max(1, round(height / ratio)), max(1, round(width / ratio)), self.method)

    def spec(self, before: Spec | None) -> None:
        return None


@dataclass(frozen=True)
class CenterCrop(Transform):
    """The middle `size` × `size` pixels.

    Where the middle falls between two pixels the projects differ: `middle` "down" starts at the pixel before, as
    Hugging Face does (its image processors without torch), "even" at the one with an even number, as torchvision and
    open_clip do. What a smaller picture lacks is `fill`; None means that it can't be used.
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
        top, left = self._start(height), self._start(width)
        if not lacks:
            return value[top : top + self.size, left : left + self.size]
        result = np.full((self.size, self.size, 3), self.fill, np.uint8)
        rows, columns = (slice(max(0, -start), max(0, -start) + side) for start, side in ((top, height), (left, width)))
        result[rows, columns] = value[max(0, top) : max(0, top) + self.size, max(0, left) : max(0, left) + self.size]
        return result

    def _start(self, side: int) -> int:
        """Where the crop starts on a side; below 0 it is so far before the picture."""
        if self.middle == "down":
            return (side - self.size) // 2
        # torchvision rounds the place of a crop, half to even, but pads the smaller half first.
        return round((side - self.size) / 2) if side >= self.size else -((self.size - side) // 2)

    def spec(self, before: Spec | None) -> Spec:
        return _picture(self.size)


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """A random part of the picture, scaled to `size` × `size` (Szegedy et al. 2015, arXiv:1409.4842).

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
        return _resized(part, self.size, self.size, self.method)

    def spec(self, before: Spec | None) -> Spec:
        return _picture(self.size)


@dataclass(frozen=True)
class RandomAffine(Transform):
    """Moves, turns and scales the picture a little round its middle; what comes into view is `fill`.

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
    """Brightness, contrast and saturation, each scaled by a factor drawn from `[1 - x, 1 + x]`."""

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
        mean_grey = np.float32(value.reshape(-1, 3).mean(axis=0, dtype=np.float32) @ _LUMA)
        pixels = value.reshape(-1, 3).astype(np.float32) @ (brightness * contrast * mixing)
        pixels += brightness * (1 - contrast) * mean_grey + np.float32(0.5)  # the half rounds to the nearest
        return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8).reshape(value.shape)


def prefix_mask(length: int, real: int) -> Bool[np.ndarray, " length"]:
    """True for the first `real` places, False for the padding behind them."""
    mask = np.zeros(length, bool)
    mask[:real] = True
    return mask


def _picture(size: int) -> Spec:
    return Spec((size, size, 3), "uint8")


def _in_8_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of 16 bits as one of 8: PIL's own conversion makes all levels above 255 white."""
    levels = np.asarray(picture).clip(0, 65_535)
    grey = Image.fromarray(np.round(levels / 257).astype(np.uint8))
    transparent = picture.info.get("transparency")  # a grey level, of 16 bits
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    return grey


def _resized(value: Picture, height: int, width: int, method: str) -> Picture:
    if value.shape[:2] == (height, width):
        return value
    return np.asarray(Image.fromarray(value).resize((width, height), _RESAMPLING[method]))
