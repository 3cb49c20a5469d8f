"""CLIPScore and RefCLIPScore against the paper's formulas, one text at a time."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written.clip_score import clip_scores, ref_clip_scores


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def test_scores_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(0)
    pictures, texts, references = (rng.normal(size=(rows, 3)) for rows in (30, 30, 70))
    owners = [*range(30), *rng.integers(0, 30, 40).tolist()]
    scores = clip_scores(pictures, texts)
    found = ref_clip_scores(scores, texts, references, owners)
    seen = set()
    for row in range(30):
        score = 2.5 * max(cosine(texts[row], pictures[row]), 0)
        best = max(max(cosine(texts[row], references[i]) for i in range(70) if owners[i] == row), 0)
        want = 2 / (1 / score + 1 / best) if score > 0 and best > 0 else 0.0
        assert scores[row] == pytest.approx(score, abs=1e-12)
        assert found[row] == pytest.approx(want, abs=1e-12)
        seen |= {(score > 0, best > 0)}
    assert len(seen) >= 3  # both kinds of zeros came up
    assert clip_scores(texts, 7 * texts, weight=1.0) == pytest.approx(np.ones(30))


def test_a_text_without_references_is_refused() -> None:
    with pytest.raises(UserError, match="text 1 has no reference"):
        ref_clip_scores(np.ones(2), np.eye(2), np.eye(2)[:1], [0])
