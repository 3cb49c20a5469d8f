"""Says in words how much of a text or a sound a model takes in: what is longer is cut off."""

from typing import Any

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding import sounds
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.spans import heard, partly


def hears(model: Any) -> float | None:
    """Seconds of a sound that the model hears at most; None: all of it, or none. model: a `mmjax.Model`."""
    return heard(model.experiment.data.transforms.get("audio", ()))


def in_part(model: Any, modality: str, query: str | bytes) -> str | None:
    """`the first 2.5 of 7.3 seconds are heard`, `the first 12 of 40 words are read`; None where nothing is cut off.

    query: what the model can embed, a text, or the bytes of a file.
    """
    if modality == "text" and isinstance(query, str) and "text" in model.experiment.data.transforms:
        return _read(model, query)
    if modality == "audio" and isinstance(query, bytes):
        try:
            found = sounds.read_sound(query, DecodeAudio.most_samples)
        except BadExample:
            return None
        return partly(hears(model), len(found.samples) / found.rate)
    return None


def _read(model: Any, text: str) -> str | None:
    """By the tokens that the model gets: those of fewer words are the same where the words after them are cut off."""

    def row(count: int) -> list[bytes]:
        return [array.tobytes() for array in model.preprocess(text=" ".join(words[:count])).values()]

    words, mask = text.split(), model.preprocess(text=text).get("text_mask")
    if len(words) < 2 or (mask is not None and not mask.all()):
        return None
    whole, low, high = row(len(words)), 1, len(words)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if row(middle) == whole else (middle + 1, high)
    return None if low == len(words) else f"the first {low:,} of {len(words):,} words are read"
