"""What evaluators make of labels that a table lacks."""

from pathlib import Path

import numpy as np
import pytest

from mmjax.data.sources.folder import Folder
from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.evaluators.knn import KNN
from mmjax.evaluate.evaluators.probe import Probe
from mmjax.evaluate.evaluators.zeroshot import ZeroShot

VECTORS = {"cat": [1.0, 0.0, 0.0], "dog": [0.0, 1.0, 0.0]}


def embed_text(strings):
    return np.array([VECTORS.get(string, [0.7, 0.7, 0.1]) for string in strings], np.float32)


def embedded(folder: Path, split: str, rows: list[str]) -> Embedded:
    """A split as a perfect model sees it: 100 pictures, the label of every fifth is blank."""
    (folder / f"{split}.csv").write_text("text,label,split\n" + "".join(f"{row},{split}\n" for row in rows))
    records = Folder(str(folder / f"{split}.csv")).open(split)
    labels = [records[i]["label"] for i in range(len(records))]
    vectors = np.array([VECTORS[records[i]["text"]] for i in range(len(records))], np.float32)
    return Embedded({"image": vectors}, {"image": np.ones(len(vectors), bool)}, {"label": labels}, split=split)


@pytest.mark.parametrize("blank", ["", " ", '"  "'])
@pytest.mark.parametrize("evaluator", [ZeroShot("label"), KNN("label"), Probe("label")])
def test_an_example_without_a_label_is_of_no_class_and_not_judged(tmp_path, evaluator, blank):
    names = [("cat", "dog")[i % 2] for i in range(100)]
    rows = [f"{name},{blank if i % 5 == 0 else name}" for i, name in enumerate(names)]
    fit, test = (embedded(tmp_path, split, rows) for split in ("train", "validation"))
    assert test.columns["label"].count(None) == 20
    found = evaluator(Embedded(**{**test.__dict__, "fit": fit}), embed_text)
    assert found[f"{evaluator.name}/label/top1"] == 1.0
    assert found[f"{evaluator.name}/label/recall"] == 1.0
