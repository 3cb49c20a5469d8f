"""Computes how much of a sound a model hears: its chain cuts off the rest."""

from collections.abc import Sequence

from mmjax.data.transforms.contract import VARIES, Spec, Transform

ROUNDED = 1e-3  # seconds by which lengths may differ after resampling


def heard(chain: Sequence[Transform]) -> float | None:
    """The most seconds of a sound that the chain keeps; None where it cuts nothing off, or has no fixed rate."""
    spec = None
    for transform in chain:
        spec = transform.spec(spec)
    return None if spec is None else heard_of(spec)


def heard_of(spec: Spec) -> float | None:
    """The value of `heard` for a chain with this spec."""
    return None if spec.rate is None or spec.shape[0] == VARIES else spec.shape[0] / spec.rate


def partly(most: float | None, whole: float | None) -> str | None:
    """A note such as `the first 2.5 of 7.3 seconds are heard`; None where all of it is, or it isn't known.

    most: seconds, as `heard` gives them. whole: seconds of the sound.
    """
    if most is None or whole is None or whole <= most + ROUNDED:
        return None
    digits = next(d for d in range(1, 5) if f"{most:.{d}f}" != f"{whole:.{d}f}" and float(f"{most:.{d}f}"))
    return f"the first {most:.{digits}f} of {whole:.{digits}f} seconds are heard"


def seconds(most: float) -> str:
    """A duration in words: `2.5 seconds`, `1 second`."""
    return f"{most:.4g} second{'' if most == 1 else 's'}"
