"""A run whose steps go wrong stops with their examples, and the step that began it can be taken again."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmjax.data.chains import identity
from mmjax.data.pipeline import batches
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import latest_step, restore_variables
from mmjax.train.bad_steps import BadStepsError
from mmjax.train.log import UNWRITTEN
from mmjax.train.loop import train
from mmjax.train.replay import replay
from tests.trained import Trained, pair_config, tiny_config

# A rate at which the first update takes the parameters to where the second step's loss overflows.
BURNS = ("optimizer.peak_lr=1e30", "steps=12", "save_every=1", "most_bad_steps=3", "log_every=1")


@pytest.fixture(scope="module")
def burnt(shapes: str, programs, tmp_path_factory):
    """Config and workdir of a run that stopped, the error, and what was said."""
    config, workdir = tiny_config(shapes, *BURNS, name="pair"), tmp_path_factory.mktemp("burnt")
    with pytest.raises(BadStepsError) as error:
        train(config, workdir)
    return config, workdir, str(error.value)


def test_a_run_of_bad_steps_stops_and_says_which(burnt):
    _, workdir, said = burnt
    assert "the updates of 4 steps in a row, 2 to 5, were skipped" in said
    assert "most_bad_steps=3" in said
    assert "parameters are still those of step 1" in said
    assert f"mmjax train {workdir} --workdir {workdir} --replay 2" in said
    lines = {line["step"]: line for line in metrics.read(workdir)}
    assert [lines[step]["guard/in_a_row"] for step in range(1, 6)] == [0, 1, 2, 3, 4]
    assert lines[1]["loss"] is not None
    assert lines[2]["loss"] is None
    first, last = restore_variables(workdir, 3)["params"], restore_variables(workdir)["params"]
    assert latest_step(workdir) == 5
    np.testing.assert_array_equal(first["towers_image"]["stem"]["kernel"], last["towers_image"]["stem"]["kernel"])


def test_their_examples_are_those_of_the_batches(burnt):
    config, workdir, _ = burnt
    told = json.loads((workdir / "bad_steps.json").read_text())
    assert [step["step"] for step in told] == [2, 3, 4, 5]
    data = prepared(build(config).data, workdir)
    stream = batches(data, batch_size=16, seed=0, step=1)
    for step in told:
        ids = [identity(row, *example)["id"].tolist() for row, example in enumerate(step["examples"])]
        assert ids == next(stream)["id"].tolist()


def test_a_step_is_taken_again_and_nothing_is_written(burnt):
    config, workdir, _ = burnt
    before = {path: path.read_bytes() for path in Path(workdir).rglob("*") if path.is_file()}
    said: list[str] = []
    found = replay(config, workdir, 2, said.append)
    lines = {line["step"]: line for line in metrics.read(workdir)}
    assert np.isnan(found["loss"]) or np.isinf(found["loss"])
    assert found["batch_hash"] == lines[2]["batch_hash"]
    assert any(line.startswith("  0 shapes ") for line in said)
    assert len([line for line in said if " shapes " in line]) == 16
    assert {path: path.read_bytes() for path in Path(workdir).rglob("*") if path.is_file()} == before


def test_a_good_step_gives_its_very_numbers_again(pair_trained: Trained, programs):
    """From the checkpoint two steps before it."""
    said: list[str] = []
    found = replay(pair_config(pair_trained.table), pair_trained.workdir, 5, said.append)
    assert "from step 3, 1 steps to the one before 5" in said
    (line,) = (line for line in metrics.read(pair_trained.workdir) if line["step"] == 5)
    found = {name: value for name, value in found.items() if value or not name.startswith(UNWRITTEN)}
    assert found["loss"] > 0
    assert {name: value for name, value in line.items() if name in found} == found


def test_a_step_that_is_not_in_the_run_is_refused(pair_trained: Trained):
    with pytest.raises(UserError, match="--replay 8: the run's steps are 1 to 7"):
        replay(pair_config(pair_trained.table), pair_trained.workdir, 8)
