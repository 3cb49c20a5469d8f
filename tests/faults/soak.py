"""One training run, killed and damaged at random again and again, ends as the run that nobody disturbed.

python -m tests.faults.soak --minutes 60 --json experiments/records/soak.json
python -m tests.faults.soak --minutes 60 --resize --json experiments/records/soak_resize.json
python -m tests.faults.soak --minutes 5 --experiment experiments/albef.py:tiny --set batch_size=16 log_every=1

Real processes of the command line, on data of which some examples are bad. Each life of the run is ended at a random
moment (from --seed) by SIGKILL, SIGTERM or Ctrl-C, a third of them in the middle of a save; by SIGKILL of all that it
has started, too; or by a reader that is stopped (SIGSTOP) and that the run waits for in vain. After most, something is
damaged: a file of the latest checkpoint is cut, flipped or deleted; a bit of a tokenizer, or of the record of the
experiment or of its data, is flipped; metrics, or the list of bad examples, lose a half or are no text any more. An end
counts only if the run had finished at least one step that it never finished before; ends and damages are the faults.
When it is time, the run goes on undisturbed to its last step (the one after the next save, if
--steps doesn't say), and so does a second one from its first; then parameters, optimiser and every line of its metrics
(their clocks apart) must be equal, bit for bit. All of it takes about --minutes: faults are dealt until what is left is
needed for those two runs.

With --resize each life has another number of processes and devices; a kill may take one process alone, and the other
must follow by itself. There, one short run after another must end with the same examples in every batch, and losses
equal to 1e-5 of those of the undisturbed run, which one device made. On a busy machine two processes may not meet
within Gloo's half minute, and end by themselves; such lives are counted apart.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.runtime import hosts, jsonl, metrics
from mmjax.train.progress import duration
from tests.benchmarks.machine import machine
from tests.faults.spoil import flip, spoil
from tests.multiprocess.launcher import Ended, Group, mmjax
from tests.tiny import write_shapes

EXPERIMENT = "tests/tiny.py:couple"
CLOCKS = ("seconds", "goodput", "examples_per_second", "data_wait")  # of a metrics line
ENDS = {signal.SIGKILL: -9, signal.SIGTERM: 0, signal.SIGINT: 130}
GROUP, STOPPED = "SIGKILL of all", "SIGSTOP of a reader"  # these need readers: processes of their own
STALLED = 8.0  # seconds (`patience`) after which a run is to see that a reader stands still
CHECKPOINT = ("flipped", "cut", "deleted")  # what a file of the latest one may be
BESIDE = ("flipped tokenizer", "flipped record", "halved lines", "lines that are no text")
DAMAGES = ("", *CHECKPOINT, *BESIDE)
UNENDING = 1_000_000  # steps of a run whose last one is not known yet
SHAPES = ((1, 1), (1, 4), (1, 8), (2, 1), (2, 4))  # processes, and devices of each
BATCH = 16  # examples of a step of EXPERIMENT
LATE = "Gloo context initialization failed: DEADLINE_EXCEEDED"  # two processes that met later than in 30 s
PATIENCE = 300.0  # seconds without a new step, after which the run is said to hang
RATE = 1e-4  # of the short runs: at the experiment's own, differences of rounding grow tenfold every dozen steps


def tell(text: str) -> None:
    print(text, flush=True)


class Run:
    """The run in a workdir, in as many lives as it takes."""

    def __init__(self, table: str, workdir: Path, *overrides: str, experiment: str = EXPERIMENT):
        self.workdir = workdir
        self._words = (
            *("train", experiment, "--workdir", str(workdir)),
            *((f"data.sources.shapes.table={table}",) if experiment.startswith("tests/") else ()),
            *("keep=4", "most_bad_examples=0.5", *overrides),
        )

    def live(
        self,
        shape: tuple[int, int] = (1, 1),
        meanwhile: Callable[[Group], None] = lambda group: None,
        more: Sequence[str] = (),
    ) -> Ended:
        """A life, and how it ended. more: words of its command line."""
        options: Any = {"processes": shape[0], "devices": shape[1], "meanwhile": meanwhile, "timeout": 900}
        return mmjax(*self._words, *more, variables={hosts.HEARTBEAT_VARIABLE: "3"}, **options)

    def to_the_end(self, *more: str) -> None:
        ended = self.live(more=more)
        assert ended.codes == [0], str(ended)

    def last_step(self) -> int:
        """The last step in the metrics."""
        return max((line["step"] for line in jsonl.read(self.workdir / metrics.FILE)), default=0)

    def checkpoints(self) -> list[Path]:
        folder = self.workdir / "checkpoints"
        return sorted((p for p in folder.glob("*") if p.name.isdecimal()), key=lambda p: int(p.name))

    def saving(self) -> bool:
        return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def disturb(run: Run, furthest: int, choose: random.Random, shape: tuple[int, int]) -> tuple[str, str, int] | None:
    """One life: its end's name, that of what was damaged then ("": nothing), and how far the run has come. None where
    it came to its last step."""
    kinds = [number.name for number in ENDS] + ([GROUP, STOPPED] if shape == (1, 1) else [])
    kind = choose.choice(kinds)
    number = signal.SIGKILL if kind == GROUP else signal.SIGTERM if kind == STOPPED else signal.Signals[kind]
    everyone = list(range(shape[0]))
    one_alone = kind == "SIGKILL" and choose.random() < 0.5
    victims = [choose.choice(everyone)] if one_alone else everyone
    reads = kind in (GROUP, STOPPED)
    more = ("data.workers=1", f"patience={STALLED}") if reads else ()
    stopped: list[int] = []
    left: list[int] = []
    signalled: list[bool] = []

    def meanwhile(group: Group) -> None:
        deadline = time.monotonic() + PATIENCE
        while run.last_step() <= furthest:
            if not group.running():
                return
            assert time.monotonic() < deadline, f"no new step in:\n{group.said(0)}\n{group.errors(0)}"
            time.sleep(0.02)
        time.sleep(choose.uniform(0, 0.4))
        if choose.random() < 1 / 3:  # in the middle of a save, if there is one soon
            until = time.monotonic() + 2
            while not run.saving() and time.monotonic() < until and group.running():
                time.sleep(0.001)
        if not group.running():
            return
        left.extend(group.children(0) if reads else [])
        signalled.append(True)
        if kind == GROUP:
            group.send_groups(number, victims)
        elif kind == STOPPED:
            stopped.extend(reading(group.children(0)))
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
        else:
            group.send(number, victims)

    ended = run.live(shape, meanwhile, more)
    if not signalled and LATE in "".join(ended.errors):
        return "too late", "", run.last_step()
    if set(ended.codes) == {0} and "stopped after step" not in ended.said[0]:
        return None
    assert not reading(left), f"{left} still read after the end of\n{ended}"
    if kind == STOPPED:
        assert ended.codes == [1], str(ended)
        assert f"process {stopped[0]}, which should read, is stopped (SIGSTOP)" in ended.errors[0], str(ended)
    else:
        for index, code in enumerate(ended.codes):
            if index in victims:
                assert code == ENDS[number], str(ended)
            else:
                assert code not in (0, 2), str(ended)  # it followed, for want of the other
    if victims == everyone:
        assert "Traceback" not in "".join(ended.errors), str(ended)
    damage = choose.choice(DAMAGES) if len(run.checkpoints()) >= 3 else ""
    reached = run.last_step()
    if damage in BESIDE:
        hurt_beside(run.workdir, damage, choose)
    elif damage:
        hurt(run.checkpoints()[-1], damage, choose)
        damage = f"{damage} checkpoint"
    return kind + ("" if victims == everyone else " of one"), damage, reached


def reading(pids: Sequence[int]) -> list[int]:
    """Those among the processes that read for a run, and live."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
            if state not in "ZX" and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


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
        flip(path, choose)


def hurt_beside(workdir: Path, how: str, choose: random.Random) -> None:
    """Damages what a run keeps beside its checkpoints."""
    if how == "flipped tokenizer":
        flip(choose.choice(sorted(path for path in (workdir / "tokenizers").rglob("*") if path.is_file())), choose)
    elif how == "flipped record":
        flip(workdir / choose.choice(("experiment.json", "data.json")), choose)
    else:
        path = choose.choice(sorted(path for path in workdir.glob("*.jsonl") if path.stat().st_size))
        contents = path.read_bytes()
        half = len(contents) // 2
        path.write_bytes(contents[:half] + (b"\xff\xfe" + contents[half:] if how == "lines that are no text" else b""))


def differences(one: Path, other: Path) -> list[str]:
    """Where two finished workdirs differ, in bits."""
    wrong, sides = [], []
    for workdir in (one, other):
        jsonl = metrics.read(workdir)
        side = {(line["step"], line.get("split")): {n: v for n, v in line.items() if n not in CLOCKS} for line in jsonl}
        wrong += [f"{workdir}: a step was written twice"] if len(side) != len(jsonl) else []
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
    lists = [workdir / "bad_examples.jsonl" for workdir in (one, other)]
    if len({path.read_text() if path.exists() else "" for path in lists}) > 1:
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


def soak(
    folder: Path,
    minutes: float,
    steps: int | None,
    save_every: int,
    seed: int,
    say: Callable[[str], Any] = tell,
    experiment: str = EXPERIMENT,
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs it; the faults that were survived, by kind. Raises AssertionError where anything was lost.

    more: overrides of the experiment. steps: None: as many as come of the time. The learning rate is constant after its
    warm-up: it may not depend on how many they are.
    """
    table, left = data(folder), Left(minutes)
    overrides = (f"save_every={save_every}", "optimizer.schedule=constant", f"steps={steps or UNENDING}", *more)
    run, choose = Run(table, folder / "disturbed", *overrides, experiment=experiment), random.Random(seed)
    faults: Counter[str] = Counter()
    furthest, slowest, pace = 0, 0.0, 0.0
    say(f"{left}: the run begins, to be disturbed at its first steps")
    while not faults.total() or left.seconds > 2 * slowest + 2 * furthest * pace:
        began = time.monotonic()
        found = disturb(run, furthest, choose, (1, 1))
        if found is None:
            break
        name, damage, reached = found
        counted(faults, found, furthest)
        slowest = max(slowest, time.monotonic() - began)
        furthest, pace = max(furthest, reached), seconds_a_step(run)
        where = f"at step {reached}" + (f" of {steps}" if steps else "")
        say(f"{left}: {faults.total()} faults; {name} {where}{damage and ', ' + damage}")
    last = steps or furthest + save_every
    ends = ("--fork", f"steps={last}")  # another number of steps is another experiment
    say(f"{left}: {faults.total()} faults in all; now the run goes on undisturbed, to step {last}")
    run.to_the_end(*ends)
    say(f"{left}: the run that nobody disturbs begins, {last} steps")
    whole = Run(table, folder / "whole", *overrides, experiment=experiment)
    whole.to_the_end(*ends)
    say(f"{left}: both have ended; they are compared")
    wrong = differences(run.workdir, whole.workdir)
    assert not wrong, "\n".join(wrong[:20])
    return told(faults) | {"steps": last, "checkpoints_set_aside": aside(run), "differences": len(wrong)}


def soak_resized(
    folder: Path, minutes: float, steps: int, seed: int, say: Callable[[str], Any] = tell
) -> dict[str, Any]:
    """Runs it, with other numbers of processes and devices; the same, and how far the losses were apart at most."""
    table, left = data(folder), Left(minutes)
    overrides = (f"steps={steps}", "save_every=2", f"optimizer.peak_lr={RATE}")
    whole, choose = Run(table, folder / "whole", *overrides), random.Random(seed)
    say(f"{left}: the run that nobody disturbs begins, {steps} steps")
    began = time.monotonic()
    whole.to_the_end()
    slowest = time.monotonic() - began
    faults: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    runs, apart, damaged = 0, 0.0, 0
    while not runs or left.seconds > 2 * slowest:
        run, furthest = Run(table, folder / f"run{runs}", *overrides), 0
        while not faults.total() or left.seconds > slowest:
            shape = choose.choice(SHAPES)
            found = disturb(run, furthest, choose, shape)
            shapes[f"{shape[0]}x{shape[1]}"] += 1
            if found is None:
                break
            name, damage, reached = found
            counted(faults, found, furthest)
            furthest = max(furthest, reached)
            where = f"with {shape[0]}x{shape[1]} devices at step {reached} of {steps}"
            say(f"{left}: {faults.total()} faults; {name} {where}{damage and ', ' + damage}")
        say(f"{left}: run {runs} goes on undisturbed, from step {furthest}")
        run.to_the_end()
        apart = max(apart, distance(run.workdir, whole.workdir))
        say(f"{left}: run {runs}: the same examples, losses {apart:.1e} apart at most")
        assert apart <= 1e-5, f"losses are {apart:.1e} apart"
        runs, damaged = runs + 1, damaged + aside(run)
    lives = {"lives_by_shape": dict(sorted(shapes.items())), "runs": runs, "checkpoints_set_aside": damaged}
    return told(faults) | lives | {"largest_relative_difference_of_losses": apart}


class Left:
    """How much of so many minutes is left; as text `1:05 left`."""

    def __init__(self, minutes: float):
        self._until = time.monotonic() + 60 * minutes

    @property
    def seconds(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def __str__(self) -> str:
        return f"{duration(self.seconds)} left"


def seconds_a_step(run: Run) -> float:
    """At the pace of its metrics; generously, for what writes and saves."""
    rates = [line["examples_per_second"] for line in metrics.read(run.workdir) if line.get("examples_per_second")]
    return 2 * BATCH / float(np.median(rates)) if rates else 0.0


def data(folder: Path) -> str:
    """The table of the shapes, some of them spoilt."""
    folder.mkdir(parents=True, exist_ok=True)
    table = write_shapes(folder)
    spoil(table)
    return table


def counted(faults: Counter[str], found: tuple[str, str, int], furthest: int) -> None:
    """Counts a life's end, if the run came further than `furthest`, and what was damaged."""
    name, damage, reached = found
    faults[name] += reached > furthest or name == "too late"
    faults[damage] += bool(damage)


def told(faults: Counter[str]) -> dict[str, Any]:
    late = faults.pop("too late", 0)
    ends = sum(n for name, n in faults.items() if name.startswith("SIG"))
    return {
        "faults": sum(faults.values()),
        "in_the_middle_of_training": ends,
        "by_kind": {name: n for name, n in sorted(faults.items()) if n},
        **({"lives_too_late_for_gloo": late} if late else {}),
    }


def aside(run: Run) -> int:
    """How many damaged checkpoints it has met."""
    return sum(path.is_dir() for path in (run.workdir / "damaged").glob("*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--resize", action="store_true")
    parser.add_argument("--steps", type=int, help="default: as many as come of the time; with --resize 40 a run")
    parser.add_argument("--save-every", type=int, default=10, help="without --resize")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--experiment", default=EXPERIMENT, help="without --resize, one with data of its own")
    parser.add_argument("--set", nargs="+", default=[], metavar="PATH=VALUE", help="overrides of it")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, minutes, seed = Path(name), arguments.minutes, arguments.seed
        if arguments.resize:
            found = soak_resized(folder, minutes, arguments.steps or 40, seed)
        else:
            which = {"experiment": arguments.experiment, "more": arguments.set}
            found = soak(folder, minutes, arguments.steps, arguments.save_every, seed, **which)
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
