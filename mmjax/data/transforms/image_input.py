"""Reads a user's pictures. They are turned upright, as their EXIF orientation says, also for models whose own
preprocessing doesn't turn them.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data.decoding.pictures import MOST_PIXELS, rgb
from mmjax.data.transforms.input import Input, Read, file_content, is_path, value_kind
from mmjax.errors import UserError

BRIGHTEST = 16.0  # a normalised picture's values are a few standard deviations; 255 is one that isn't normalised
WHITE = (255, 255, 255)  # behind what is transparent
SIDE = 512  # pixels of a picture to time a chain with; web pictures are stored about so large for training


class PictureInput(Input):
    """Reads pictures: PIL's, arrays of pixels, files; or floats that are normalised already."""

    one, several, draws, amount = "picture", "pictures", True, "std"
    # What can't be decoded here (HEIC) is listed too, so that it is counted and named rather than missed in silence.
    endings = (
        *(".avif", ".bmp", ".gif", ".heic", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm"),
        *(".tif", ".tiff", ".webp"),
    )

    @classmethod
    def drawn(cls, value: Any) -> np.ndarray:
        return rgb(value, WHITE, MOST_PIXELS, upright=True)

    @classmethod
    def made_up(cls) -> tuple[bytes, str]:
        """Smooth shapes with some grain, about as hard for JPEG as a photograph."""
        rng = np.random.default_rng(0)
        shapes = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
        coarse = shapes.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels = np.asarray(coarse, np.int16) + rng.normal(0, 8, (SIDE, SIDE, 3)).astype(np.int16)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        return file.getvalue(), f"a JPEG of {SIDE}x{SIDE}"

    @classmethod
    def disturbed(
        cls,
        values: np.ndarray,
        mask: np.ndarray | None,
        amount: float,
        random: np.random.Generator,
        chain: Sequence[Any],
    ) -> np.ndarray:
        """Pixels with Gaussian noise, whose standard deviation is `amount` times the range of pixels; what leaves the
        range is cut off."""
        if not 0 <= amount < np.inf:
            raise UserError(f"a picture's noise of std={amount} must be at least 0, in parts of the range of pixels")
        if values.dtype != np.uint8:
            raise UserError(f"pictures are disturbed as pixels, uint8, and this model reads them as {values.dtype}")
        noise = random.standard_normal(values.shape, np.float32) * np.float32(255 * amount)
        return np.rint(values + noise).clip(0, 255).astype(np.uint8)

    @property
    def takes(self) -> str:
        return (
            "it takes a PIL image, a uint8 array [H, W, 3], a file name, or bytes of a file, or a float array "
            f"{list(self.spec.shape)} that is preprocessed already"
        )

    @property
    def alone(self) -> tuple[int, ...]:
        return (2, 3)

    def read(self, value: Any, where: str) -> Read:
        if is_path(value):
            value = file_content(value, where)
        elif isinstance(value, np.ndarray):
            if np.issubdtype(value.dtype, np.floating) or value.dtype.name == "bfloat16":
                return _normalised(value, self.spec.shape, where), None
            value = _picture(value, where)
        elif not isinstance(value, bytes | Image.Image):
            raise UserError(f"{where} is {value_kind(value)}; {self.takes}")
        return self.run(value)


def _normalised(value: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Checks a float picture, which is already normalised."""
    if value.shape != shape:
        raise UserError(
            f"{where} is a float array {list(value.shape)}: floats are taken as preprocessed, and must be "
            f"{list(shape)} then; give uint8 to have it resized"
        )
    value = value.astype(np.float32, copy=False)  # stacking into a batch makes the copy
    most = max(value.max(), -value.min())  # NaN if any value is
    if not np.isfinite(most):
        raise UserError(f"{where} holds values that aren't finite")
    if most > BRIGHTEST:
        raise UserError(
            f"{where} is a float array with values up to {most:g}: floats are taken as normalised "
            "already (mostly in [-3, 3]); give pixels as uint8"
        )
    return value


def _picture(value: np.ndarray, where: str) -> np.ndarray:
    if value.ndim == 3 and value.shape[-1] == 1:
        return value[..., 0]
    if value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[-1] > 4):
        turn = "; np.moveaxis(x, 0, -1) puts the channels last" if value.ndim == 3 and value.shape[0] <= 4 else ""
        raise UserError(f"{where} has the shape {list(value.shape)}; a picture is [H, W], [H, W, 3] or [H, W, 4]{turn}")
    if not value.size:
        raise UserError(f"{where} is empty: it has the shape {list(value.shape)}")
    if value.dtype.kind in "iu" and value.dtype.itemsize > 2:
        raise UserError(f"{where} is an array of {value.dtype}; a picture is of uint8 or uint16")
    return value
