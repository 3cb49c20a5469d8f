"""The command line from end to end: train, interrupt, go on, evaluate; nothing else is called."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.runtime import metrics
from mmjax.runtime.checkpoints import latest_step, restore_variables
from tests.trained import TINY, Trained

pytestmark = pytest.mark.smoke
ROOT = Path(__file__).parent.parent
PATIENCE = 120  # seconds for one command, which takes some ten: a hang fails, instead of stopping the suite


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "mmjax", *words]


def said_by(*words: str) -> str:
    """What a command says that succeeds."""
    done = subprocess.run(command(*words), cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def interrupted(line: str, *words: str) -> str:
    """What a command says that gets Ctrl-C as soon as it has said a line that begins with `line`."""
    said = []
    with subprocess.Popen(
        command(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        assert run.stdout is not None
        for told in run.stdout:
            said.append(told)
            if told.startswith(line):
                run.send_signal(signal.SIGINT)
        code = run.wait(PATIENCE)
    assert code == 130, "".join(said)
    return "".join(said)


def assert_same_parameters(a: Path, b: Path, step: int) -> None:
    left, right = (jax.tree.leaves_with_path(restore_variables(path, step)["params"]) for path in (a, b))
    for (path, x), (other, y) in zip(left, right, strict=True):
        assert path == other
        np.testing.assert_array_equal(x, y, err_msg=str(path))


def test_ctrl_c_saves_the_same_command_goes_on_bit_for_bit_and_the_workdir_is_judged(trained: Trained, tmp_path):
    workdir = tmp_path / "interrupted"
    start = ["train", TINY, f"data.sources.shapes.table={trained.table}", "--workdir", str(workdir), "log_every=1"]
    said = interrupted("step 3/24", *start)
    stopped = re.search(r"stopped after step (\d+) of 24, which is saved\. To go on:\n  mmjax (.*)\n", said)
    assert stopped, said
    step = int(stopped[1])
    assert 3 <= step < 24
    assert latest_step(workdir) == step
    assert stopped[2] == f"train {workdir} --workdir {workdir}"

    said = said_by(*stopped[2].split())
    assert f"goes on after step {step}" in said
    assert_same_parameters(trained.workdir, workdir, 24)
    losses = {line["step"]: line["loss"] for line in metrics.read(workdir) if "split" not in line}
    assert sorted(losses) == list(range(1, 25))
    for line in metrics.read(trained.workdir):
        if "split" not in line:
            assert losses[line["step"]] == line["loss"]
    first = re.search(r"first step after (\d+\.\d) s", said)
    assert first
    assert float(first[1]) < 30  # with compiled code in the cache; the target is 15 s, and this machine may be busy

    table = said_by("evaluate", str(workdir), "--split", "test", "--json", str(tmp_path / "test.json"))
    assert "retrieval/image->text" in table
    (judged,) = (line for line in metrics.read(trained.workdir) if line.get("split") == "test")
    found = json.loads((tmp_path / "test.json").read_text())["test"]
    wanted = {name: value for name, value in judged.items() if name.startswith("retrieval/")}
    assert wanted
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
