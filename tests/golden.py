"""Twenty steps of five experiments, bit for bit as the commit that wrote `golden.json` made them.

python -m tests.golden            # compares; some minutes on two cores
python -m tests.golden --write    # writes the file anew: when numbers are meant to change, and the commit says why

Each experiment is trained from seed 0 on its own data, without its evaluators. Held are the losses and, of each array
of parameters, a digest and the sum. Digests are compared where the processor and the versions are those of the file:
other processors round otherwise. There, losses and sums must agree to 1e-3.
"""

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mmjax
from mmjax.experiment.load import load_experiment
from mmjax.train.loop import train

FILE = Path(__file__).parent / "golden.json"
EXPERIMENTS = (
    "experiments/quickstart.py",
    "experiments/clip.py:tiny",
    "experiments/m3ae.py:tiny",
    "experiments/bert.py:tiny",
    "experiments/trimodal.py:tiny",
)
STEPS = 20
ELSEWHERE = 1e-3  # relative: another processor's rounding after 20 steps


def machine() -> dict[str, str]:
    """What decides how a CPU rounds: its instructions (by which XLA compiles), and the versions."""
    info = Path("/proc/cpuinfo")
    flags = next((x for x in info.read_text().splitlines() if x.startswith("flags")), "") if info.exists() else ""
    return {
        "processor": platform.machine(),
        "flags": hashlib.blake2b(" ".join(sorted(flags.split())).encode(), digest_size=8).hexdigest(),
        "cores": str(os.cpu_count()),
        **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
    }


def run(source: str, workdir: Path) -> dict[str, Any]:
    """Losses of each step and what identifies the parameters, of a training run of `STEPS` steps."""
    changes = (
        f"steps={STEPS}",
        f"save_every={STEPS}",
        "log_every=1",
        "evaluate_every=0",
        "seed=0",
        "optimizer.warmup_steps=2",
    )
    config = load_experiment(source, changes)
    config.evaluators = []
    train(config, workdir)
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    leaves = jax.tree_util.tree_leaves_with_path(mmjax.load(workdir).variables["params"])
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    return {
        "losses": [losses[step] for step in range(1, STEPS + 1)],
        "parameters": {
            name: [_digest(array), float(np.sum(array, dtype=np.float64))] for name, array in arrays.items()
        },
    }


def differences(held: dict[str, Any], found: dict[str, Any], exact: bool) -> list[str]:
    """What of `found` isn't as `held`: empty where all of it is."""
    said = []
    for step, (a, b) in enumerate(zip(held["losses"], found["losses"], strict=True), 1):
        if a != b if exact else not math.isclose(a, b, rel_tol=ELSEWHERE):
            said.append(f"the loss of step {step} is {b!r}, and was {a!r}")
    before, now = held["parameters"], found["parameters"]
    said += [f"{name} is {'gone' if name in before else 'new'}" for name in sorted(before.keys() ^ now.keys())]
    for name in sorted(before.keys() & now.keys()):
        (digest, total), (other, sum_now) = before[name], now[name]
        if digest != other if exact else not math.isclose(total, sum_now, rel_tol=ELSEWHERE, abs_tol=ELSEWHERE):
            said.append(f"{name} has other numbers (their sum {sum_now!r}, and was {total!r})")
    return said


def _digest(array: np.ndarray) -> str:
    header = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.blake2b(header + np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", nargs="*", default=EXPERIMENTS, metavar="EXPERIMENT")
    arguments = parser.parse_args()
    held = {"machine": machine(), "experiments": {}} if arguments.write else json.loads(FILE.read_text())
    exact, failed = held["machine"] == machine(), False
    if not exact:
        print(f"another machine or other versions ({machine()}): compared to {ELSEWHERE}, not to the bit")
    for source in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            found = run(source, Path(folder) / "run")
        if arguments.write:
            held["experiments"][source] = found
            print(f"{source}: loss {found['losses'][-1]!r} after {STEPS} steps", flush=True)
            continue
        said = differences(held["experiments"][source], found, exact)
        failed |= bool(said)
        count = len(found["parameters"])
        print(f"{source}: " + ("; ".join(said) if said else f"{STEPS} losses and {count} arrays are equal"), flush=True)
    if arguments.write:
        FILE.write_text(json.dumps(held, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
