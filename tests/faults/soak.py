"""One training run, killed and damaged at random again and again, ends as the run that nobody disturbed.

python -m tests.faults.soak --minutes 60 --json experiments/records/soak.json

Real processes of the command line. Each life of the run is ended at a random moment (from --seed) by SIGKILL, SIGTERM
or Ctrl-C, a third of them in the middle of a save; after some, a file of the latest checkpoint is cut, flipped or
deleted. A fault counts only if the run had finished at least one step that it never finished before. When the time is
over, the run goes on undisturbed to its last step; then parameters, optimiser and every line of its metrics (their
clocks apart) must be equal, bit for bit, to those of a run that was never disturbed.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import metrics
from tests.benchmarks.machine import machine
from tests.tiny import write_shapes

ROOT = Path(__file__).parent.parent.parent
EXPERIMENT = "tests/tiny.py:couple"
CLOCKS = ("seconds", "goodput", "examples_per_second", "data_wait")  # of a metrics line
ENDS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
DAMAGES = ("none", "none", "flipped", "cut", "deleted")
PATIENCE = 120.0  # seconds without a new step, after which the run is said to hang


class Run:
    """The run in a workdir, in as many lives as it takes."""

    def __init__(self, table: str, workdir: Path, steps: int, save_every: int):
        self.workdir = workdir
        self._words = [
            *(sys.executable, "-m", "mmjax", "train", EXPERIMENT, "--workdir", str(workdir)),
            *(f"data.sources.shapes.table={table}", f"steps={steps}", f"save_every={save_every}", "keep=4"),
        ]
        self.said = ""

    def start(self) -> subprocess.Popen:
        self._log = (self.workdir.parent / f"{self.workdir.name}.log").open("w+")
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            self._words, cwd=ROOT, stdout=self._log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    def end(self, process: subprocess.Popen) -> int:
        """The exit code, when it is over; what it said is in `said`."""
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"it hangs:\n{self._read()}") from None
        self.said = self._read()
        self._log.close()
        return code

    def _read(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def to_the_end(self) -> None:
        code = self.end(self.start())
        assert code == 0, self.said

    def last_step(self) -> int:
        """The last step in the metrics."""
        return max((line["step"] for line in metrics.read(self.workdir)), default=0)

    def checkpoints(self) -> list[Path]:
        folder = self.workdir / "checkpoints"
        return sorted((p for p in folder.glob("*") if p.name.isdecimal()), key=lambda p: int(p.name))

    def saving(self) -> bool:
        return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def disturb(run: Run, furthest: int, choose: random.Random) -> tuple[str, int] | None:
    """One life and its end: the fault's name, and how far the run has come. None where it came to its last step."""
    process = run.start()
    deadline = time.monotonic() + PATIENCE
    while run.last_step() <= furthest:
        if process.poll() is not None:
            assert run.end(process) == 0, run.said
            return None
        assert time.monotonic() < deadline, "no new step"
        time.sleep(0.02)
    time.sleep(choose.uniform(0, 0.4))
    if choose.random() < 1 / 3:  # in the middle of a save, if there is one soon
        until = time.monotonic() + 2
        while not run.saving() and time.monotonic() < until and process.poll() is None:
            time.sleep(0.001)
    number = choose.choice(list(ENDS))
    process.send_signal(number)
    code = run.end(process)
    if code == 0:
        return None
    assert code == ENDS[number], (number, code, run.said)
    assert "Traceback" not in run.said, run.said
    damage = choose.choice(DAMAGES) if len(run.checkpoints()) >= 3 else "none"
    if damage != "none":
        hurt(run.checkpoints()[-1], damage, choose)
    return number.name + ("" if damage == "none" else f", {damage}"), run.last_step()


def hurt(checkpoint: Path, how: str, choose: random.Random) -> None:
    """Damages a file of a checkpoint."""
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != "_CHECKPOINT_METADATA")
    path = choose.choice([p for p in files if p.stat().st_size])
    contents = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "cut":
        path.write_bytes(contents[: choose.randrange(len(contents))])
    else:
        contents[choose.randrange(len(contents))] ^= 1 << choose.randrange(8)
        path.write_bytes(contents)


def differences(one: Path, other: Path) -> list[str]:
    """Where two finished workdirs differ, in bits."""
    wrong, sides = [], []
    for workdir in (one, other):
        lines = metrics.read(workdir)
        side = {(line["step"], line.get("split")): {n: v for n, v in line.items() if n not in CLOCKS} for line in lines}
        wrong += [f"{workdir}: a step was written twice"] if len(side) != len(lines) else []
        sides.append(side)
    for key in {**sides[0], **sides[1]}:
        if sides[0].get(key) != sides[1].get(key):
            wrong.append(f"metrics of {key}: {sides[0].get(key)} and {sides[1].get(key)}")
    ours, theirs = everything(one), everything(other)
    if ours.keys() != theirs.keys():
        return [*wrong, "the checkpoints hold other arrays"]
    for name, array in ours.items():
        if array.dtype != theirs[name].dtype or array.tobytes() != theirs[name].tobytes():
            wrong.append(f"{name} of the last checkpoint")
    return wrong


def everything(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint."""
    import jax
    import orbax.checkpoint as ocp

    step = max(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal())
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        path = (workdir / "checkpoints" / str(step) / "default").absolute()
        tree = checkpointer.metadata(path).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        restored = checkpointer.restore(path, args=ocp.args.PyTreeRestore(tree, restore_args=as_numpy))
    leaves = jax.tree_util.tree_flatten_with_path(restored)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def soak(folder: Path, minutes: float, steps: int, save_every: int, seed: int, say: Any = print) -> dict[str, Any]:
    """Runs it; the faults that were survived, by kind. Raises AssertionError where anything was lost."""
    folder.mkdir(parents=True, exist_ok=True)
    table = write_shapes(folder)
    whole = Run(table, folder / "whole", steps, save_every)
    began = time.monotonic()
    whole.to_the_end()
    say(f"undisturbed: {steps} steps in {time.monotonic() - began:.0f} s")
    run, choose = Run(table, folder / "disturbed", steps, save_every), random.Random(seed)
    faults: Counter[str] = Counter()
    furthest, until = 0, time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        found = disturb(run, furthest, choose)
        if found is None:
            say(f"it came to its last step, {steps}, before the time was over")
            break
        name, reached = found
        if reached > furthest:
            faults[name] += 1
            furthest = reached
        say(f"{sum(faults.values())} faults; {name} at step {reached} of {steps}")
    run.to_the_end()
    wrong = differences(run.workdir, whole.workdir)
    assert not wrong, "\n".join(wrong[:20])
    aside = len(list((run.workdir / "damaged").glob("*"))) if (run.workdir / "damaged").exists() else 0
    return {"faults": sum(faults.values()), "by_kind": dict(sorted(faults.items())), "checkpoints_set_aside": aside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), arguments.minutes, arguments.steps, arguments.save_every, arguments.seed)
    record = {
        "command": "python -m tests.faults.soak " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint", "grain")},
        **found,
        "lost": 0,
    }
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
