"""Accuracy and retrieval with inputs disturbed, and by group, against the model asked with each example's own noise."""

import csv
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmjax.data.evaluation import evaluation_batches
from mmjax.errors import UserError
from mmjax.evaluate import Accuracy, Embedded, Retrieval
from mmjax.evaluate.metrics.groups import gap, grouped_rows
from mmjax.evaluate.metrics.ranks import TIE
from mmjax.inference.model import Model
from tests.evaluate.conftest import Drawn
from tests.tiny import SHAPES

DISTURB: tuple[tuple[str, float], ...] = (("image", 0.3), ("text", 0.5))
SAID = {"image": "disturbed image std=0.3", "text": "disturbed text replaced=0.5"}
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def line(drawn: Drawn) -> dict[str, float]:
    again: Any = {"disturb": DISTURB, "by": "shape"}
    return drawn.judged([Accuracy("shape", **again), Retrieval(same="text", **again)])


@pytest.fixture(scope="module")
def rows(drawn: Drawn) -> list[dict[str, str]]:
    """Of the validation split."""
    with Path(drawn.table).open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "validation"]


@pytest.fixture(scope="module")
def inputs(drawn: Drawn, rows: list[dict[str, str]]) -> dict[str, Arrays]:
    """The arrays of all examples, by the input that is disturbed, "" for none."""
    folder, reading = Path(drawn.table).parent, drawn.model
    pictures = [np.asarray(Image.open(folder / row["image"])) for row in rows]
    clean = reading.preprocess(image=pictures, text=[row["text"] for row in rows])
    batch, _ = next(iter(evaluation_batches(drawn.data, "validation", len(rows))))
    made = {"": clean}
    for name, amount in DISTURB:
        kind, chain, mask = reading.kinds[name], reading._chains.transforms[name], clean.get(f"{name}_mask")
        each = []
        for row, values in enumerate(clean[name]):
            random = np.random.default_rng((zlib.crc32(name.encode()), *map(int, batch["id"][row])))
            each.append(kind.disturbed(values, None if name == "image" else mask[row], amount, random, chain))  # pyright: ignore[reportOptionalSubscript]
        made[name] = clean | {name: np.stack(each)}
        assert (made[name][name] != clean[name]).any(axis=tuple(range(1, clean[name].ndim))).mean() > 0.7
    return made


def test_accuracy_is_told_of_disturbed_inputs_and_by_group(
    reading: Model, line: dict[str, float], rows: list[dict[str, str]], inputs: dict[str, Arrays]
) -> None:
    apply: Any = reading.experiment.pretrainer().apply
    right = np.array([SHAPES.index(row["shape"]) for row in rows])
    hits = {}
    for name, arrays in inputs.items():
        batch = arrays | {f"{each}_valid": np.ones(len(rows), bool) for each in ("image", "text")}
        hits[name] = np.argmax(apply(reading.variables, batch, "shape", method="predict"), axis=1) == right
    np.testing.assert_allclose(line["accuracy/shape/top1"], hits[""].mean(), rtol=1e-6)
    assert len({mine.tobytes() for mine in hits.values()}) == 3  # it does matter what is disturbed
    for name, said in SAID.items():
        np.testing.assert_allclose(line[f"accuracy/shape/{said}/top1"], hits[name].mean(), rtol=1e-6)
    of_shape = {shape: hits[""][right == place].mean() for place, shape in enumerate(SHAPES)}
    for shape, share in of_shape.items():
        np.testing.assert_allclose(line[f"accuracy/shape/where shape={shape}/top1"], share, rtol=1e-6)
        assert line[f"accuracy/shape/where shape={shape}/examples"] == len(rows) / len(SHAPES)
    apart = max(of_shape.values()) - min(of_shape.values())
    np.testing.assert_allclose(line["accuracy/shape/gap over shape/top1"], apart, atol=1e-7)


def test_noise_is_the_same_for_any_batch_size(drawn: Drawn, line: dict[str, float]) -> None:
    judge = Accuracy("shape", disturb=DISTURB)
    other = drawn.judged([judge], batch_size=7)
    assert {name: line[name] for name in other} == pytest.approx(other, abs=1e-6)


def test_retrieval_is_told_of_disturbed_inputs_and_by_group(
    reading: Model, line: dict[str, float], rows: list[dict[str, str]], inputs: dict[str, Arrays]
) -> None:
    apply: Any = reading.experiment.pretrainer().apply
    vectors = {name: apply(reading.variables, arrays, method="embed") for name, arrays in inputs.items()}
    texts = np.array([row["text"] for row in rows])
    right, shapes = texts[:, None] == texts, np.array([row["shape"] for row in rows])
    for name in ("", "image", "text"):
        image, text = (np.asarray(vectors[name if name == side else ""][side]) for side in ("image", "text"))
        for direction, scores in (("image->text", image @ text.T), ("text->image", text @ image.T)):
            best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
            hit = ~((scores >= best - TIE) & ~right).any(axis=1)
            prefix = f"retrieval/{direction}" + (f"/{SAID[name]}" if name else "")
            np.testing.assert_allclose(line[f"{prefix}/R@1"], hit.mean(), rtol=1e-6)
            if not name:
                groups = {shape: hit[shapes == shape].mean() for shape in SHAPES}
                for shape, share in groups.items():
                    np.testing.assert_allclose(line[f"{prefix}/where shape={shape}/R@1"], share, rtol=1e-6)
                apart = max(groups.values()) - min(groups.values())
                np.testing.assert_allclose(line[f"{prefix}/gap over shape/R@1"], apart, atol=1e-7)


def test_no_group_is_made_of_rows_without_a_value() -> None:
    values = ["b", None, "a", float("nan"), "", "b", 3]
    found = grouped_rows(values, np.array([6, 5, 4, 3, 2, 1, 0]))
    assert {name: places.tolist() for name, places in found.items()} == {"3": [0], "a": [4], "b": [1, 6]}
    assert gap("g", {"a": 0.25, "b": 1.0}) == {"g": 0.75}
    assert gap("g", {"a": 0.25}) == {}


def test_the_model_and_the_input_must_be_there(reading: Model) -> None:
    vectors = {name: np.eye(2, dtype=np.float32) for name in ("image", "text")}
    split = Embedded(vectors, dict.fromkeys(vectors, np.ones(2, bool)))
    speak = lambda strings: np.zeros((len(strings), 2))  # noqa: E731
    with pytest.raises(UserError, match="Accuracy needs the model: embeddings alone don't tell a label"):
        Accuracy("shape")(split, speak)
    with pytest.raises(
        UserError, match=r"Retrieval\(disturb=...\) needs the model: embeddings alone can't be disturbed"
    ):
        Retrieval(disturb=DISTURB)(split, speak)
    with pytest.raises(UserError, match=r"Retrieval\(by=...\) reads column 'kind'"):
        Retrieval(by="kind")(split, speak)

    class Asked:
        kinds = reading.kinds

        def inputs(self, objective: str) -> tuple[str, ...]:
            return ("image",)

    with pytest.raises(UserError, match=r"Accuracy\(disturb=...\) has 'text', but .* image"):
        Accuracy("shape", disturb=DISTURB)(replace(split, predictions=Asked()), speak)
