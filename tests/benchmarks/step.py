"""One training step of the same dual encoder in mmjax, open_clip and Hugging Face: examples/s, TFLOP/s, MFU, memory.

python -m tests.benchmarks.step --json experiments/records/step.json                  # on a CPU
python -m tests.benchmarks.step --sizes b16 l14 --apart --json experiments/records/step_gpu.json

Forward, backward and AdamW on one batch in memory. Each side is a process of its own; they take turns, so that other
work on the machine slows all alike: a step that isn't counted, for what a process that waited has lost of the machine's
memory, and two that are. Each has the pages of memory that its users get: huge ones in mmjax, by its command line
(--huge-pages all: everyone; none: nobody). FLOPs are those of the model's matrix products, recomputation not counted;
MFU is of the machine's fastest product (a CPU's is measured, a GPU's its maker's figure). "bare products" does the
step's matrix products and nothing else; "remat" recomputes all in the backward pass, "dots" all but the projections, as
"mmjax" by itself does, and "stored" nothing; "unrolled" has no loop over the blocks; "half" drops half of the patches.
Peers need `pip install torch==2.13.0`, then `pip install -e ".[bench]"`; what is not installed is left out.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from mmjax.runtime.huge_pages import VARIABLE, tunables
from tests.benchmarks.machine import machine
from tests.benchmarks.step_sides import SIDES, SIZES, size_of

ROUNDS, WARM_UP, COUNTED = 3, 1, 2
PAGES = ("mmjax", "all", "none")
GPUS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # FLOP/s of dense bf16 products, by NVIDIA's data sheets
NEEDS = {"open_clip": "open_clip", "hugging_face": "transformers"}
PACKAGES = ("jax", "jaxlib", "flax", "torch", "open_clip_torch", "transformers")
PEERS = ("open_clip", "open_clip compiled", "hugging_face", "bare products")
PREFER = ("mmjax", "mmjax unrolled", "mmjax stored", *PEERS)  # on a CPU


class Side:
    """A side's process."""

    def __init__(self, name: str, size: str, huge_pages: bool):
        words = [sys.executable, "-m", "tests.benchmarks.step_sides", name, size]
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # several share a GPU
        if huge_pages and (value := tunables(os.environ)) is not None:
            environment[VARIABLE] = value
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.name = name
        self.runs: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.error: str | None = None
        self.parameters = (self._answer() or {}).get("parameters")

    def step(self, counted: bool) -> None:
        """Takes a step, unless the side has failed."""
        if self.error is None and self._process.stdin is not None:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            if (answer := self._answer()) is not None:
                self.losses.append(answer["loss"])
                self.runs += [answer] if counted else []

    def _answer(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for line in self._process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        lines = self._process.stderr.read().strip().splitlines()
        self.error = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "ended")
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def measure(
    size: str, names: Sequence[str], rounds: int, apart: bool, huge_pages: str = "mmjax"
) -> list[dict[str, Any]]:
    """A row for each side: medians over the counted steps of the rounds after the first ones, in which things are
    compiled."""
    groups = [[name] for name in names] if apart else [list(names)]
    rows = []
    for group in groups:
        sides = [Side(name, size, huge_pages in ("all", name.partition(" ")[0])) for name in group]
        for turn in range(WARM_UP + rounds):
            for side in sides:
                for step in range(1 if turn < WARM_UP else 1 + COUNTED):
                    side.step(counted=step > 0)
        rows += [row(side, size) for side in sides]
        for side in sides:
            side.__exit__()
    return rows


def row(side: Side, size: str) -> dict[str, Any]:
    found: dict[str, Any] = {"size": size, "by": side.name, "parameters": side.parameters}
    runs = side.runs
    if side.error is not None or not runs:
        return found | {"error": side.error}
    middle = {name: statistics.median(run[name] for run in runs) for name in ("seconds", "cpu_seconds")}
    found |= {name: round(value, 4) for name, value in middle.items()}
    found |= {"least_cpu_seconds": round(min(run["cpu_seconds"] for run in runs), 4), "rounds": len(runs)}
    losses = [round(loss, 4) if math.isfinite(loss) else None for loss in side.losses]  # bare products have none
    return found | {"bytes": max(run["bytes"] for run in runs), "losses": losses}


def flops_of(size: str) -> dict[str, Any]:
    """The model's FLOPs, whole and with half of the patches; the backend, and its peak in FLOP/s."""
    program = f"""
import json, jax
from tests.benchmarks.step_sides import model_flops, size_of
from mmjax.train.plan.this_machine import machine_rates
size = size_of({size!r})
device = jax.devices()[0]
peak = machine_rates().flops if device.platform == "cpu" else None
flops = {{how: model_flops(size, how) for how in ("", "half")}}
print(json.dumps({{**flops, "peak": peak, "device": device.device_kind}}))
"""
    words = [sys.executable, "-c", program]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def judged(rows: list[dict[str, Any]], size: str, known: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The rows with what follows from them. known: `flops_of(size)`, where that is had already."""
    known = flops_of(size) if known is None else known
    peak = known["peak"] or next((flops for name, flops in GPUS.items() if name in known["device"]), None)
    timed = {each["by"]: each for each in rows if "seconds" in each}
    if known["peak"] and "bare products" in timed:  # a CPU's is measured, and may have had a bad moment
        peak = max(known["peak"], known[""] / timed["bare products"]["seconds"])
    for each in timed.values():
        flops = known["half" if each["by"].endswith("half") else ""]
        each |= {"examples_per_second": round(size_of(size).batch / each["seconds"], 2), "model_tflop": flops / 1e12}
        each["tflops"] = round(flops / each["seconds"] / 1e12, 4)
        each["device"] = known["device"]
        each["mfu"] = peak and round(flops / each["seconds"] / peak, 3)
        for other, name in (("mmjax", "by_mmjax"), ("bare products", "by_bare")):
            if other in timed:
                each[name] = round(each["seconds"] / timed[other]["seconds"], 3)
                each[f"{name}_cpu"] = round(each["cpu_seconds"] / timed[other]["cpu_seconds"], 3)
    return rows


def shown(rows: list[dict[str, Any]], size: str) -> Table:
    columns = ("by", "seconds", "cpu_seconds", "examples_per_second", "tflops", "mfu", "by_mmjax_cpu", "by_bare_cpu")
    table = Table(*columns, "MB", title=f"{size}, batch {size_of(size).batch}")
    for each in rows:
        if "seconds" in each:
            table.add_row(*(str(each.get(name, "")) for name in columns), f"{each['bytes'] / 1e6:,.0f}")
        else:
            table.add_row(each["by"], each["error"])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="+", default=("s16-64", "s16-224"), help=f"of {', '.join(SIZES)}; b16@256: at another batch"
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=PREFER)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--huge-pages", choices=PAGES, default="mmjax")
    parser.add_argument("--apart", action="store_true", help="one side after another: where all don't fit on the GPU")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    missing = {by for by, package in NEEDS.items() if importlib.util.find_spec(package) is None}
    sides = [side for side in arguments.sides if not any(side.startswith(by) for by in missing)]
    console = Console(width=140)
    record: dict[str, Any] = {
        "command": "python -m tests.benchmarks.step " + shlex.join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES if installed(name)},
        "sizes": {},
        "runs": [],
    }
    for size in arguments.sizes:
        rows = judged(measure(size, sides, arguments.rounds, arguments.apart, arguments.huge_pages), size)
        record["sizes"][size] = {**vars(size_of(size))}
        record["runs"] += rows
        console.print(shown(rows, size))
        if arguments.json:
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def installed(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()
