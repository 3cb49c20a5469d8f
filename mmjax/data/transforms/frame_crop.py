"""Scales and crops pictures that aren't square: frames of videos."""

from dataclasses import dataclass

from mmjax.data.decoding.pictures import Picture
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.image import Method, resized
from mmjax.data.transforms.image_input import PictureInput
from mmjax.errors import UserError


@dataclass(frozen=True)
class CropFrame(Transform):
    """Scales a picture so that it covers `height` x `width`, its sides in proportion, and crops that out of it.

    In training it is larger by a factor drawn from `scale`, and the crop's place is drawn too (MERLOT Reserve: Zellers
    et al. 2022, arXiv:2201.02639, with factors of 1.05 to 1.10); in evaluation the factor is 1, and the crop the
    middle. A picture of that size stays as it is where the factor is 1.

    Raises UserError for sides that aren't whole numbers above 0, or factors that fall or are below 1.
    """

    random = True

    height: int
    width: int
    scale: tuple[float, float] = (1.0, 1.0)
    method: Method = "bicubic"

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"CropFrame({name}={value!r}): it is a whole number of pixels from 1 on")
        if not 1 <= self.scale[0] <= self.scale[1]:
            raise UserError(f"CropFrame(scale={self.scale}): two factors from 1 on, the smaller one first")

    def __call__(self, value: Picture, rng: Rng) -> Picture:
        high, wide = value.shape[:2]
        factor = 1.0 if rng is None else rng.uniform(*self.scale)
        down, across = (0.5, 0.5) if rng is None else rng.random(2)
        by = max(self.height / high, self.width / wide) * factor
        height, width = min(high, self.height / by), min(wide, self.width / by)
        if (height, width) == (high, wide):
            return resized(value, self.height, self.width, self.method)
        top, left = down * (high - height), across * (wide - width)
        return resized(value, self.height, self.width, self.method, (left, top, left + width, top + height))

    def spec(self, before: Spec | None) -> Spec:
        return Spec((self.height, self.width, 3), "uint8", kind=PictureInput)
