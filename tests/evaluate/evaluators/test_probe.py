"""Probes: what they choose, what they learn from, and what their numbers are."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.probe import Probe, drawn_rows, held_out
from mmjax.evaluate.metrics.labels import mean_average_precision
from mmjax.evaluate.metrics.linear import logistic, ridge
from mmjax.runtime import counts
from tests.evaluate.evaluators.test_knn import no_text, split


def usable(part: Embedded) -> tuple[np.ndarray, list[str]]:
    vectors = part.embeddings["image"]
    rows = [
        i
        for i, label in enumerate(part.columns["kind"])
        if label is not None and part.valid["image"][i] and np.isfinite(vectors[i]).all()
    ]
    return vectors[rows], [part.columns["kind"][i] for i in rows]


def share_found(model, test: Embedded) -> float:
    """Top 1, an example at a time; NaN is wrong."""
    hits = []
    for i, label in enumerate(test.columns["kind"]):
        if label is not None and test.valid["image"][i]:
            scores = test.embeddings["image"][i].astype(np.float64) @ model.weights + model.bias
            right = scores["abcd".index(label)]
            hits.append(all(right > score for j, score in enumerate(scores) if j != "abcd".index(label)))
    return sum(hits) / len(hits)


def test_a_probe_is_a_regression_on_what_can_be_used():
    fit, test = split(80, 0), split(60, 1)
    fit.embeddings["image"][::9], test.embeddings["image"][::13] = np.nan, np.nan
    found = Probe("kind", strengths=(1e-2,))(replace(test, fit=fit), no_text)
    vectors, labels = usable(fit)
    model = logistic(vectors, np.array(["abcd".index(label) for label in labels]), 4, 1e-2)
    assert found["probe/kind/top1"] == pytest.approx(share_found(model, test))
    assert found["probe/kind/log10_strength"] == pytest.approx(-2)
    assert 0.4 < found["probe/kind/top1"] < 1
    assert found["probe/kind/recall"] != found["probe/kind/top1"]


def test_the_strength_is_the_best_on_held_out_examples():
    fit, test = split(300, 0, valid=1.0), split(100, 1)
    probe = Probe("kind", strengths=(1e-6, 1e-2, 100.0), validation=0.3)
    found = probe(replace(test, fit=fit), no_text)
    from mmjax.evaluate.metrics.fit_split import fit_and_test

    known, _ = fit_and_test(fit, test, "kind", "image", "Probe")
    held = held_out(known, 0.3, 0)
    shares = {}
    for strength in probe.strengths:
        model = logistic(known.vectors[~held], known.number[~held], 4, strength)
        shares[strength] = float(np.mean(model(known.vectors[held]).argmax(axis=1) == known.number[held]))
    best = max(shares, key=lambda strength: (shares[strength], strength))
    assert found["probe/kind/log10_strength"] == pytest.approx(math.log10(best))
    assert min(shares.values()) < max(shares.values())


def test_of_each_class_a_share_is_held_out_and_one_stays():
    fit = split(200, 0)
    from mmjax.evaluate.metrics.fit_split import fit_and_test

    known, _ = fit_and_test(fit, fit, "kind", "image", "Probe")
    held = held_out(known, 0.25, 0)
    for kind in range(4):
        mine = known.number == kind
        assert held[mine].sum() == round(0.25 * mine.sum())
    assert not np.array_equal(held, held_out(known, 0.25, 1))
    few = replace(known, vectors=known.vectors[:3], number=np.array([0, 1, 1]))
    assert held_out(few, 0.5, 0).sum() == 1
    one = fit.take(np.array([fit.columns["kind"].index(kind) for kind in "abcd"]))
    one.valid["image"][:] = True
    with pytest.raises(UserError, match="give one strength"):
        Probe("kind")(replace(split(20, 1), fit=one), no_text)


def test_few_shots_are_drawn_anew_and_averaged():
    fit, test = split(120, 0, valid=1.0), split(60, 1)
    found = Probe("kind", whole=False, shots=(2, 1000), draws=3, seed=5)(replace(test, fit=fit), no_text)
    vectors, labels = usable(fit)
    number = np.array(["abcd".index(label) for label in labels])
    shares = []
    for draw in range(3):
        rows = drawn_rows(number, 2, np.random.default_rng((5, draw)))
        assert np.bincount(number[rows]).tolist() == [2] * 4
        shares.append(share_found(ridge(vectors[rows], number[rows], 4, 0.1), test))
    assert found["probe/kind/2shot/top1"] == pytest.approx(np.mean(shares))
    assert found["probe/kind/2shot/top1_std"] == pytest.approx(np.std(shares))
    assert found["probe/kind/2shot/top1_std"] > 0
    assert found["probe/kind/1000shot/top1_std"] == 0  # all there are, each time
    assert found["probe/kind/1000shot/top1"] > found["probe/kind/2shot/top1"]
    assert "probe/kind/top1" not in found


def test_lists_of_classes_give_average_precision():
    def lists(part: Embedded) -> Embedded:
        column = [None if k is None else [k, "e"] if i % 2 else [k] for i, k in enumerate(part.columns["kind"])]
        return replace(part, columns={"kind": column})

    fit, test = lists(split(90, 0)), lists(split(60, 1))
    found = Probe("kind", strengths=(1e-2,))(replace(test, fit=fit), no_text)
    rows = {n: [i for i, k in enumerate(p.columns["kind"]) if k is not None and p.valid["image"][i]]
            for n, p in (("fit", fit), ("test", test))}  # fmt: skip
    right = {n: np.array([[c in p.columns["kind"][i] for c in "abcde"] for i in rows[n]])
             for n, p in (("fit", fit), ("test", test))}  # fmt: skip
    model = logistic(fit.embeddings["image"][rows["fit"]], right["fit"], 5, 1e-2)
    scores = model(test.embeddings["image"][rows["test"]])
    assert found["probe/kind/mAP"] == pytest.approx(mean_average_precision(scores, right["test"], tie=0))
    assert set(counts.scores(found)) == {"probe/kind/mAP", "probe/kind/log10_strength"}
    assert found["probe/kind/examples"] == len(right["test"])
    assert found["probe/kind/chance"] == pytest.approx(right["test"].mean(axis=0).mean())
    # Few shots: so many of each class, each of them with all its classes.
    few = Probe("kind", whole=False, shots=(2,), draws=3)
    found = few(replace(test, fit=fit), no_text)
    shares = []
    for draw in range(3):
        rng, chosen = np.random.default_rng((0, draw)), []
        for kind in range(5):
            chosen += [row for row in rng.permutation(np.flatnonzero(right["fit"][:, kind]))[:2] if row not in chosen]
        vectors = fit.embeddings["image"][rows["fit"]][chosen]
        alone = [ridge(vectors, right["fit"][chosen, kind].astype(int), 2, 0.1) for kind in range(5)]  # a class each
        scores = np.stack([model(test.embeddings["image"][rows["test"]])[:, 1] for model in alone], axis=1)
        shares.append(mean_average_precision(scores, right["test"], tie=0))
    expected = {"probe/kind/2shot/mAP": np.mean(shares), "probe/kind/2shot/mAP_std": np.std(shares)}
    assert counts.scores(found) == pytest.approx(expected)
    assert 0.3 < found["probe/kind/2shot/mAP"] < 1
    assert few.classified(replace(test, fit=fit), no_text) == []
    empty = replace(test, columns={"kind": [[]] * len(test)})  # nobody is of any class
    assert few(replace(empty, fit=fit), no_text) == few(replace(test, fit=empty), no_text) == {}


@pytest.mark.parametrize("folds", [None, "fold"])
def test_decisions_are_those_that_the_metrics_count(folds):
    fit, test = split(80, 0), split(60, 1)
    test.columns["fold"] = [i % 3 for i in range(60)]
    test.embeddings["image"][::13] = np.nan
    probe = Probe("kind", strengths=(1e-2,), folds=folds, fit_split="train" if folds is None else None)
    metrics, (found,) = probe.judged(replace(test, fit=fit), no_text)
    assert (found.name, found.label, found.classes) == ("probe/kind", "kind", ("a", "b", "c", "d"))
    assert found.rows.tolist() == [i for i in range(60) if test.valid["image"][i] and test.columns["kind"][i]]
    assert [found.classes[i] for i in found.truth] == [test.columns["kind"][row] for row in found.rows]
    right = found.truth == found.found
    if folds is None:
        assert right.mean() == pytest.approx(metrics["probe/kind/top1"])
    else:
        for fold in range(3):
            assert right[found.rows % 3 == fold].mean() == pytest.approx(metrics[f"probe/kind/top1/fold={fold}"])
    assert not right[found.rows % 13 == 0].any()  # NaN counts against the model
    if folds is None:  # what is wrong is what scored most
        vectors, labels = usable(fit)
        model = logistic(vectors, np.array(["abcd".index(label) for label in labels]), 4, 1e-2)
        finite = found.rows % 13 != 0
        scores = model(test.embeddings["image"][found.rows[finite]])
        np.testing.assert_array_equal(found.found[finite], scores.argmax(axis=1))
    assert not Probe("kind", whole=False, shots=(1,)).classified(replace(test, fit=fit), no_text)


def test_folds_need_no_other_split():
    every = split(90, 2)
    every.columns["fold"] = [i % 3 for i in range(90)]
    found = Probe("kind", fit_split=None, folds="fold", strengths=(1e-2,))(every, no_text)
    numbers = np.arange(90) % 3
    first = Probe("kind", strengths=(1e-2,))(
        replace(every.take(np.flatnonzero(numbers == 0)), fit=every.take(np.flatnonzero(numbers != 0))), no_text
    )
    assert found["probe/kind/top1/fold=0"] == first["probe/kind/top1"]
    assert found["probe/kind/top1"] == pytest.approx(
        np.mean([found[f"probe/kind/top1/fold={fold}"] for fold in range(3)])
    )
