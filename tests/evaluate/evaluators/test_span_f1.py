"""Answers that a model finds in texts: the best span, and its scores, by loops."""

from typing import Any

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate import SpanF1
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.metrics.spans import best_spans, span_scores
from mmjax.evaluate.split_predictions import Predicted

N, L, LONGEST = 20, 7, 3
no_text: Any = None


def test_the_best_span_is_found_among_all() -> None:
    logits = np.random.default_rng(0).normal(size=(N, L, 2))
    logits[:, 0] += 1
    found, nowhere = best_spans(logits, LONGEST), 0
    for row in range(N):
        spans = [(0, 0), *((i, j) for i in range(1, L) for j in range(i, min(L, i + LONGEST)))]
        best = max(spans, key=lambda span: logits[row, span[0], 0] + logits[row, span[1], 1])
        assert tuple(found[row]) == best
        nowhere += best == (0, 0)
    assert 0 < nowhere < N


def test_scores_are_of_the_tokens_that_are_shared() -> None:
    random = np.random.default_rng(1)
    first = random.integers(0, 4, (2, N))
    spans = np.stack([first, first + random.integers(0, 3, (2, N))], axis=-1)
    spans[0, 0] = spans[1, 0]
    expected, exact = [], []
    for a, b in zip(*spans, strict=True):
        mine, right = (set(range(x[0], x[1] + 1)) for x in (a, b))
        precision, recall = len(mine & right) / len(mine), len(mine & right) / len(right)
        expected.append(2 * precision * recall / (precision + recall) if mine & right else 0)
        exact.append(mine == right)
    found = span_scores(*spans)
    np.testing.assert_allclose([found["exact"], found["f1"]], [np.mean(exact), np.mean(expected)])


def test_texts_of_unknown_answers_are_left_out_and_other_objectives_refused() -> None:
    logits = np.full((3, L, 2), -9.0)
    logits[:, 2, 0] = logits[:, 3, 1] = 9
    label = np.array([[2, 3], [-1, -1], [3, 3]])
    ask = lambda loss, label=label: SpanF1("answer")(  # noqa: E731
        Embedded({}, {}, predictions=lambda objective: Predicted(logits, label, (), loss, np.arange(3))), no_text
    )
    assert ask("span") == pytest.approx(
        {"spans/answer/exact": 0.5, "spans/answer/f1": 5 / 6, "spans/answer/examples": 2}
    )
    assert ask("span", np.full((3, 2), -1)) == {}
    with pytest.raises(UserError, match=r"SpanF1\(objective='answer'\) finds no spans"):
        ask("softmax")
    with pytest.raises(UserError, match="SpanF1 needs the model"):
        SpanF1("answer")(Embedded({}, {}), no_text)
