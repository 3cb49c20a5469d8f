"""The settings of prepared segments, which decide their bytes."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from mmjax.errors import UserError

_ROUNDED = 1e-9


@dataclass(frozen=True)
class PrepareSettings:
    """The lengths and sizes of prepared segments.

    seconds: of a segment. rate: frames a second; a segment has a whole number of them, each at the middle of 1 / rate
    seconds. short_side: pixels of a frame's shorter side, to which larger frames are scaled; smaller ones stay; None:
    all stay. quality: of JPEG, up to 95. sound_rate: of the sound, in Hz; None: sounds are left out. language: of
    subtitles beside a video.

    Raises UserError for numbers that can't be.
    """

    seconds: float = 5.0
    rate: float = 1.0
    short_side: int | None = 288
    quality: int = 90
    sound_rate: int | None = 16_000
    language: str = "en"

    def __post_init__(self) -> None:
        for name in ("seconds", "rate"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise UserError(f"{name}={value!r} must be a number above 0")
        for name, least, most in (("short_side", 1, 2**15), ("quality", 1, 95), ("sound_rate", 1, 655_350)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and least <= value <= most):
                raise UserError(f"{name}={value!r} must be a whole number from {least} to {most:,}")
        if abs(self.seconds * self.rate - self.frames) > _ROUNDED * self.frames or not self.frames:
            raise UserError(
                f"seconds={self.seconds:g} at rate={self.rate:g} are {self.seconds * self.rate:g} frames: a segment "
                f"has a whole number of them, as with rate={max(self.frames, 1) / self.seconds:g}"
            )

    @property
    def frames(self) -> int:
        """The number of frames of a whole segment."""
        return round(self.seconds * self.rate)

    def written(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        numbers = {"seconds": float(self.seconds), "rate": float(self.rate)}
        return {**asdict(self), **numbers}
