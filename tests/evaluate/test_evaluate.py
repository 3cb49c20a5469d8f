"""Evaluation from a workdir: the numbers of the training run, by the same names, on the screen and in JSON."""

import io
import json
import re
from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest
from rich.console import Console

from mmjax.data.evaluation import evaluation_batches
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, Evaluator
from mmjax.evaluate.evaluate import evaluate
from mmjax.evaluate.evaluators.gallery import Gallery
from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.evaluators.zeroshot import ZeroShot
from mmjax.evaluate.model import choose, evaluate_model
from mmjax.evaluate.report.findings import Collector
from mmjax.evaluate.split_embedder import SplitEmbedder
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.interop.export import export
from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import restore_variables
from mmjax.runtime.counts import scores
from mmjax.runtime.mesh import Mesh
from tests.trained import Trained, tiny_config


@dataclass(frozen=True)
class Judge:
    """The pieces that `evaluate` takes."""

    embedder: SplitEmbedder
    variables: dict
    pretrainer: object
    data: object


@pytest.fixture(scope="module")
def judge(trained: Trained) -> Judge:
    experiment = build(tiny_config(trained.table))
    data, pretrainer = prepared(experiment.data, trained.workdir), experiment.pretrainer()
    mesh = Mesh().build()
    return Judge(SplitEmbedder(pretrainer, data, mesh, 16), restore_variables(trained.workdir), pretrainer, data)


def test_a_split_is_embedded_whole_and_in_order(judge: Judge):
    """24 examples in batches of 16: the second is padded, over 8 devices; a plain apply on one device agrees."""
    embedded = judge.embedder.split(judge.variables, "test", inputs=("image",))
    ((batch, columns),) = evaluation_batches(judge.data, "test", 24)  # pyright: ignore[reportArgumentType]
    apply = judge.pretrainer.apply  # pyright: ignore[reportAttributeAccessIssue]
    plain = jax.device_get(apply(judge.variables, batch, method="embed"))
    assert len(embedded) == 24
    for modality in ("image", "text", "audio"):
        real = batch[f"{modality}_valid"]
        np.testing.assert_array_equal(embedded.valid[modality], real)
        np.testing.assert_allclose(embedded.embeddings[modality][real], plain[modality][real], atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(embedded.embeddings[modality][real], axis=1), 1, atol=1e-5)
    assert embedded.valid["audio"].sum() == 22  # two have no sound
    np.testing.assert_array_equal(embedded.inputs["image"], batch["image"])
    assert embedded.columns == columns
    assert embedded.columns["text"][0] == "a red disc"


def test_prompts_are_embedded_as_captions_are(judge: Judge):
    embedded = judge.embedder.split(judge.variables, "test")
    vectors = judge.embedder.text(judge.variables, embedded.columns["text"])  # 24 strings, batches of 16
    np.testing.assert_allclose(vectors, embedded.embeddings["text"], atol=1e-6)


def test_each_split_is_embedded_once_and_told_at_once(judge: Judge, tmp_path, monkeypatch):
    embedded, told = [], []
    split = judge.embedder.split

    def counted(variables, name, inputs=()):
        embedded.append(name)
        return split(variables, name, inputs)

    monkeypatch.setattr(judge.embedder, "split", counted)
    evaluators = [Retrieval("test"), ZeroShot("shape"), Retrieval(), ZeroShot("shape", "test")]
    results = evaluate(
        judge.embedder, judge.variables, evaluators, step=3, workdir=tmp_path, found=lambda *found: told.append(found)
    )
    assert embedded == ["test", "validation"]
    assert told == list(results.items())
    assert {"retrieval/image->text/R@1", "zeroshot/shape/top1"} <= results["test"].keys() & results["validation"].keys()


def test_an_evaluator_sees_what_those_before_it_found(judge: Judge, tmp_path):
    seen = []

    @dataclass(frozen=True)
    class Spy(Evaluator):
        split: str = "test"
        inputs: tuple[str, ...] = ()

        def __call__(self, embedded: Embedded, embed_text) -> dict[str, float]:
            seen.append((embedded.history, embedded.workdir))
            return {}

    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "loss": 1.0}\n{"step": 3, "split": "test", "old": 1}\n')
    evaluate(judge.embedder, judge.variables, [Retrieval("test", at=(1,)), Spy()], step=3, workdir=tmp_path)  # pyright: ignore
    ((history, workdir),) = seen
    assert history[0] == {"step": 2, "loss": 1.0}
    assert [(line["step"], line.get("split"), "retrieval/image->text/R@1" in line) for line in history[1:]] == [
        (3, "test", True)
    ]
    assert workdir == tmp_path


def test_two_metrics_of_one_name_are_refused(judge: Judge, tmp_path):
    with pytest.raises(UserError, match=r"two evaluators of the test split give 'retrieval/\S+': set the field name="):
        evaluate(
            judge.embedder, judge.variables, [Retrieval("test"), Retrieval("test", "text")], step=1, workdir=tmp_path
        )


def test_a_workdir_gives_the_numbers_of_its_run(trained: Trained, tmp_path):
    screen = io.StringIO()
    file = tmp_path / "numbers.json"
    results = evaluate_model(trained.workdir, json_path=file, console=Console(file=screen, width=100))
    logged = {
        line.pop("split"): line for line in metrics.read(trained.workdir) if "split" in line and line.pop("step") == 24
    }
    assert results.keys() == logged.keys() == {"validation", "test"}
    for split in logged:
        assert results[split] == pytest.approx(logged[split])
    told = json.loads(file.read_text())
    (how,) = told.pop("protocols")["test"]
    assert how.startswith("retrieval: each picture and sound counts once")
    assert told == {"model": str(trained.workdir), "step": 24, **results}
    said = " ".join(screen.getvalue().split())
    assert "retrieval/text->audio: 22 captions, among 22 sounds; at random R@1 0.045" in said
    assert "retrieval/image->text: 24 pictures, among 24 captions; at random R@1 0.042" in said
    assert "zeroshot/shape: 24 examples in 4 classes; at random top1 0.250" in said
    assert how in said
    row = re.search(r"^ *retrieval/text->audio +([\d. │|]+)", screen.getvalue(), re.MULTILINE)
    assert row or "retrieval/text->audio" in screen.getvalue()
    assert f"{results['test']['retrieval/text->audio/R@1']:.3f}" in screen.getvalue()


def test_an_exported_model_gives_the_same_numbers(trained: Trained, tmp_path):
    export(trained.workdir, tmp_path / "model")
    found = evaluate_model(tmp_path / "model", split="test", evaluators=["retrieval"], report=tmp_path / "report.html")
    assert found == evaluate_model(trained.workdir, split="test", evaluators=["retrieval"])
    assert "retrieval" in (tmp_path / "report.html").read_text()
    with pytest.raises(UserError, match=r"step=8: .* has no steps"):
        evaluate_model(tmp_path / "model", step=8)
    with pytest.raises(UserError, match=r"there is no .*modle.*did you mean model"):
        evaluate_model(tmp_path / "modle")


def test_split_step_and_evaluators_can_be_chosen(trained: Trained):
    results = evaluate_model(trained.workdir, split="test", step=8, evaluators=["zeroshot"])
    assert results.keys() == {"test"}
    assert scores(results["test"]).keys() == {f"zeroshot/shape/{name}" for name in ("top1", "top5", "recall")}
    assert results["test"]["zeroshot/shape/top5"] == 1  # there are four shapes


def test_what_cannot_be_had_says_what_can(trained: Trained, tmp_path):
    with pytest.raises(UserError, match=r"no evaluator 'retreival', .*did you mean retrieval\?"):
        evaluate_model(trained.workdir, evaluators=["retreival"])
    with pytest.raises(UserError, match="is not a workdir of a run"):
        evaluate_model(tmp_path)
    with pytest.raises(UserError, match=r"step 5 .*\[8, 16, 24\]"):
        evaluate_model(trained.workdir, step=5)
    with pytest.raises(SplitNotFoundError, match="holds test, train, validation"):
        evaluate_model(trained.workdir, split="tset")
    (tmp_path / "experiment.json").write_text((trained.workdir / "experiment.json").read_text())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        evaluate_model(tmp_path)


def test_evaluators_that_become_the_same_run_once():
    every = [Retrieval(), Retrieval(split="test", when="end"), ZeroShot("shape")]
    assert choose(every, None, None) == every
    assert choose(every, None, "test") == [replace(every[1], when="always"), ZeroShot("shape", "test")]
    assert choose(every, ["zeroshot"], None) == [every[2]]
    with pytest.raises(UserError, match="no evaluators"):
        choose([], None, None)


def test_a_split_to_learn_from_is_embedded_once_for_all(judge: Judge, tmp_path, monkeypatch):
    embedded = []
    split = judge.embedder.split

    def counted(variables, name, inputs=()):
        embedded.append((name, tuple(inputs)))
        return split(variables, name, inputs)

    monkeypatch.setattr(judge.embedder, "split", counted)
    evaluators = [
        Probe("shape", "test", strengths=(1e-3,)),
        KNN("shape", "test", k=5),
        Gallery("test", rows=2),
        KNN("shape", "validation", k=5),
        Retrieval("train"),
        (collector := Collector([], raw=lambda row: None)),  # pyright: ignore[reportArgumentType]
    ]
    results = evaluate(judge.embedder, judge.variables, evaluators, step=3, workdir=tmp_path)
    assert embedded == [("test", ("image",)), ("train", ()), ("validation", ())]
    assert {"probe/shape/top1", "knn/shape/top1"} <= results["test"].keys()
    train, test = (split(judge.variables, name) for name in ("train", "test"))
    for evaluator in evaluators[:2]:
        alone = evaluator(replace(test, fit=train), lambda strings: np.zeros((0, 0)))
        assert {name: results["test"][name] for name in alone} == pytest.approx(alone)
    decided = collector.kept[0].classified  # of those that learn too, for the confusion matrices of a page
    assert [found.name for found in decided] == ["probe/shape", "knn/shape"]
    for found in decided:
        assert found.matrix().sum() == 24
        assert np.mean(found.truth == found.found) == pytest.approx(results["test"][f"{found.name}/top1"])
