"""CLIPScore of what was written: by the run's own towers, and by those of a model that is named."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate import ClipScore
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.metrics.written.clip_score import clip_scores, ref_clip_scores
from mmjax.evaluate.other_towers import OtherTowers
from mmjax.evaluate.split_writing import WrittenSplit
from tests.evaluate.report.made import unit

RANDOM = np.random.default_rng(0)
PICTURES, OTHERS = unit(RANDOM.normal(size=(5, 4))), unit(RANDOM.normal(size=(5, 4)))
VALID = np.array([True, True, True, False, True])
TEXTS, ROWS = ["a dog", "two cats", "a hat", "a tree"], [0, 2, 3, 4]
SAID: list[Any] = [["a red dog", "the dog"], None, [], None, "an oak"]


def vectors(texts: Any) -> np.ndarray:
    """A vector of each text, told by its words alone."""
    return unit(np.stack([np.random.default_rng(sum(map(ord, text))).normal(size=4) for text in texts]))


class Written:
    def column(self, name: str) -> list[Any]:
        assert name == "said"
        return SAID

    def written(self, *asked: Any) -> WrittenSplit:
        assert asked == ("words", "", 64, None)
        return WrittenSplit(TEXTS, ROWS)

    def towers_of(self, source: str, image: str) -> Any:
        assert (source, image) == ("runs/judge", "image")
        return Judge(OTHERS, np.ones(5, bool), None, None)


class Judge(OtherTowers):
    def text(self, strings: Any) -> np.ndarray:
        return -vectors(strings)


def judged(**fields: Any) -> dict[str, float]:
    embedded = Embedded({"image": PICTURES}, {"image": VALID}, predictions=Written())
    found = ClipScore("words", **fields)(embedded, vectors)
    return {name.removeprefix("clip_score/words/"): value for name, value in found.items()}


def test_the_run_s_own_towers_judge_texts_behind_the_prefix() -> None:
    found = judged(references="said")
    rows, texts = [0, 2, 4], vectors([f"A photo depicts {TEXTS[i]}" for i in (0, 1, 3)])
    scores = clip_scores(PICTURES[rows], texts)
    assert found["clip_score"] == pytest.approx(scores.mean())
    assert found["chance_clip_score"] == pytest.approx(clip_scores(PICTURES[[2, 4, 0]], texts).mean())
    known = vectors([f"A photo depicts {text}" for text in ("a red dog", "the dog", "an oak")])
    want = ref_clip_scores(scores[[0, 2]], texts[[0, 2]], known, [0, 0, 1])
    assert found["ref_clip_score"] == pytest.approx(want.mean())
    assert found["examples"] == 3.0
    assert ClipScore("words").reads_embeddings


def test_another_model_judges_by_its_own_pictures_and_texts() -> None:
    found = judged(model="runs/judge", prefix="", weight=1.0)
    want = np.maximum(np.sum(OTHERS[ROWS] * -vectors(TEXTS), axis=1), 0)
    assert found["clip_score"] == pytest.approx(want.mean())
    assert found["examples"] == 4.0
    assert not ClipScore("words", model="runs/judge").reads_embeddings


def test_without_a_picture_tower_a_model_must_be_named() -> None:
    bare = Embedded({"text": PICTURES}, {"text": VALID}, predictions=Written())
    with pytest.raises(UserError, match="there is none of 'image', but of text: name a model"):
        ClipScore("words")(bare, vectors)
    none = Embedded({"image": PICTURES}, {"image": ~np.ones(5, bool)}, predictions=Written())
    with pytest.raises(UserError, match="no example of the validation split has a picture"):
        ClipScore("words")(none, vectors)
    with pytest.raises(UserError, match="embeddings alone write nothing"):
        ClipScore("words")(replace(none, predictions=None), vectors)
