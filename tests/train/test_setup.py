"""Set-up stands in one place: what makes a state or a step is called there, and nowhere else."""

import ast
import functools
from pathlib import Path

import pytest

import mmjax

PACKAGE = Path(mmjax.__file__).parent


@functools.cache
def callers() -> dict[str, set[str]]:
    """By the name of what is called, the files in which it is."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.setdefault(node.func.id, set()).add(file.relative_to(PACKAGE).as_posix())
    return found


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("make_train_step", {"train/setup.py"}),
        ("compile_train_step", {"train/setup.py"}),
        ("creation", {"train/setup.py"}),
        ("check_batch", {"train/setup.py"}),
        ("check_data", {"train/setup.py"}),
        ("batches", {"train/setup.py", "evaluate/split_losses.py"}),
        (
            "prepared_model",
            {"evaluate/model.py", "evaluate/other_towers.py", "evaluate/watch.py", "inference/embed_dataset.py"},
        ),
    ],
)
def test_set_up_is_written_once(name, files):
    assert callers()[name] == files


def test_train_replay_and_plan_set_up_alike():
    assert "Setup" not in callers()  # by `here` or `on`
    for file in ("train/loop.py", "train/replay.py", "train/plan/plan.py"):
        text = (PACKAGE / file).read_text(encoding="utf-8")
        assert "Setup.on(" in text or "Setup.here(" in text
