"""Describes how much of a text or a sound a model reads: the rest is cut off."""

from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding import sounds
from mmjax.data.kinds import kind_of
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.spans import heard, partly


def hears(model: Any, modality: str) -> float | None:
    """Seconds of a sound that the model hears at most; None: all of it, or it is none. model: a `mmjax.Model`."""
    chain = model.experiment.data.transforms.get(modality, ())
    return heard(chain) if chain and kind_of(modality, model.kinds).plays else None


def in_part(model: Any, modality: str, query: str | bytes) -> str | None:
    """A note, `the first 2.5 of 7.3 seconds are heard` or `the first 12 of 40 words are read`; None where nothing is
    cut off.

    query: a text, or the bytes of a file.
    """
    kind = kind_of(modality, model.kinds)
    if kind.words and isinstance(query, str) and modality in model.experiment.data.transforms:
        return _read(model, modality, query)
    if kind.plays and isinstance(query, bytes):
        try:
            found = sounds.read_sound(query, DecodeAudio.most_samples)
        except BadExample:
            return None
        return partly(hears(model, modality), len(found.samples) / found.rate)
    return None


def _read(model: Any, modality: str, text: str) -> str | None:
    """By the tokens that the model gets: those of fewer words are the same where the words after them are cut off."""

    def row(count: int) -> list[bytes]:
        return [array.tobytes() for array in model.preprocess(**{modality: " ".join(words[:count])}).values()]

    words, mask = text.split(), model.preprocess(**{modality: text}).get(f"{modality}_mask")
    if len(words) < 2 or (mask is not None and not mask.all()):
        return None
    whole, low, high = row(len(words)), 1, len(words)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if row(middle) == whole else (middle + 1, high)
    return None if low == len(words) else f"the first {low:,} of {len(words):,} words are read"
