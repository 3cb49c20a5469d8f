"""Do SigLIP B/16 and CLIP L/14 fit, at their batch of 32,768, on pods of five kinds? The planner's answers.

python -m tests.benchmarks.pods --json experiments/records/pods.json --pictures experiments/records

The experiments are the shipped ones, nothing changed. Needs the TPU's compiler (extra `plan`) and no TPU.
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

from rich.console import Console

from mmjax.experiment import load_experiment
from mmjax.plan import plan
from mmjax.planning.picture import draw
from mmjax.planning.report import scaling
from mmjax.workdir import use_compilation_cache
from tests.benchmarks.machine import machine

EXPERIMENTS = {"siglip": "experiments/siglip.py:vit_b16", "clip": "experiments/clip.py:vit_l14"}
PODS = (("v5e:16x16", 1), ("v5e:16x16", 2), ("v4:8x8x8", 1), ("v5p:8x8x8", 1), ("v6e:16x16", 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, help="a folder for a PNG of each experiment")
    arguments = parser.parse_args()
    use_compilation_cache()
    record: dict[str, Any] = {
        "command": "python -m tests.benchmarks.pods",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
        "plans": [],
    }
    for short, name in EXPERIMENTS.items():
        plans = []
        for topology, slices in PODS:
            began = time.perf_counter()
            plans.append(plan(load_experiment(name), topology, slices=slices, name=name, remedies=False))
            record["plans"].append(plans[-1].numbers() | {"planned_in_seconds": round(time.perf_counter() - began, 1)})
            arguments.json.write_text(json.dumps(record, indent=1) + "\n")
        Console(width=140).print(scaling(plans))
        if arguments.pictures:
            draw(plans, arguments.pictures / f"pods_{short}.png")


if __name__ == "__main__":
    main()
