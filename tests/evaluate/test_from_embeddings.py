"""Embeddings that were written are judged without the model, which is nowhere in these tests.

That they are those of the model, and of an evaluation of it, is shown by `test_embed.py`.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmjax import embeddings
from mmjax.cli.main import main
from mmjax.data.embedding_files import Embeddings
from mmjax.errors import UserError
from mmjax.evaluate.benchmarks import BENCHMARKS
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.evaluate.from_embeddings import evaluate_embeddings
from mmjax.runtime.counts import scores
from tests.evaluate.evaluators.test_knn import no_text
from tests.evaluate.metrics.test_ranks import unit


def written(folder: Path, name: str, split: str, model: str, embedded: Embedded) -> Path:
    """A folder as `mmjax embed` writes it."""
    folder.mkdir()
    shard = embeddings.shard_name(0, 1)
    embeddings.write_shard(folder, shard, Embeddings(embedded.embeddings, embedded.valid, embedded.columns))
    told = {
        "model": {"source": model, "step": None, "digest": model},
        "data": {"name": name, "split": split, "digest": "x"},
        "modalities": {modality: vectors.shape[1] for modality, vectors in embedded.embeddings.items()},
        **{"count": len(embedded), "rows": 100, "shards": 1, "digests": {shard: embeddings.digest(folder, shard)}},
    }
    embeddings.write_manifest(folder, told)
    return folder


def pictures(count: int, seed: int, *modalities: str, **columns: list) -> Embedded:
    rng = np.random.default_rng(seed)
    vectors = {modality: unit(rng, count, 6) for modality in modalities}
    valid = {modality: np.ones(count, bool) for modality in modalities}
    return Embedded(vectors, valid, {"id": [str(i) for i in range(count)], **columns})


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    """Pictures and captions, by split."""
    shapes = ["disc", "bar", "cross"] * 10
    parts = {split: pictures(30, seed, "image", "text", shape=shapes) for seed, split in enumerate(("train", "test"))}
    return {split: written(tmp_path / split, "shapes", split, "runs/x", part) for split, part in parts.items()}


def test_evaluators_give_what_they_give_an_evaluation(folders, tmp_path, capsys):
    where = ["--embeddings", str(folders["test"]), str(folders["train"]), "--label", "shape"]
    assert main(["evaluate", *where, "--json", str(tmp_path / "x.json")]) == 0
    told = json.loads((tmp_path / "x.json").read_text())
    train, test = (Embedded.of(embeddings.read(folders[split])) for split in ("train", "test"))
    expected: dict[str, float] = {}
    for evaluator in (Retrieval("test"), KNN("shape", "test"), Probe("shape", "test")):
        expected |= evaluator(replace(test, fit=train), no_text)
    assert told["test"] == pytest.approx(expected)
    assert len(scores(expected)) == 8 + 3 + 4
    assert expected["knn/shape/examples"] == expected["retrieval/text->image/candidates"] == 30
    assert told["embeddings"] == [str(folders["test"]), str(folders["train"])]
    assert f"{expected['knn/shape/top1']:.3f}" in capsys.readouterr().out


def test_a_benchmark_is_judged_in_its_own_way(tmp_path):
    """Captions of COCO, five of a picture; and a model of which numbers are published."""
    coco = pictures(20, 0, "image", "text", of=[str(i // 5) for i in range(20)])
    coco.valid["image"][:] = np.arange(20) % 5 == 0
    model = "hf:openai/clip-vit-base-patch32"
    folder = written(tmp_path / "coco", "coco_captions", "test", model, coco)
    found = evaluate_embeddings([folder], json_path=tmp_path / "x.json")
    assert found["test"] == BENCHMARKS["coco_captions"].evaluators[0](coco, no_text)
    told = json.loads((tmp_path / "x.json").read_text())["published"]["numbers"]
    assert (told[0]["metric"], told[0]["published"]) == ("retrieval/image->text/R@1", 0.5012)
    fit, test = (pictures(30, seed, "image", label=[i % 3 for i in range(30)]) for seed in (1, 2))
    folders = [
        written(tmp_path / name, "cifar100", name, model, part) for name, part in (("train", fit), ("test", test))
    ]
    found = evaluate_embeddings(folders)
    assert {name.partition("/")[0] for name in found["test"]} == {"knn", "probe"}
    assert evaluate_embeddings(folders, evaluators=["knn"])["test"].keys() < found["test"].keys()
    # Of two modalities that are classified each has its own name.
    both = written(tmp_path / "both", "own", "train", "m", pictures(9, 3, "image", "audio", kind=list("abcabcabc")))
    with pytest.raises(UserError, match=r"KNN\(fit_split=None\)"):
        evaluate_embeddings([both], labels=["kind"])
    rest = written(tmp_path / "rest", "own", "test", "m", pictures(9, 4, "image", "audio", kind=list("abcabcabc")))
    found = evaluate_embeddings([both, rest], labels=["kind"], evaluators=["knn_image", "knn_audio"])
    assert {name.partition("/")[0] for name in found["test"]} == {"knn_image", "knn_audio"}


def test_what_cannot_be_judged_is_said(folders, tmp_path, capsys):
    test, train = str(folders["test"]), str(folders["train"])
    with pytest.raises(UserError, match=r"zeroshot asks the model for prompts, .*: mmjax evaluate \S+ --on shapes"):
        evaluate_embeddings([test], evaluators=["zeroshot"])
    with pytest.raises(UserError, match=r"no embeddings of the train split among .*test \(test\): .*--split train"):
        evaluate_embeddings([test], labels=["shape"])
    with pytest.raises(UserError, match=r"are both of the test split"):
        evaluate_embeddings([test, test])
    with pytest.raises(UserError, match=r"no evaluator 'retreival', .*did you mean retrieval"):
        evaluate_embeddings([test], evaluators=["retreival"])
    with pytest.raises(UserError, match=r"reads column 'shpae', which the train split lacks; it has: "):
        evaluate_embeddings([test, train], labels=["shpae"])
    other = written(tmp_path / "other", "shapes", "validation", "m", pictures(9, 3, "image"))
    with pytest.raises(UserError, match=r"other is by other model than \S+test: m, and runs/x there"):
        evaluate_embeddings([test, other])
    with pytest.raises(UserError, match=r"has image of the validation split alone, and nothing to judge it by: give"):
        evaluate_embeddings([other])
    assert main(["evaluate", "run", "--embeddings", test]) == 2
    assert "leave out MODEL" in capsys.readouterr().err
    assert main(["evaluate", "run", "--label", "shape"]) == 2
    assert "leave out --label" in capsys.readouterr().err
