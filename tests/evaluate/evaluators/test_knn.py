"""Nearest neighbours against their definition, with ties, missing labels and NaN."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.knn import KNN, neighbours
from mmjax.evaluate.metrics.labels import mean_average_precision
from mmjax.runtime import counts
from tests.evaluate.metrics.test_ranks import unit


def no_text(strings):
    raise AssertionError("no prompts are asked for")


def split(count: int, seed: int, vectors: np.ndarray | None = None, valid: float = 0.8) -> Embedded:
    """Four classes, of which some labels are missing and some rows are padding."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    found = unit(rng, count, 6) + 0.5 * np.eye(4, 6, dtype=np.float32)[labels] if vectors is None else vectors
    column = ["abcd"[i] if rng.random() < 0.9 else None for i in labels]
    return Embedded({"image": found.astype(np.float32)}, {"image": rng.random(count) < valid}, {"kind": column})


def by_hand(fit: Embedded, test: Embedded, k: int, temperature: float | None) -> dict[str, float]:
    classes = sorted({label for part in (fit, test) for label in part.columns["kind"] if label is not None})
    known = [
        (fit.embeddings["image"][i].astype(np.float64), label)
        for i, label in enumerate(fit.columns["kind"])
        if fit.valid["image"][i] and label is not None and np.isfinite(fit.embeddings["image"][i]).all()
    ]
    found, right = [], []
    for i, label in enumerate(test.columns["kind"]):
        if label is None or not test.valid["image"][i]:
            continue
        query = test.embeddings["image"][i].astype(np.float64)
        near = sorted(((-float(query @ x), j) for j, (x, _) in enumerate(known)))[:k]
        votes = dict.fromkeys(classes, 0.0)
        for minus, j in near:
            votes[known[j][1]] += 1.0 if temperature is None else math.exp(-minus / temperature)
        if not np.isfinite(query).all():
            votes = dict.fromkeys(classes, 0.0)
        place = sum(votes[other] >= votes[label] - 1e-9 * max(votes.values()) for other in classes)
        found.append(place if np.isfinite(query).all() else math.inf)  # not among five, though there are four classes
        right.append(label)
    hits = [place == 1 for place in found]
    recalls = [np.mean([hit for hit, r in zip(hits, right, strict=True) if r == label]) for label in sorted(set(right))]
    return {
        "knn/kind/top1": float(np.mean(hits)),
        "knn/kind/top5": float(np.mean([place <= 5 for place in found])),
        "knn/kind/recall": float(np.mean(recalls)),
    }


@pytest.mark.parametrize("temperature", [0.07, None])
@pytest.mark.parametrize("k", [1, 5, 20, 1000])
def test_votes_equal_the_definition(k, temperature):
    fit, test = split(70, 0), split(50, 1)
    found = KNN("kind", k=k, temperature=temperature)(replace(test, fit=fit), no_text)
    assert counts.scores(found) == pytest.approx(by_hand(fit, test, k, temperature))


@pytest.mark.parametrize("temperature", [0.5, None])
def test_ties_and_nan_equal_the_definition(temperature):
    """Vectors of few values: many neighbours are equally near, also where the k-th is."""
    rng = np.random.default_rng(2)
    vectors = [rng.integers(-1, 2, (count, 3)) / 2.0 for count in (60, 40)]
    vectors[0][::9], vectors[1][::11] = np.nan, np.nan
    fit, test = split(60, 3, vectors[0]), split(40, 4, vectors[1])
    found = KNN("kind", k=7, temperature=temperature)(replace(test, fit=fit), no_text)
    assert counts.scores(found) == pytest.approx(by_hand(fit, test, 7, temperature))
    judged = {name: value for name, value in found.items() if counts.is_count(name)}
    rows = [i for i in range(40) if test.valid["image"][i]]
    labelled = [i for i in rows if test.columns["kind"][i] is not None]
    assert judged == {
        "knn/kind/examples": len(labelled),
        "knn/kind/classes": 4,
        "knn/kind/left_out": len(rows) - len(labelled),
        "knn/kind/chance": 0.25,
        "knn/kind/chance_top5": 1.0,  # of four classes
        "knn/kind/chance_recall": 0.25,
        "knn/kind/not_finite": sum(i % 11 == 0 for i in labelled),
    }
    assert min(judged.values()) > 0
    assert found["knn/kind/top1"] < 0.9


@pytest.mark.parametrize("temperature", [0.07, None])
def test_neighbours_of_several_classes_vote_for_all_of_them(temperature):
    fit, test = split(70, 0), split(50, 1)
    for part in (fit, test):
        part.columns["kind"] = [None if k is None else [k, "e"] if i % 3 else [k] if i % 2 else []
                                for i, k in enumerate(part.columns["kind"])]  # fmt: skip
    test.embeddings["image"][::17] = np.nan
    known = [i for i in range(70) if fit.valid["image"][i] and fit.columns["kind"][i] is not None]
    asked = [i for i in range(50) if test.valid["image"][i] and test.columns["kind"][i] is not None]
    scores = np.zeros((len(asked), 5))
    for row, i in enumerate(asked):
        query = test.embeddings["image"][i].astype(np.float64)
        near = sorted((-float(query @ fit.embeddings["image"][j]), place, j) for place, j in enumerate(known))[:7]
        votes = [1.0 if temperature is None else math.exp(-minus / temperature) for minus, _, _ in near]
        for vote, (_, _, j) in zip(votes, near, strict=True):
            for kind in fit.columns["kind"][j]:
                scores[row, "abcde".index(kind)] += vote / sum(votes)
        if np.isnan(query).any():
            scores[row] = np.nan
    right = np.array([[c in test.columns["kind"][i] for c in "abcde"] for i in asked])
    knn = KNN("kind", k=7, temperature=temperature)
    found = knn(replace(test, fit=fit), no_text)
    assert counts.scores(found) == pytest.approx({"knn/kind/mAP": mean_average_precision(scores, right, tie=1e-9)})
    assert 0.3 < found["knn/kind/mAP"] < 1
    assert knn.classified(replace(test, fit=fit), no_text) == []


@pytest.mark.parametrize("folds", [None, "fold"])
def test_decisions_are_those_that_the_metrics_count(folds):
    """Vectors of few values, so that votes tie; classes are numbers that the data has names for."""
    rng = np.random.default_rng(2)
    fit, test = (split(count, seed, rng.integers(-1, 2, (count, 3)) / 2.0) for count, seed in ((60, 3), (40, 4)))
    for part in (fit, test):
        part.columns["kind"] = [None if k is None else "abcd".index(k) for k in part.columns["kind"]]
    test.columns["fold"] = [i % 2 for i in range(40)]
    given = replace(test, fit=fit, class_names={"kind": ("ant", "bee", "cat", "dog")})
    metrics, (found,) = KNN("kind", k=7, temperature=None, folds=folds).judged(given, no_text)
    assert found.classes == ("ant", "bee", "cat", "dog")
    assert found.truth.tolist() == [test.columns["kind"][row] for row in found.rows]
    right = found.truth == found.found
    if folds is None:
        assert right.mean() == pytest.approx(metrics["knn/kind/top1"])
    else:
        shares = [metrics[f"knn/kind/top1/fold={fold}"] for fold in range(2)]
        assert [right[found.rows % 2 == fold].mean() for fold in range(2)] == pytest.approx(shares)
    assert 0.1 < right.mean() < 0.9


def test_copies_of_a_picture_are_one_neighbour_and_one_example():
    fit, test = split(40, 0), split(20, 1)
    once = KNN("kind", k=5)(replace(test, fit=fit), no_text)
    several = [part.take(np.repeat(np.arange(len(part)), 5)) for part in (fit, test)]
    told = [replace(part, contents={"image": [str(i // 5) for i in range(len(part))]}) for part in several]
    assert KNN("kind", k=5)(replace(told[1], fit=told[0]), no_text) == once
    assert KNN("kind", k=5)(replace(several[1], fit=several[0]), no_text) != once


def test_chunks_change_nothing(monkeypatch):
    fit, test = split(70, 0), split(50, 1)
    whole = KNN("kind")(replace(test, fit=fit), no_text)
    monkeypatch.setattr("mmjax.evaluate.evaluators.knn.CHUNK", 150)
    assert KNN("kind")(replace(test, fit=fit), no_text) == whole


def test_the_nearest_of_equals_are_the_first():
    scores = np.array([[0.0, 1.0, 0.5, 0.5, 0.5], [np.nan] * 5])
    columns, values = neighbours(scores, 3)
    assert columns[0].tolist() == [1, 2, 3]
    assert values[0].tolist() == [1, 0.5, 0.5]
    assert np.isnan(values[1]).all()


def test_folds_are_classified_by_the_others():
    every = split(60, 5, valid=1.0)
    every.columns["fold"] = [i % 3 for i in range(60)]
    found = KNN("kind", k=3, folds="fold")(every, no_text)
    numbers = np.arange(60) % 3
    each = [by_hand(every.take(np.flatnonzero(numbers != f)), every.take(np.flatnonzero(numbers == f)), 3, 0.07)
            for f in range(3)]  # fmt: skip
    assert found["knn/kind/top1"] == pytest.approx(np.mean([metrics["knn/kind/top1"] for metrics in each]))
    assert found["knn/kind/top1/fold=2"] == pytest.approx(each[2]["knn/kind/top1"])


def test_errors_say_what_is_missing():
    with pytest.raises(UserError, match=r"name the split that it learns from"):
        KNN("kind", fit_split=None)(split(5, 0), no_text)
    with pytest.raises(UserError, match=r"KNN\(modality='audio'\): the experiment embeds image"):
        KNN("kind", modality="audio")(replace(split(9, 0), fit=split(9, 1)), no_text)
    none = split(9, 0)
    none.columns["kind"] = [None] * 9
    with pytest.raises(UserError, match=r"the validation split, which has no image with a 'kind'"):
        KNN("kind")(replace(split(9, 0), fit=none), no_text)
