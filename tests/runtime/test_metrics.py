"""Metrics on disk: what is in the files, and what a run that was cut off leaves."""

import importlib.util
import json
import math
import subprocess
import sys
import types

import pytest
from tensorboardX.proto import event_pb2

from mmjax.errors import UserError
from mmjax.runtime import metrics
from mmjax.runtime.metrics import Metrics


def lines(workdir) -> list[dict]:
    def strict(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=strict) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def scalars(folder) -> dict[tuple[str, int], float]:
    """What TensorBoard reads: event files in order, without the steps that a later file purges."""
    found: dict[tuple[str, int], float] = {}
    for file in sorted(folder.glob("events.*"), key=lambda f: f.stat().st_mtime_ns):
        data = file.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + length])  # pyright: ignore[reportAttributeAccessIssue]
            data = data[12 + length + 4 :]
            if event.session_log.status == 1:  # START: what is at or after this step is from a run that was cut off
                found = {key: value for key, value in found.items() if key[1] < event.step}
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found


def test_flat_names_in_json_and_in_groups_on_tensorboard(tmp_path):
    health = {"batch_hash": 77.0, "bad_share": 0.5, "bad/image/empty": 3.0, "guard/skipped": 1.0}
    with Metrics(tmp_path) as written:
        written.write(10, {"loss": 2.5, "grad_norm/towers_image": math.nan, "worst": -math.inf})
        written.write(10, {"retrieval/image->text/R@1": 0.25}, split="test")
        written.write(20, {"loss": 1.5, **health, "goodput": 0.75})
    assert lines(tmp_path) == [
        {"step": 10, "loss": 2.5, "grad_norm/towers_image": None, "worst": None},
        {"step": 10, "split": "test", "retrieval/image->text/R@1": 0.25},
        {"step": 20, "loss": 1.5, **health, "goodput": 0.75},
    ]
    train = scalars(tmp_path / "tensorboard/train")
    assert train["loss", 10] == 2.5
    assert {tag: value for (tag, step), value in train.items() if step == 20} == {
        "loss": 1.5, **{f"health/{name}": value for name, value in health.items()}, "speed/goodput": 0.75,
    }  # fmt: skip
    assert scalars(tmp_path / "tensorboard/test") == {("retrieval/image->text/R@1", 10): 0.25}


def test_lines_are_there_as_soon_as_they_are_written(tmp_path):
    with Metrics(tmp_path) as written:
        written.write(1, {"loss": 1.0})
        assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_going_on_drops_what_came_after_the_checkpoint(tmp_path):
    with Metrics(tmp_path) as written:
        for step in (10, 20, 30):
            written.write(step, {"loss": float(step), "seconds": step / 10, "goodput": 0.5})
            written.write(step, {"top1": step / 100}, split="validation")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "lo')  # killed in the middle of a line
    with Metrics(tmp_path, step=20) as written:
        assert written.seconds == 3.0  # the time of what is dropped was spent
        assert written.stepped == 1.0  # and in vain
        assert written.evaluations(20) == {"validation": {"top1": 0.2}}
        assert written.evaluations(30) == {}
        written.write(30, {"loss": -1.0})
    assert [(line["step"], line.get("loss")) for line in lines(tmp_path) if "split" not in line] == [
        (10, 10.0),
        (20, 20.0),
        (30, -1.0),
    ]
    shown = scalars(tmp_path / "tensorboard/train")
    assert {key: value for key, value in shown.items() if key[0] == "loss"} == {
        ("loss", 10): 10.0,
        ("loss", 20): 20.0,
        ("loss", 30): -1.0,
    }


def test_a_fresh_run_starts_an_empty_file(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 1}\n')
    Metrics(tmp_path).close()
    assert metrics.read(tmp_path) == []


def test_wandb_mirrors_and_goes_on_with_its_run(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finished")
    )
    fake = types.ModuleType("wandb")
    fake.init = lambda **arguments: calls.append(arguments) or run  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for _ in range(2):
        with Metrics(tmp_path, wandb="emoji", config={"steps": 3}) as written:
            written.write(1, {"loss": 0.5})
            written.write(1, {"zeroshot/group/top1": 0.1}, split="test")
    begun, train, test, finished = calls[:4]
    assert (begun["project"], begun["config"], begun["resume"]) == ("emoji", {"steps": 3}, "allow")
    assert (train, test, finished) == ((1, {"loss": 0.5}), (1, {"test/zeroshot/group/top1": 0.1}), "finished")
    assert calls[4]["id"] == begun["id"]


def test_wandb_is_not_touched_unasked_and_missing_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    Metrics(tmp_path).close()
    with pytest.raises(UserError, match=r'wandb=\'emoji\'.*pip install "mmjax\[wandb\]"'):
        Metrics(tmp_path, wandb="emoji")


def test_of_several_hosts_the_others_remember_and_write_nothing(tmp_path):
    with Metrics(tmp_path) as first:
        first.write(5, {"loss": 1.0})
        first.write(5, {"R@1": 0.5}, "test")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with Metrics(tmp_path, step=5, writes=False) as other:
        other.write(6, {"loss": 0.5})
        other.write(6, {"R@1": 0.75}, "test")
        assert other.evaluations(5) == {"test": {"R@1": 0.5}}
        assert other.evaluations(6) == {"test": {"R@1": 0.75}}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_what_a_watcher_found_is_read_with_the_runs_own(tmp_path):
    with Metrics(tmp_path) as run:
        run.write(1, {"loss": 2.0})
        run.write(2, {"R@1": 0.5}, "test")
        run.write(4, {"loss": 1.0})
        metrics.write_watched(tmp_path, 2, "test", {"R@1": 0.9, "top1": 0.25})
        metrics.write_watched(tmp_path, 3, "test", {"top1": float("nan")})
        metrics.write_watched(tmp_path, 3, "test", {"R@1": 0.75})
        assert metrics.read(tmp_path) == [
            {"step": 1, "loss": 2.0},
            {"step": 2, "split": "test", "R@1": 0.5, "top1": 0.25},  # what both have is the run's
            {"step": 3, "split": "test", "top1": None, "R@1": 0.75},
            {"step": 4, "loss": 1.0},
        ]
        run.take(metrics.watched(tmp_path))
        assert run.evaluations(3) == {}
        assert run.known(3) == {"test": {"R@1": 0.75}}
        assert run.known(2) == {"test": {"R@1": 0.5, "top1": 0.25}}
    assert ("top1", 2) in scalars(tmp_path / "tensorboard/test-watch")
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 4]  # the run's file has one writer


def test_a_run_that_goes_on_drops_what_a_watcher_found_of_later_steps(tmp_path):
    for step in (10, 20, 30):
        metrics.write_watched(tmp_path, step, "test", {"top1": step / 100})
    with Metrics(tmp_path, step=20):
        metrics.write_watched(tmp_path, 21, "test", {"top1": 0.5})
    assert [line["step"] for line in metrics.read(tmp_path)] == [10, 20, 21]
    Metrics(tmp_path).close()
    assert metrics.read(tmp_path) == []


def test_training_does_not_import_pytorch_where_it_is_installed():
    """It would take a third of a start; and it can still be imported afterwards."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("no PyTorch here")
    program = "import sys, mmjax.train.loop; print('torch' in sys.modules); import torch; print(torch.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "torch"]
