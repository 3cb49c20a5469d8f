"""One training run, killed and damaged at random again and again, ends as the run that nobody disturbed.

python -m tests.faults.soak --minutes 60 --json experiments/records/soak.json
python -m tests.faults.soak --minutes 60 --resize --json experiments/records/soak_resize.json

Real processes of the command line, on data of which some examples are bad. Each life of the run is ended at a random
moment (from --seed) by SIGKILL, SIGTERM or Ctrl-C, a third of them in the middle of a save; after some, a file of the
latest checkpoint is cut, flipped or deleted. A fault counts only if the run had finished at least one step that it
never finished before. When the time is over, the run goes on undisturbed to its last step; then parameters, optimiser
and every line of its metrics (their clocks apart) must be equal, bit for bit, to those of a run that was never
disturbed.

With --resize each life has another number of processes and devices; a kill may take one process alone, and the other
must follow by itself. There, one short run after another must end with the same examples in every batch, and losses
equal to 1e-5 of those of the undisturbed run, which one device made.
"""

import argparse
import datetime
import importlib.metadata
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import hosts, metrics
from tests.benchmarks.machine import machine
from tests.faults.spoil import spoil
from tests.multiprocess.launcher import Ended, Group, mmjax
from tests.tiny import write_shapes

EXPERIMENT = "tests/tiny.py:couple"
CLOCKS = ("seconds", "goodput", "examples_per_second", "data_wait")  # of a metrics line
ENDS = {signal.SIGKILL: -9, signal.SIGTERM: 0, signal.SIGINT: 130}
DAMAGES = ("none", "none", "flipped", "cut", "deleted")
SHAPES = ((1, 1), (1, 4), (1, 8), (2, 1), (2, 4))  # processes, and devices of each
PATIENCE = 120.0  # seconds without a new step, after which the run is said to hang
RATE = 1e-4  # of the short runs: at the experiment's own, differences of rounding grow tenfold every dozen steps


class Run:
    """The run in a workdir, in as many lives as it takes."""

    def __init__(self, table: str, workdir: Path, *overrides: str):
        self.workdir = workdir
        self._words = (
            *("train", EXPERIMENT, "--workdir", str(workdir), f"data.sources.shapes.table={table}"),
            *("keep=4", "most_bad_examples=0.5", *overrides),
        )

    def live(self, shape: tuple[int, int] = (1, 1), meanwhile: Callable[[Group], None] = lambda group: None) -> Ended:
        """A life, and how it ended."""
        processes, devices = shape
        variables = {hosts.HEARTBEAT_VARIABLE: "3"}
        return mmjax(
            *self._words, processes=processes, devices=devices, meanwhile=meanwhile, timeout=900, variables=variables
        )

    def to_the_end(self) -> None:
        ended = self.live()
        assert ended.codes == [0], str(ended)

    def last_step(self) -> int:
        """The last step in the metrics."""
        return max((line["step"] for line in metrics.read(self.workdir)), default=0)

    def checkpoints(self) -> list[Path]:
        folder = self.workdir / "checkpoints"
        return sorted((p for p in folder.glob("*") if p.name.isdecimal()), key=lambda p: int(p.name))

    def saving(self) -> bool:
        return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def disturb(run: Run, furthest: int, choose: random.Random, shape: tuple[int, int]) -> tuple[str, int] | None:
    """One life and its end: the fault's name, and how far the run has come. None where it came to its last step."""
    number = choose.choice(list(ENDS))
    everyone = list(range(shape[0]))
    victims = [choose.choice(everyone)] if number == signal.SIGKILL and choose.random() < 0.5 else everyone

    def meanwhile(group: Group) -> None:
        deadline = time.monotonic() + PATIENCE
        while run.last_step() <= furthest:
            if not group.running():
                return
            assert time.monotonic() < deadline, "no new step"
            time.sleep(0.02)
        time.sleep(choose.uniform(0, 0.4))
        if choose.random() < 1 / 3:  # in the middle of a save, if there is one soon
            until = time.monotonic() + 2
            while not run.saving() and time.monotonic() < until and group.running():
                time.sleep(0.001)
        group.send(number, victims)

    ended = run.live(shape, meanwhile)
    if set(ended.codes) == {0} and "stopped after step" not in ended.said[0]:
        return None
    for index, code in enumerate(ended.codes):
        if index in victims:
            assert code == ENDS[number], str(ended)
        else:
            assert code not in (0, 2), str(ended)  # it followed, for want of the other
    if victims == everyone:
        assert "Traceback" not in "".join(ended.errors), str(ended)
    damage = choose.choice(DAMAGES) if len(run.checkpoints()) >= 3 else "none"
    if damage != "none":
        hurt(run.checkpoints()[-1], damage, choose)
    who = "" if victims == everyone else " of one"
    return number.name + who + ("" if damage == "none" else f", {damage}"), run.last_step()


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
    if (one / "bad_examples.jsonl").read_text() != (other / "bad_examples.jsonl").read_text():
        wrong.append("the lists of bad examples")
    return wrong


def distance(one: Path, other: Path) -> float:
    """The largest relative difference of the losses of two finished workdirs.

    Raises AssertionError where a step is lacking or double, or has other examples.
    """
    sides = [[line for line in metrics.read(workdir) if "split" not in line] for workdir in (one, other)]
    for name in ("step", "batch_hash", "bad_share"):
        values = [[line[name] for line in side] for side in sides]
        assert values[0] == values[1], f"{name} of {one}: {values[0]} instead of {values[1]}"
    names = [name for name in sides[0][0] if name.endswith("loss")]
    ours, theirs = (np.array([[line[name] for name in names] for line in side]) for side in sides)
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))


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
    table, overrides = data(folder), (f"steps={steps}", f"save_every={save_every}")
    whole = Run(table, folder / "whole", *overrides)
    began = time.monotonic()
    whole.to_the_end()
    say(f"undisturbed: {steps} steps in {time.monotonic() - began:.0f} s")
    run, choose = Run(table, folder / "disturbed", *overrides), random.Random(seed)
    faults: Counter[str] = Counter()
    until = time.monotonic() + 60 * minutes
    furthest = 0
    while time.monotonic() < until and (found := disturb(run, furthest, choose, (1, 1))) is not None:
        name, reached = found
        faults[name] += reached > furthest
        furthest = max(furthest, reached)
        say(f"{sum(faults.values())} faults; {name} at step {reached} of {steps}")
    run.to_the_end()
    wrong = differences(run.workdir, whole.workdir)
    assert not wrong, "\n".join(wrong[:20])
    return told(faults) | {"checkpoints_set_aside": aside(run), "differences": len(wrong)}


def soak_resized(folder: Path, minutes: float, steps: int, seed: int, say: Any = print) -> dict[str, Any]:
    """Runs it, with other numbers of processes and devices; the same, and how far the losses were apart at most."""
    table, overrides = data(folder), (f"steps={steps}", "save_every=2", f"optimizer.peak_lr={RATE}")
    whole, choose = Run(table, folder / "whole", *overrides), random.Random(seed)
    whole.to_the_end()
    faults: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    until, runs, apart, damaged = time.monotonic() + 60 * minutes, 0, 0.0, 0
    while time.monotonic() < until:
        run, furthest = Run(table, folder / f"run{runs}", *overrides), 0
        while time.monotonic() < until:
            shape = choose.choice(SHAPES)
            found = disturb(run, furthest, choose, shape)
            shapes[f"{shape[0]}x{shape[1]}"] += 1
            if found is None:
                break
            name, reached = found
            faults[name] += reached > furthest
            furthest = max(furthest, reached)
            say(
                f"{sum(faults.values())} faults; {name} with {shape[0]}x{shape[1]} devices at step {reached} of {steps}"
            )
        run.to_the_end()
        apart = max(apart, distance(run.workdir, whole.workdir))
        say(f"run {runs}: the same examples, losses {apart:.1e} apart at most")
        assert apart <= 1e-5, f"losses are {apart:.1e} apart"
        runs, damaged = runs + 1, damaged + aside(run)
    lives = {"lives_by_shape": dict(sorted(shapes.items())), "runs": runs, "checkpoints_set_aside": damaged}
    return told(faults) | lives | {"largest_relative_difference_of_losses": apart}


def data(folder: Path) -> str:
    """The table of the shapes, some of them spoilt."""
    folder.mkdir(parents=True, exist_ok=True)
    table = write_shapes(folder)
    spoil(table)
    return table


def told(faults: Counter[str]) -> dict[str, Any]:
    return {"faults": sum(faults.values()), "by_kind": {name: n for name, n in sorted(faults.items()) if n}}


def aside(run: Run) -> int:
    """How many damaged checkpoints it has met."""
    return len(list((run.workdir / "damaged").glob("*")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--resize", action="store_true")
    parser.add_argument("--steps", type=int, help="default: 20,000; with --resize 40 a run")
    parser.add_argument("--save-every", type=int, default=10, help="without --resize")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, minutes, seed = Path(name), arguments.minutes, arguments.seed
        if arguments.resize:
            found = soak_resized(folder, minutes, arguments.steps or 40, seed)
        else:
            found = soak(folder, minutes, arguments.steps or 20_000, arguments.save_every, seed)
    record = {
        "command": "python -m tests.faults.soak " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint", "grain")},
        **found,
    }
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
