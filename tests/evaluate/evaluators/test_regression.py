"""Errors of predicted numbers: by hand, and of a run whose model is asked for each example."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.evaluate import RegressionErrors
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.accuracy import measured
from mmjax.evaluate.metrics.regression import regression_scores
from mmjax.evaluate.split_predictions import Predicted
from mmjax.inference.model import load
from mmjax.runtime.metrics import read
from mmjax.train.loop import train
from tests.tiny import COLOURS, SHAPES
from tests.trained import tiny_config

no_text: Any = None


def test_scores_are_counted_example_by_example() -> None:
    random = np.random.default_rng(0)
    prediction, label = random.normal(size=(9, 2)), random.normal(size=(9, 2)) * (1, 30)
    found = regression_scores(prediction, label)
    errors = [prediction[i, t] - label[i, t] for i in range(9) for t in range(2)]
    np.testing.assert_allclose(found["mae"], sum(map(abs, errors)) / 18)
    np.testing.assert_allclose(found["rmse"], (sum(e * e for e in errors) / 18) ** 0.5)
    shares = [
        1 - sum((prediction[:, t] - label[:, t]) ** 2) / sum((label[:, t] - label[:, t].mean()) ** 2) for t in range(2)
    ]
    np.testing.assert_allclose(found["r2"], np.mean(shares))
    assert "r2" not in regression_scores(prediction, np.ones((9, 2)))


def judged(evaluator: Any, loss: str, count: int = 4) -> dict[str, float]:
    numbers = np.zeros((count, 2), np.float32)
    foretold = lambda objective: Predicted(numbers, numbers + 3, (), loss, np.arange(count))  # noqa: E731
    return evaluator(Embedded({}, {}, predictions=foretold), no_text)


def test_only_numbers_are_judged_by_their_errors() -> None:
    found = judged(RegressionErrors("price"), "regression")
    assert found == {"regression/price/mae": 3, "regression/price/rmse": 3, "regression/price/examples": 4}
    assert judged(RegressionErrors("price"), "regression", count=0) == {}
    with pytest.raises(UserError, match=r"RegressionErrors\(objective='kind'\) is a classifier"):
        judged(RegressionErrors("kind"), "softmax")
    with pytest.raises(UserError, match="RegressionErrors needs the model"):
        RegressionErrors("price")(Embedded({}, {}), no_text)
    with pytest.raises(UserError, match="numbers are judged by RegressionErrors"):
        measured(Predicted(np.zeros((2, 1), np.float32), np.zeros((2, 1)), (), "regression", np.arange(2)))


def test_a_run_is_judged_by_what_its_model_says(shapes: str, tmp_path: Path) -> None:
    with Path(shapes).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    places = [(COLOURS.index(row["text"].split()[1]), SHAPES.index(row["shape"])) for row in rows]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "places", "shape", "split"])
        for row, (colour, shape) in zip(rows, places, strict=True):
            writer.writerow([Path(shapes).parent / row["image"], f"{colour} {shape}", row["shape"], row["split"]])
    train(tiny_config(str(tmp_path / "t.csv"), name="measuring"), tmp_path / "run")
    lines = [line for line in read(tmp_path / "run") if "split" in line]
    mine = [i for i, row in enumerate(rows) if row["split"] == "validation"]
    model = load(tmp_path / "run")
    numbers = model.predict(image=[str(Path(shapes).parent / rows[i]["image"]) for i in mine])
    assert numbers.shape == (len(mine), 2)
    expected = regression_scores(numbers, np.array(places, np.float32)[mine])
    for name, value in expected.items():
        np.testing.assert_allclose(lines[-1][f"regression/places/{name}"], value, rtol=1e-4)
    assert lines[-1]["regression/places/r2"] > 0.5  # which shape and colour it is has been learnt
    assert lines[-1]["losses/places/r2"] > 0.5
    alone = model.predict(image=str(Path(shapes).parent / rows[mine[0]]["image"]))
    np.testing.assert_allclose(alone, numbers[0], rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="with a Classify objective"):
        model.answer(image=str(Path(shapes).parent / rows[0]["image"]))
