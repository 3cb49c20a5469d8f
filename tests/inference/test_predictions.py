"""What a trained model predicts of inputs that it reads together: labels, answers, and whether they match."""

import csv
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.inference.model import Model, load
from mmjax.runtime.metrics import read
from mmjax.train.loop import train
from tests.tiny import COLOURS, SHAPES, draw
from tests.trained import Trained, run_once, tiny_config

NAMES = [f"a {COLOURS[c]} {SHAPES[s]}" for c in range(len(COLOURS)) for s in range(len(SHAPES))]


@pytest.fixture(scope="module")
def run(shapes: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    def make(workdir: Path) -> None:
        train(tiny_config(shapes, name="reading"), workdir)

    return run_once(tmp_path_factory, shapes, "reading", make)


@pytest.fixture(scope="module")
def model(run: Trained) -> Model:
    return load(run.workdir)


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    rng = np.random.default_rng(5)
    return [draw(c, s, rng) for c in range(len(COLOURS)) for s in range(len(SHAPES))]


def test_training_learns_the_label_and_says_so(run: Trained) -> None:
    lines = [line for line in read(run.workdir) if line.get("split") == "validation"]
    assert lines[-1]["losses/shape/accuracy"] > 0.9
    assert lines[-1]["losses/match/pairs"] > 16
    assert lines[-1]["accuracy/shape/examples"] == len(NAMES)
    assert lines[-1]["accuracy/shape/chance"] == 1 / len(SHAPES)
    assert lines[-1]["accuracy/shape/without image/top1"] > 0.9  # the names tell it


def test_accuracy_is_counted_example_by_example(model: Model, run: Trained) -> None:
    """Of the validation split, against the model asked for each of its examples."""
    with Path(run.table).open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    files = [str(Path(run.table).parent / row["image"]) for row in rows]
    texts, right = [row["text"] for row in rows], [row["shape"] for row in rows]
    line = [line for line in read(run.workdir) if line.get("split") == "validation"][-1]
    asked: dict[str, Any] = {"top1": {"image": files, "text": texts}, "without text/top1": {"image": files}}
    for name, given in asked.items():
        best = model.predict(**given).best
        hits = np.mean([a == b for a, b in zip(best, right, strict=True)])
        np.testing.assert_allclose(line[f"accuracy/shape/{name}"], hits, rtol=1e-6)


def test_reranking_is_by_the_model_s_own_matching(model: Model, run: Trained) -> None:
    """The best three texts of each validation picture, asked one by one."""
    with Path(run.table).open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    files, texts = [str(Path(run.table).parent / row["image"]) for row in rows], [row["text"] for row in rows]
    scores, hits = model.similarity(image=files, text=texts), []
    for query, file in enumerate(files):
        best = np.argsort(-scores[query], kind="stable")[:3]
        shares = model.match(image=[file] * 3, text=[texts[i] for i in best])
        hits.append(bool(best[np.argmax(shares)] == query))
    line = [line for line in read(run.workdir) if line.get("split") == "validation"][-1]
    np.testing.assert_allclose(line["reranked/image->text/R@1"], np.mean(hits), rtol=1e-6)
    assert line["reranked/image->text/R@5"] == line["retrieval/image->text/R@5"]  # beyond the first three


def test_labels_are_the_data_s_and_logits_the_pretrainer_s(model: Model, pictures: list[Any]) -> None:
    found = model.predict(image=pictures, text=NAMES)
    assert found.labels == SHAPES
    expected = [SHAPES[i % len(SHAPES)] for i in range(len(NAMES))]
    assert np.mean([a == b for a, b in zip(found.best, expected, strict=True)]) > 0.9
    batch = model._chains.encode(image=pictures, text=NAMES)
    apply: Any = model.experiment.pretrainer().apply
    logits = apply(model.variables, batch, "shape", method="predict")
    np.testing.assert_allclose(found.logits, logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, jax.nn.softmax(logits), rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.predict(image=pictures[3], text=NAMES[3]).logits, logits[3], rtol=0, atol=1e-5)
    assert model.answer(image=pictures[3], text=NAMES[3]) == found.best[3]


def test_an_input_that_is_left_out_is_lacking(model: Model, pictures: list[Any]) -> None:
    """The fusion reads the words alone, as of an example that has no picture."""
    batch = model._chains.encode(image=[None] * 3, text=NAMES[:3])
    assert not batch["image_valid"].any()
    apply: Any = model.experiment.pretrainer().apply
    logits = apply(model.variables, batch, "shape", method="predict")
    np.testing.assert_allclose(model.predict(text=NAMES[:3]).logits, logits, rtol=0, atol=1e-5)
    with_picture = model.predict(image=pictures[:3], text=NAMES[:3]).logits
    assert np.abs(with_picture - logits).max() > 1e-3


def test_pairs_are_matched_one_by_one(model: Model, pictures: list[Any]) -> None:
    shares = model.match(image=pictures[:6], text=NAMES[:6])
    assert shares.shape == (6,)
    assert ((shares >= 0) & (shares <= 1)).all()
    one = model.match(image=pictures[2], text=NAMES[2])
    assert np.shape(one) == ()
    np.testing.assert_allclose(one, shares[2], rtol=0, atol=1e-5)
    batch = model._chains.encode(image=pictures[:6], text=NAMES[:6])
    apply: Any = model.experiment.pretrainer().apply
    logits = apply(model.variables, batch, "match", method="predict")
    np.testing.assert_allclose(shares, jax.nn.softmax(logits)[:, 1], rtol=0, atol=1e-5)
    many = model.match(image=pictures[:6], text=NAMES[:6], batch_size=4)
    np.testing.assert_allclose(many, shares, rtol=0, atol=1e-5)


def test_a_resumed_run_ends_with_the_same_parameters(run: Trained, tmp_path: Path) -> None:
    """Dropped inputs, drawn partners and masks all follow from the seed and the step."""
    workdir = tmp_path / "run"
    shutil.copytree(run.workdir, workdir)
    for step in (100, 150):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    train(tiny_config(run.table, name="reading"), workdir)
    again, whole = load(workdir).variables, load(run.workdir).variables
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("predict", {"image": 2, "text": 3}, "was given 2 of image, 3 of text: give as many of each"),
        ("predict", {"audio": 1}, "the model has no 'audio' tower"),
        ("predict", {"text": 0}, "was given no example: the lists are empty"),
        ("predict", {"text": 1, "objective": "match"}, "asks 'match', but the Classify or Regress objectives are"),
        ("match", {"text": 1}, r"match\(\) needs image=... and text=...; image isn't given"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: Model, pictures: list[Any], method: str, given: dict[str, Any], message: str
) -> None:
    lists: dict[str, Any] = {"image": pictures, "text": NAMES, "audio": [None]}
    named = {name: lists[name][:count] if name in lists else count for name, count in given.items()}
    with pytest.raises(UserError, match=message):
        getattr(model, method)(**named)


def test_a_model_that_cannot_says_what_it_was_trained_with(trained: Trained) -> None:
    other = load(trained.workdir)
    with pytest.raises(
        UserError, match=r"match\(\) needs a model .* a Matching objective, .*image_text \(Contrastive\)"
    ):
        other.match(image=[], text=[])
    with pytest.raises(UserError, match=r"predict\(\) needs a model .* a Classify or Regress objective"):
        other.predict(text="a red disc")
