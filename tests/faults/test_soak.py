"""A run that is killed, damaged and moved at random ends as the one that wasn't; the records of hours: records/."""

import json
import shutil
from pathlib import Path

import pytest

from mmjax.runtime import metrics
from tests.faults.soak import differences, soak, soak_resized
from tests.trained import Trained, without_copies


@pytest.fixture
def twins(couple_alone: Trained, tmp_path: Path) -> tuple[Path, Path]:
    """Two workdirs of one run, of which the second has no copies that what is lost would come back from."""
    twin = Path(shutil.copytree(couple_alone.workdir, tmp_path / "twin"))
    without_copies(twin)
    return couple_alone.workdir, twin


def test_runs_that_are_equal_differ_in_nothing(twins):
    one, other = twins
    lines = [json.loads(line) for line in (other / metrics.FILE).read_text().splitlines()]
    slower = "".join(json.dumps(line | {"examples_per_second": 1.0}) + "\n" for line in lines)
    (other / metrics.FILE).write_text(slower)
    assert differences(one, other) == []


@pytest.mark.parametrize("what", ["a loss", "a step less", "a step twice", "an older state", "a bad example"])
def test_whatever_a_fault_leaves_behind_is_a_difference(twins, what):
    one, other = twins
    lines = (other / metrics.FILE).read_text().splitlines(keepends=True)
    if what == "a loss":
        lines[6] = json.dumps(json.loads(lines[6]) | {"loss": 1.0}) + "\n"
    elif what == "a step less":
        del lines[6]
    elif what == "a step twice":
        lines.insert(6, lines[6])
    elif what == "an older state":
        shutil.rmtree(other / "checkpoints" / "20")
        shutil.copytree(other / "checkpoints" / "10", other / "checkpoints" / "20")
    else:
        (other / "bad_examples.jsonl").write_text("{}\n")
    (other / metrics.FILE).write_text("".join(lines))
    wrong = {
        "a loss": "metrics of (7, None)",
        "a step less": "metrics of (7, None)",
        "a step twice": f"{other}: a step was written twice",
        "an older state": "['params']",
        "a bad example": "the lists of bad examples",
    }[what]
    found = differences(one, other)
    assert found
    assert any(line.startswith(wrong) for line in found), found
    assert len(found) == 1 or what == "an older state", found


# An hour of it: experiments/records/soak.json. In the small: test_hosts.py (SIGKILL), test_full_disk.py (and a reader
# that stops), tests/multiprocess (SIGTERM), tests/test_smoke.py (Ctrl-C), tests/train/test_loop.py (damage to a
# checkpoint), tests/runtime/test_copies.py (and beside it).
@pytest.mark.slow
def test_some_faults_change_not_a_bit(tmp_path):
    found = soak(tmp_path, minutes=0.4, steps=40, save_every=5, seed=1)
    assert found["faults"] >= 1  # each came after at least one new step; on a free machine there are two or three


@pytest.mark.slow  # experiments/records/soak_resize.json has its numbers; other meshes go on in tests/multiprocess too
def test_half_a_minute_of_faults_and_other_machines_changes_no_example_and_no_loss(tmp_path):
    found = soak_resized(tmp_path, minutes=0.6, steps=24, seed=2)
    assert found["faults"] >= 1
    assert found["largest_relative_difference_of_losses"] <= 1e-5
