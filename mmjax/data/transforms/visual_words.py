"""Visual words: a clip's features as the leaf of a tree of centroids, as VideoBERT's video tokens are."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.word_tree import TreeTokenizer, WordTree
from mmjax.data.transforms.contract import Rng, Spec, Transform
from mmjax.data.transforms.input import Input
from mmjax.data.transforms.values import Cut, Masked, prefix_mask
from mmjax.errors import UserError


class FeatureRows(Input):
    """Reads the features of a video as an array `[T, D]`, a row a clip."""

    one, several, unit = "video", "videos", "clips"

    @property
    def takes(self) -> str:
        return "it takes features, a float array [T, D]"

    @property
    def alone(self) -> tuple[int, ...]:
        return (2,)


@dataclass(frozen=True)
class VisualWords(Transform):
    """Turns features float `[T, D]`, with their mask or without, into visual words int32 `[T]` with a mask.

    A word is the number of the leaf that a feature comes to when it descends the tree, on each level to the nearest
    child (Sun et al. 2019, arXiv:1904.01766, section 3.2). Padding has the word 0.

        (DecodeVideo(24), EachFrame((Resize(64),)), PooledPixels(), VisualWords(WordTree("words.safetensors", 8, 2)))

    Attributes:
        tokenizer: describes the tree. A run keeps it as it keeps tokenizers, `tokenizers/<entry>.safetensors`.
        length: for features that come as a column, of videos of any length: T, to which they are cut or padded. None:
            what comes before gives them in one length.

    Raises UserError where features have another width than the tree's, and for a length below 1. Features that aren't
    finite, or no array of floats, are a bad example.
    """

    tokenizer: WordTree | TreeTokenizer
    length: int | None = None

    def __post_init__(self) -> None:
        if self.length is not None and self.length < 1:
            raise UserError(f"VisualWords(length={self.length}) must be at least 1")

    def __call__(self, value: Any, rng: Rng) -> Masked:
        del rng
        if not isinstance(self.tokenizer, TreeTokenizer):
            raise UserError(f"VisualWords has no tree yet: {self.tokenizer} is loaded where the data is prepared")
        features, mask = value if isinstance(value, Masked) else (_array(value), None)
        if features.ndim != 2 or features.shape[1] != self.tokenizer.width:
            raise UserError(
                f"VisualWords was given features {list(features.shape)}, and its tree was fitted on features of "
                f"{self.tokenizer.width} numbers, [T, {self.tokenizer.width}]: fit a tree on such features as these "
                "(`mmjax cluster`), or give the one that was"
            )
        if not len(features):
            raise BadExample("the video has no features", "empty")
        mask = np.ones(len(features), bool) if mask is None else mask
        if not np.isfinite(features[mask]).all():
            raise BadExample("the features have numbers that aren't finite", "not_finite")
        if self.length is None or self.length == len(features):
            return Masked(self._words(features, mask), mask)
        whole, kept = len(features), min(len(features), self.length)
        words, real = np.zeros(self.length, np.int32), prefix_mask(self.length, 0)
        real[:kept] = mask[:kept]
        words[:kept] = self._words(features[:kept], mask[:kept])
        return Cut(words, real, whole) if whole > self.length else Masked(words, real)

    def _words(self, features: np.ndarray, mask: np.ndarray) -> np.ndarray:
        assert isinstance(self.tokenizer, TreeTokenizer)
        words = np.zeros(len(features), np.int32)
        words[mask] = self.tokenizer.words(features[mask].astype(np.float32))
        return words

    def spec(self, before: Spec | None) -> Spec:
        if before is not None and (len(before.shape) != 2 or before.dtype != "float32"):
            raise UserError(
                f"VisualWords reads features float32[T, D], and {before.dtype}{list(before.shape)} comes before it: "
                "put what makes features there, such as PooledPixels()"
            )
        if before is None and self.length is None:
            raise UserError("VisualWords(length=None) at a chain's begin: say how many words a video has, length=...")
        length = self.length or before.shape[0]  # pyright: ignore[reportOptionalMemberAccess]
        kind = FeatureRows if before is None else before.kind
        return Spec((length,), "int32", masked=True, kind=kind, pieces=self.tokenizer.vocab_size)

    def vocabulary(self) -> WordTree | TreeTokenizer:
        return self.tokenizer

    def with_tokenizer(self, tokenizer: Any) -> "VisualWords":
        if not isinstance(tokenizer, TreeTokenizer):
            raise UserError(
                "the model has no tree of visual words, by which it reads videos: put tokenizers/<entry>.safetensors "
                "back beside it"
            )
        return VisualWords(tokenizer, self.length)


def _array(value: Any) -> np.ndarray:
    try:
        found = np.asarray(value)
    except ValueError as error:  # rows of several lengths
        raise BadExample(f"the features are no array: {error}", "undecodable") from error
    if found.dtype == object and found.ndim == 1 and len(found):  # a cell of Arrow: an array of arrays
        return _array([np.asarray(row) for row in found]) if np.ndim(found[0]) == 1 else _refused(found)
    return found if np.issubdtype(found.dtype, np.floating) else _refused(found)


def _refused(found: np.ndarray) -> np.ndarray:
    raise BadExample(f"the features are {found.dtype}{list(found.shape)}, and no floats [T, D]", "undecodable")
