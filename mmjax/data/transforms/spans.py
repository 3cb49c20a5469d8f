"""How much of a sound a model hears: its chain cuts off what lasts longer."""

from collections.abc import Sequence

from mmjax.data.transforms.audio import CropOrPad, DecodeAudio
from mmjax.data.transforms.contract import Transform

ROUNDED = 1e-3  # seconds by which lengths may differ after resampling


def heard(chain: Sequence[Transform]) -> float | None:
    """Seconds of a sound that the chain keeps, at most; None where it cuts nothing off, or has no rate of its own."""
    rate = None
    for transform in chain:
        if isinstance(transform, DecodeAudio):
            rate = transform.rate
        if isinstance(transform, CropOrPad) and rate is not None:
            return transform.samples / rate
    return None


def partly(most: float | None, whole: float | None) -> str | None:
    """`the first 2.5 of 7.3 seconds are heard`; None where all of it is, or it isn't known.

    most: as `heard` gives it. whole: seconds that the sound lasts.
    """
    if most is None or whole is None or whole <= most + ROUNDED:
        return None
    digits = next(d for d in range(1, 5) if f"{most:.{d}f}" != f"{whole:.{d}f}" and float(f"{most:.{d}f}"))
    return f"the first {most:.{digits}f} of {whole:.{digits}f} seconds are heard"


def seconds(most: float) -> str:
    """`2.5 seconds`, `1 second`."""
    return f"{most:.4g} second{'' if most == 1 else 's'}"
