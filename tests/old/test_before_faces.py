"""What the last commit wrote in whose records parts were named by their files: it resumes, loads and is evaluated.

`before_faces.zip` holds `workdir`, the run of `tests/tiny.py:couple` stopped after step 10 of 20, with the metrics of
all 20 steps; `export`, what `mmjax export` made of its end; and `records`, one of each experiment in `experiments/`.
"""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import mmjax
from mmjax.cli.main import main
from mmjax.experiment.diff import diff
from mmjax.experiment.load import load_experiment
from mmjax.experiment.old_names import NAMES
from mmjax.experiment.record import loads, name_of
from mmjax.runtime.checkpoints import latest_step
from tests.benchmarks.sizes import FOLDER
from tests.tiny import write_shapes

WRITTEN = Path(__file__).with_name("before_faces.zip")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    with zipfile.ZipFile(WRITTEN) as archive:
        archive.extractall(folder)
    return folder


DEFAULTS = {"attention": ("plain", "auto"), "remat": (None, "dots")}  # before, and today


def test_records_are_those_of_the_experiments_of_today(written):
    """But for how blocks compute, where an experiment leaves that to mmjax. The quickstart is another one since: its
    record is only read."""
    records = sorted((written / "records").glob("*.json"))
    assert len(records) > 50
    called = set()
    for file in records:
        text = file.read_text()
        called |= {line.split('"@call": "')[1].split('"')[0] for line in text.splitlines() if '"@call": "' in line}
        config = loads(text)
        if file.name.startswith("quickstart.py"):
            continue
        for found in diff(config, load_experiment(str(FOLDER / name_of(text)))):
            assert (found.left, found.right) == DEFAULTS[found.path.rpartition(".")[2]], (file.name, found)
    assert {name for name in called if name.startswith("mmjax")} <= NAMES.keys()
    assert len(called) > 40


def test_a_workdir_goes_on_as_it_would_have(written, tmp_path):
    workdir = tmp_path / "workdir"
    shutil.copytree(written / "workdir", workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert latest_step(workdir) == 10
    table = write_shapes(tmp_path)
    record = workdir / "experiment.json"
    assert main(["train", str(record), "--workdir", str(workdir), f"data.sources.shapes.table={table}", "--fork"]) == 0
    assert latest_step(workdir) == 20
    again = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["loss"] for line in again if "loss" in line}
    assert found.keys() == losses.keys()
    np.testing.assert_allclose([found[s] for s in losses], list(losses.values()), rtol=1e-4)


def test_a_workdir_and_an_export_load_and_are_the_same_but_for_their_steps(written):
    begun, ended = mmjax.load(written / "workdir"), mmjax.load(written / "export")
    names = ["a red disc", "a blue bar"]
    vectors = [model.embed(text=names) for model in (begun, ended)]
    assert all(np.allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5) for x in vectors)
    assert not np.allclose(vectors[0], vectors[1])
    assert begun.experiment.towers == ended.experiment.towers


def test_a_workdir_and_an_export_are_evaluated(written, tmp_path, capsys):
    for source in ("workdir", "export"):
        command = ["evaluate", str(written / source), "--on", write_shapes(tmp_path), "--evaluators", "retrieval"]
        assert main([*command, "--json", str(tmp_path / f"{source}.json")]) == 0
        told = json.loads((tmp_path / f"{source}.json").read_text())
        assert any("retrieval/image->text/R@1" in metrics for metrics in told.values() if isinstance(metrics, dict))
