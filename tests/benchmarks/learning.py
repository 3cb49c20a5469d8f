"""What mmjax and open_clip learn from the same batches: retrieval of the test split, in pairs of runs by seed.

python -m tests.benchmarks.learning --json experiments/records/learning.json     # an hour and more on two cores
python -m tests.benchmarks.learning --data stamps/en --json experiments/records/learning.json

The same data, batches, model (a ViT-S/16-like dual encoder of 15 M parameters), number of examples and learning rate of
each step; each side has its own initialisation, code and AdamW. Right for a picture is every caption of the same words.
The verdict was fixed before any run: with R@1 and R@10 (means of both directions) in points, mmjax is "no worse" where
the 95 % interval of the paired differences lies above -2 points, "worse" where it lies below, else "undecided". A run
that stands in the record isn't repeated.
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from mmjax.evaluate.metrics.ranks import both_ranks
from tests.benchmarks.learning_sides import SIDES, Job, schedule_of
from tests.benchmarks.machine import machine

DATA, SEEDS, STEPS, RATE = ("spoken_emoji",), (0, 1, 2, 3, 4), 200, 5e-4
MARGIN = 2.0  # points
SCORES = ("R@1", "R@10")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "open_clip_torch", "numpy")


def trained(side: str, job: Job) -> dict[str, Any]:
    """A run in a process of its own: its scores in points, and its losses at the beginning and the end."""
    words = [sys.executable, "-m", "tests.benchmarks.learning_sides", side, json.dumps(asdict(job))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"Error: {side} failed on {job.data}, seed {job.seed}:\n{done.stderr[-2000:]}")
    with np.load(job.out) as found:
        same = np.unique(found["words"], axis=0, return_inverse=True)[1].reshape(-1)
        ranks = both_ranks(found["image"], found["text"], same, same)
        losses = found["losses"]
        scores = {f"R@{k}": 50 * sum(float(np.mean(each <= k)) for each in ranks) for k in (1, 10)}
        return {
            "data": job.data, "by": side, "seed": job.seed, "steps": len(job.rates), "examples": len(same),
            "seconds": round(float(found["seconds"]), 1), **{name: round(value, 2) for name, value in scores.items()},
            "first_loss": round(float(losses[0]), 4), "last_losses": round(float(losses[-10:].mean()), 4),
        }  # fmt: skip


def compared(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By data and score: the paired differences, their mean with its 95 % interval (Student's t), and the verdict."""
    found = []
    for data in dict.fromkeys(run["data"] for run in runs):
        by = {side: {run["seed"]: run for run in runs if (run["data"], run["by"]) == (data, side)} for side in SIDES}
        seeds = sorted(by["mmjax"].keys() & by["open_clip"].keys())
        for score in SCORES:
            differences = [round(by["mmjax"][seed][score] - by["open_clip"][seed][score], 2) for seed in seeds]
            if len(seeds) < 2:
                continue
            mean = statistics.mean(differences)
            half = stats.t.ppf(0.975, len(seeds) - 1) * statistics.stdev(differences) / math.sqrt(len(seeds))
            interval = [round(mean - half, 2), round(mean + half, 2)]
            found.append(
                {"data": data, "score": score, "differences": differences, "mean": round(mean, 2),
                 "interval": interval, "verdict": verdict(*interval)}
            )  # fmt: skip
    return found


def verdict(low: float, high: float) -> str:
    """By the interval of the difference, in points."""
    return "no worse" if low > -MARGIN else "worse" if high < -MARGIN else "undecided"


def shown(record: dict[str, Any]) -> Table:
    columns = ("data", "score", "mmjax", "open_clip", "difference", "95 %", "verdict")
    table = Table(*columns, title="means over the seeds, in points")
    for each in record["compared"]:
        means = [
            statistics.mean(
                run[each["score"]] for run in record["runs"] if (run["data"], run["by"]) == (each["data"], by)
            )
            for by in SIDES
        ]
        low, high = each["interval"]
        cells = (*(f"{mean:.1f}" for mean in means), f"{each['mean']:+.1f}", f"{low:+.1f} to {high:+.1f}")
        table.add_row(each["data"], each["score"], *cells, each["verdict"])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=DATA)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--toy", action="store_true", help="a model of seconds, to try the command")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    record: dict[str, Any] = {"runs": []}
    if arguments.json and arguments.json.exists():
        record = json.loads(arguments.json.read_text())
    record |= {
        "command": "python -m tests.benchmarks.learning " + shlex.join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "margin": MARGIN,
    }
    optimizer = schedule_of(RATE)
    rates = [float(optimizer.learning_rate(step, arguments.steps)) for step in range(arguments.steps)]
    done = {(run["data"], run["by"], run["seed"]) for run in record["runs"]}
    wanted = [(data, seed, by) for data in arguments.data for seed in arguments.seeds for by in SIDES]
    for place, (data, seed, by) in enumerate(wanted, 1):
        if (data, by, seed) in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = trained(by, Job(data, seed, rates, str(Path(folder) / "embeddings.npz"), arguments.toy))
        record["runs"].append(run)
        scores = ", ".join(f"{score} {run[score]:.1f}" for score in SCORES)
        print(f"{place} of {len(wanted)}: {data}, seed {seed}, {by}: {scores} in {run['seconds']:.0f} s", flush=True)
        record["compared"] = compared(record["runs"])
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    Console(width=120).print(shown(record))


if __name__ == "__main__":
    main()
