"""Is the planner's step on a GPU right, and what do its settings move? Plans steps for GPUs that aren't there.

python -m tests.benchmarks.plan_gpu --json experiments/records/plan_gpu.json
python -m tests.benchmarks.plan_gpu --json experiments/records/plan_gpu.json --settings "b16 stored"

First the step that was measured on an H200: CLIP B/16's at batch 512, in the settings of
`experiments/records/step_gpu.json` (mmjax's with remat=dots), for one H200 and one H100, compared with the measured.
Then, for an H100, B/16's and L/14's in the settings that move least, and with a bound on memory. Needs CUDA's compiler
(extra `plan-gpu`) and no GPU; minutes for each. A plan that stands in the JSON is not made again: the measured step's
are of the program that was measured.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from mmjax.experiment.load import load_experiment
from mmjax.train.plan.kernels import PRODUCTS
from mmjax.train.plan.plan import plan
from mmjax.train.plan.terminal import size
from tests.benchmarks.machine import machine

RECORD = Path(__file__).parents[2] / "experiments/records/step_gpu.json"
MEASURED = "mmjax dots"
EXPERIMENT = "experiments/clip.py:vit_b16"
# The settings of the measured side in `tests.benchmarks.step_sides`, of size `b16`.
FIELDS = ("remat=dots", "attention=cudnn", "activation=gelu")
TOWERS = tuple(f"towers.{tower}.blocks.{field}" for tower in ("image", "text") for field in FIELDS)
OVERRIDES = ("batch_size=512", "mesh.fsdp=1", *TOWERS)
TOPOLOGIES = ("h200:1", "h100:1")


def fields(remat: str, image: int, text: int, batch: int) -> tuple[str, ...]:
    """Overrides: no loop over the towers' blocks, of which there are as many as said."""
    shared = (f"remat={remat}", "attention=cudnn", "activation=gelu")
    blocks = {"image": (*shared, f"unroll={image}"), "text": (*shared, f"unroll={text}")}
    towers = [f"towers.{tower}.blocks.{field}" for tower, those in blocks.items() for field in those]
    return (f"batch_size={batch}", "mesh.fsdp=1", *towers)


SETTINGS = {
    "b16 stored": ("experiments/clip.py:vit_b16", fields("None", 12, 12, 512)),
    "b16 dots": ("experiments/clip.py:vit_b16", fields("dots", 12, 12, 512)),
    "l14 stored": ("experiments/clip.py:vit_l14", fields("None", 24, 12, 256)),
    "l14 dots": ("experiments/clip.py:vit_l14", fields("dots", 24, 12, 256)),
}


def measured() -> dict[str, Any]:
    """The committed step on an H200."""
    runs = json.loads(RECORD.read_text())["runs"]
    (run,) = (run for run in runs if run["by"] == MEASURED)
    return {name: run[name] for name in ("device", "seconds", "bytes", "mfu")}


def planned(topology: str, experiment: str = EXPERIMENT, overrides: tuple[str, ...] = OVERRIDES) -> dict[str, Any]:
    """The numbers of a plan, with what it is compared with."""
    began = time.perf_counter()
    made = plan(load_experiment(experiment, overrides), topology, name=experiment, remedies=False)
    numbers = made.numbers() | {
        "overrides": overrides,
        "bytes_beside_products": sum(each.bytes for each in made.kernels or () if each.kind != PRODUCTS),
        "planned_in_seconds": round(time.perf_counter() - began, 1),
    }
    if topology.startswith("h200") and overrides == OVERRIDES:
        true = measured()
        numbers |= {
            "measured": true,
            "measured_by_expected": round(true["seconds"] / numbers["expected_step_seconds"], 2),
            "measured_memory_by_needed": round(true["bytes"] / made.memory.needed, 2),
        }
    gigabytes = f"{numbers['bytes_beside_products'] / 1e9:.0f} GB beside products"
    gigabytes += f", {made.memory.temporaries / 1e9:.1f} GB of temporaries"
    print(f"{topology}: {numbers['expected_step_seconds']:.3f} s, {size(made.memory.needed)}, {gigabytes}", flush=True)
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json", type=Path, help="where it is kept after each plan; what stands there isn't planned again"
    )
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    arguments = parser.parse_args()
    path = arguments.json
    old = json.loads(path.read_text()) if path and path.exists() else {}
    plans, settings = old.get("plans", []), old.get("settings", {})
    record: dict[str, Any] = {
        "command": "python -m tests.benchmarks.plan_gpu",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "jax-cuda13-plugin", "flax")},
        "plans": plans,
        "settings": settings,
    }

    def keep() -> None:
        if path:
            path.write_text(json.dumps(record, indent=1) + "\n")

    for topology in TOPOLOGIES:
        if topology not in {each["topology"] for each in plans}:
            plans.append(planned(topology))
            keep()
    for name in arguments.settings:
        if name not in settings:
            settings[name] = planned("h100:1", *SETTINGS[name])
            keep()


if __name__ == "__main__":
    main()
