"""Training end to end: what it learns, writes and says, and that it goes on as if nothing had happened."""

import ast
import inspect
import json
import re
import shutil
from pathlib import Path

import fiddle as fdl
import jax
import numpy as np
import pytest
from jax.profiler import ProfileData

from mmjax.errors import UserError
from mmjax.evaluate.evaluators.retrieval import Retrieval
from mmjax.experiment import record as records
from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import CheckpointError, latest_step, restore_variables
from mmjax.runtime.retention import Best
from mmjax.train import loop
from mmjax.train.loop import train
from mmjax.train.profile import STEP
from tests.trained import PAIR_SAVES, TINY, Trained, pair_config, tiny_config

pytestmark = pytest.mark.usefixtures("programs")

LOSSES = ("loss", "image_text/loss", "text_audio/loss", "masked_image/loss")


MOST = 60  # lines of the function that holds the loop


def training(workdir: Path) -> list[dict]:
    return [line for line in metrics.read(workdir) if "split" not in line]


def test_the_loop_is_read_in_one_sitting():
    """The function that takes the steps is short, and enters few things at once."""
    functions = [node for node in ast.walk(ast.parse(inspect.getsource(loop))) if isinstance(node, ast.FunctionDef)]
    (holds,) = [
        function
        for function in functions
        if any(isinstance(node, ast.For) and ast.unparse(node.target) == "step" for node in ast.walk(function))
    ]
    assert holds.end_lineno is not None
    assert holds.end_lineno - holds.lineno + 1 <= MOST
    assert all(len(node.items) == 1 for node in ast.walk(holds) if isinstance(node, ast.With))


def test_it_learns(trained: Trained):
    lines = training(trained.workdir)
    assert [line["step"] for line in lines] == [1, 5, 10, 15, 20, 24]
    for name in LOSSES:
        assert lines[-1][name] < 0.8 * lines[0][name]
    tested = {line["split"]: line for line in metrics.read(trained.workdir) if line["step"] == 24 and "split" in line}
    assert tested["validation"]["retrieval/image->text/R@5"] > 2 * 5 / 24  # chance is 5 of 24
    assert tested["test"]["retrieval/text->audio/R@5"] > 2 * 5 / 22


def test_everything_that_should_be_logged_is(trained: Trained):
    last = training(trained.workdir)[-1]
    names = {"step", "seconds", "lr", "examples_per_second", "data_wait", *LOSSES}
    for kind in ("grad_norm", "update_norm"):
        names |= {kind, f"{kind}/towers_image", f"{kind}/towers_text", f"{kind}/towers_audio"}
    assert names <= last.keys()
    assert any("scale" in name for name in last)
    assert all(isinstance(value, int | float) for value in last.values())
    assert 0 <= last["data_wait"] <= 1
    assert last["grad_norm/towers_audio"] > 0


def test_evaluations_are_where_they_were_asked_for(trained: Trained):
    found = [(line["step"], line["split"]) for line in metrics.read(trained.workdir) if "split" in line]
    assert found == [(12, "validation"), (24, "validation"), (24, "test")]
    for folder in ("train", "validation", "test"):
        assert list((trained.workdir / "tensorboard" / folder).glob("events.*"))
    assert (trained.workdir / "gallery-test.png").stat().st_size > 10_000
    assert (trained.workdir / "curves.png").stat().st_size > 10_000


def test_the_workdir_alone_tells_the_experiment(trained: Trained):
    config = records.loads((trained.workdir / "experiment.json").read_text())
    assert json.loads((trained.workdir / "experiment.json").read_text())["name"] == "tests/tiny.py:tiny"
    assert records.dumps(config) == records.dumps(tiny_config(trained.table))
    assert (trained.workdir / "tokenizers/text.model").exists()


def test_the_log_and_the_summary(trained: Trained):
    said = trained.said
    line = next(line for line in training(trained.workdir) if line["step"] == 10)
    scales = ", ".join(f"{line[f'{name}/logit_scale']:.1f}" for name in ("image_text", "text_audio"))
    shown = f"step 10/24  loss {line['loss']:.3f}  lr {line['lr']:.2e}  logit scale {scales}  "
    assert re.search(rf"^{re.escape(shown)}[\d,]+ examples/s  \d+:\d\d left$", said, re.MULTILINE)
    assert re.search(r"^first step after \d+\.\d s$", said, re.MULTILINE)
    assert re.search(r"^24 steps, 384 examples, loss \d+\.\d{3}, \d+:\d\d in all", said, re.MULTILINE)
    assert "test split, step 24" in said
    assert re.search(r"retrieval/image->text +\S* *\d\.\d{3}", said)
    assert f"mmjax evaluate {trained.workdir}" in said


def test_a_finished_run_only_shows_its_results(trained: Trained, capsys):
    files = [trained.workdir / name for name in ("metrics.jsonl", "experiment.json")]
    before = [file.read_text() for file in files]
    train(tiny_config(trained.table), trained.workdir, name=TINY)
    said = capsys.readouterr().out
    assert "goes on after step 24" in said
    assert "test split, step 24" in said
    assert [file.read_text() for file in files] == before


# --- going on ---


def test_another_experiment_is_refused_with_the_difference(trained: Trained):
    before = (trained.workdir / "experiment.json").read_text()
    with pytest.raises(UserError, match=r"optimizer\.peak_lr: 0\.01 there, 0\.5 here") as error:
        train(tiny_config(trained.table, "optimizer.peak_lr=0.5", "log_every=7"), trained.workdir)
    assert "--fork" in str(error.value)
    assert "log_every" not in str(error.value)  # that may change
    assert (trained.workdir / "experiment.json").read_text() == before


@pytest.fixture
def pair_copy(pair_trained: Trained, tmp_path: Path) -> Path:
    """The workdir of the smallest run, to be changed."""
    return shutil.copytree(pair_trained.workdir, tmp_path / "pair")


def test_a_fork_goes_on_from_the_checkpoint_as_the_new_experiment(shapes: str, pair_copy: Path):
    config = pair_config(shapes, "steps=9", "save_every=100", "keep=3", "keep_every=3")
    with pytest.raises(UserError, match="steps: 7 there, 9 here"):
        train(config, pair_copy)
    train(config, pair_copy, fork=True)
    assert [line["step"] for line in training(pair_copy)] == list(range(1, 10))
    assert json.loads((pair_copy / "experiment.json").read_text())["experiment"]["steps"] == 9
    assert json.loads((pair_copy / "experiment.json.old").read_text())["experiment"]["steps"] == 7
    assert kept(pair_copy) == [3, 6, 7, 9]  # by steps alone 8 isn't saved, and would have stayed


def test_a_try_that_never_took_a_step_does_not_own_the_workdir(shapes: str, tmp_path):
    with pytest.raises(UserError, match=r"there is no table .*nowhere"):
        train(pair_config("nowhere.csv"), tmp_path)
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers/text.model").write_bytes(b"of other captions")
    train(pair_config(shapes), tmp_path)
    assert latest_step(tmp_path) == 7


def test_lost_evaluations_are_made_up_for(trained_copy: Trained):
    path = trained_copy.workdir / "metrics.jsonl"
    kept = [line for line in path.read_text().splitlines() if '"split": "test"' not in line]
    path.write_text("\n".join(kept) + "\n")
    train(tiny_config(trained_copy.table), trained_copy.workdir)
    assert (24, "test") in [(line["step"], line.get("split")) for line in metrics.read(trained_copy.workdir)]


# --- other starts, other ends ---


def test_a_profile_is_written(shapes: str, tmp_path):
    config = pair_config(shapes, *PAIR_SAVES)
    with pytest.raises(UserError, match=r"profile=6:9 must lie in .* 1:7"):
        train(config, tmp_path, profile=(6, 9))
    train(config, tmp_path, profile=(5, 6))
    (file,) = (tmp_path / "profile").rglob("*.xplane.pb")
    events = [e for plane in ProfileData.from_file(str(file)).planes for line in plane.lines for e in line.events]
    steps = [event for event in events if event.name == STEP]
    assert [dict(event.stats)["step_num"] for event in steps] == [5, 6]
    calls = [event for event in events if event.name == "PjitFunction(jit(train_step))"]
    for step in steps:
        assert any(step.start_ns <= call.start_ns and call.end_ns <= step.end_ns for call in calls)
    assert steps[0].end_ns <= steps[1].start_ns


def test_a_full_disk_names_the_path(shapes: str, tmp_path, monkeypatch):
    monkeypatch.setattr("mmjax.runtime.checkpoints._free_bytes", lambda directory: 1000)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        train(pair_config(shapes), tmp_path)


def test_a_batch_that_the_mesh_cannot_cut_names_one_that_it_can(shapes: str, tmp_path):
    with pytest.raises(UserError, match=r"batch_size=20 .*16 or 24"):
        train(pair_config(shapes, "batch_size=20"), tmp_path)
    assert not list(tmp_path.iterdir())


# --- checkpoints ---


def test_a_damaged_checkpoint_is_set_aside_and_the_run_ends_as_it_did(shapes: str, pair_copy: Path, capsys):
    whole = restore_variables(pair_copy)["params"]
    file = max((pair_copy / "checkpoints/7").rglob("*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    config = pair_config(shapes, *PAIR_SAVES)
    with pytest.raises(CheckpointError, match=r"of step 7 .* is damaged"):
        train(config, pair_copy, strict=True)
    capsys.readouterr()
    train(config, pair_copy)
    said = capsys.readouterr().out
    assert re.search(r"the checkpoint of step 7 .* is damaged: .*; it is set aside as .*damaged/7\n", said)
    assert "goes on after step 6" in said
    jax.tree.map(np.testing.assert_array_equal, restore_variables(pair_copy)["params"], whole)
    assert [line["step"] for line in training(pair_copy)] == list(range(1, 8))


def kept(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_checkpoints_by_the_clock_and_those_that_stay(pair_trained: Trained):
    assert kept(pair_trained.workdir) == [3, 6, 7]  # a test above has those by steps alone


def test_the_best_checkpoint_stays(shapes: str, tmp_path):
    config = pair_config(shapes, "save_every=1", "evaluate_every=1", "keep=1")
    config.evaluators = [fdl.Config(Retrieval)]
    metric = "retrieval/image->text/median_rank"
    config.keep_best = fdl.Config(Best, split="validation", metric=metric, lowest=True)
    train(config, tmp_path)
    ranks = {line["step"]: line[metric] for line in metrics.read(tmp_path) if "split" in line and line["step"] < 7}
    best = min(ranks, key=lambda step: (ranks[step], -step))
    assert kept(tmp_path) == sorted({best, 7})


def test_an_evaluator_of_a_split_that_is_not_there_is_told_before_the_first_step(shapes: str, tmp_path):
    rows = Path(shapes).read_text().splitlines()
    table = tmp_path / "two.csv"
    table.write_text("\n".join(row for row in rows if not row.endswith(",test")) + "\n")
    root = Path(shapes).parent
    with pytest.raises(UserError, match=r"two\.csv has no row in the split 'test': its column of splits holds train"):
        train(tiny_config(str(table), f"data.sources.shapes.root={root}"), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
