"""One frame of a video, for a tower of pictures."""

from dataclasses import dataclass
from typing import Any

from mmjax.data.decoding.pictures import MOST_PIXELS, Picture
from mmjax.data.transforms.contract import Rng, Transform
from mmjax.data.transforms.image import Decode
from mmjax.data.transforms.video import DecodeVideo


@dataclass(frozen=True)
class DecodeFrame(Transform):
    """Decodes one frame of a video, or of a window of one, to RGB uint8 `[H, W, 3]`: at a random time in training, the
    middle one in evaluation (CAV-MAE: Gong et al. 2022, arXiv:2210.07839). Transforms of pictures follow.

    A model whose chain begins with it takes pictures from its user.

    Attributes:
        short_side: pixels of its shorter side, to which it is scaled as it is decoded; None: as it is.
        most_pixels: of a frame, above which a video isn't decoded.

    Raises UserError for numbers that aren't above 0, and BadExample where `DecodeVideo` does.
    """

    random = True
    in_parts = True

    short_side: int | None = None
    most_pixels: int = MOST_PIXELS

    def __post_init__(self) -> None:
        self._decoding()

    def __call__(self, value: Any, rng: Rng) -> Picture:
        return self._decoding()(value, rng).values[0]

    def _decoding(self) -> DecodeVideo:
        return DecodeVideo(1, short_side=self.short_side, most_pixels=self.most_pixels)

    def spec(self, before: Any) -> None:
        return None

    def by_hand(self, upright: bool) -> Transform:
        return Decode(upright=upright)
