"""Visual words as a sentence that a transformer reads behind the words of a text (VideoBERT: Sun et al. 2019,
arXiv:1904.01766)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.values import Masked, prefix_mask
from mmjax.errors import UserError


@dataclass(frozen=True)
class RandomPace(Transform):
    """Takes every first, second, ... or `fastest`-th of a video's visual words int32 `[T]`, as if it went faster: at
    random in training, each pace as likely as any other; all of them in evaluation. What is left is padded to `[T]`.

    The range of 1 to 5 is remembered of VideoBERT, not checked.

    Raises UserError where `fastest` isn't at least 1, and `BadExample` where there is no word.
    """

    random = True

    fastest: int = 5

    def __post_init__(self) -> None:
        if self.fastest < 1:
            raise UserError(f"RandomPace(fastest={self.fastest}) must be at least 1, at which all words stay")

    def __call__(self, value: Any, rng: Rng) -> Masked:
        pace = 1 if rng is None else int(rng.integers(1, self.fastest + 1))
        return _filled(_real(value)[::pace], len(value.values if isinstance(value, Masked) else value))

    def spec(self, before: Spec | None) -> Spec | None:
        return None if before is None else before._replace(masked=True)


@dataclass(frozen=True)
class VisualSentence(Transform):
    """Puts a video's visual words int32 `[T]` between the ids `begin`, VideoBERT's [>], and `end`, its [SEP]: int32
    `[T + 2]` with a mask of what isn't padding. The words' own ids are raised by `special`, for these two and for the
    token in the place of a hidden word (`mask_id` of `MaskedText`), which are below them.

    Raises UserError where the two aren't different ids below `special`, and `BadExample` where there is no word.
    """

    begin: int = 0
    end: int = 1
    special: int = 3

    def __post_init__(self) -> None:
        if self.begin == self.end or not (0 <= self.begin < self.special and 0 <= self.end < self.special):
            raise UserError(
                f"VisualSentence(begin={self.begin}, end={self.end}, special={self.special}): begin and end must be "
                "different ids from 0 on and below special, at which the visual words begin"
            )

    def __call__(self, value: Any, rng: Rng) -> Masked:
        del rng
        words = _real(value) + self.special
        length = len(value.values if isinstance(value, Masked) else value)
        return _filled(np.concatenate([[self.begin], words, [self.end]]), length + 2)

    def spec(self, before: Spec | None) -> Spec | None:
        if before is None:
            return None
        if len(before.shape) != 1 or before.dtype != "int32":
            raise UserError(
                f"VisualSentence was given {before.dtype}{list(before.shape)}: it follows visual words int32[T]"
            )
        pieces = before.pieces + self.special if before.pieces else 0
        return before._replace(shape=(before.shape[0] + 2,), masked=True, pieces=pieces)


def _real(value: Any) -> Int32[np.ndarray, " n"]:
    """The ids that aren't padding."""
    words = value.values[value.mask] if isinstance(value, Masked) else np.asarray(value)
    if not len(words):
        raise BadExample("the video has no visual words", "empty")
    return words.astype(np.int32)


def _filled(words: np.ndarray, length: int) -> Masked:
    ids: Int32[np.ndarray, " length"] = np.zeros(length, np.int32)
    ids[: len(words)] = words
    return Masked(ids, prefix_mask(length, len(words)))
