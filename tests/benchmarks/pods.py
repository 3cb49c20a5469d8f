"""Do SigLIP B/16 and CLIP L/14 fit, at their batch of 32,768, on pods of five kinds? The planner's answers.

python -m tests.benchmarks.pods --json experiments/records/pods.json

The experiments are the shipped ones, nothing changed; then what raises the roofline's MFU on v5e:16x16, each with one
thing changed (`CHANGES`). Needs the TPU's compiler (extra `plan`) and no TPU; minutes for each plan. One that stands in
the JSON is not made again.
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

from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.train.plan.plan import plan
from mmjax.train.plan.terminal import size
from tests.benchmarks.machine import machine

EXPERIMENTS = ("experiments/siglip.py:vit_b16", "experiments/clip.py:vit_l14")
BOTH = "towers.image.blocks.{0}", "towers.text.blocks.{0}"
CHANGES = {
    "data parallel alone": ("mesh.fsdp=1",),
    "fsdp over 16": ("mesh.fsdp=16",),
    "remat=dots": tuple(each.format("remat=dots") for each in BOTH),
    "attention=plain": tuple(each.format("attention=plain") for each in BOTH),
}
UNITS = 2  # bytes of a token's numbers between blocks, which are bfloat16
PODS = (("v5e:16x16", 1), ("v5e:16x16", 2), ("v4:8x8x8", 1), ("v5p:8x8x8", 1), ("v6e:16x16", 1))


def least(name: str, plan: dict[str, Any]) -> int:
    """The bytes a device that a step must move beside its products, however it is compiled: parameters and optimiser
    read and written once, each block's input, from which it is computed again, written and read once, the
    batch read."""
    towers = build(load_experiment(name)).towers
    image, text = towers["image"], towers["text"]
    tokens = {"image": (image.size // image.patch) ** 2 + image.cls, "text": text.length}
    numbers = sum(tokens[each] * towers[each].blocks.width * towers[each].blocks.depth for each in tokens)
    memory = plan["memory"]
    state = memory["parameters"] + memory["optimizer"]
    return 2 * (state + plan["batch_size"] // plan["devices"] * numbers * UNITS) + memory["batch"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json", type=Path, help="where it is kept after each plan; what stands there isn't planned again"
    )
    path = parser.parse_args().json
    use_compilation_cache()
    plans = json.loads(path.read_text())["plans"] if path and path.exists() else []
    done = {(each["experiment"], each["topology"], each["slices"], each.get("changed", "")) for each in plans}
    wanted = [(name, topology, slices, "") for name in EXPERIMENTS for topology, slices in PODS]
    wanted += [(name, *PODS[0], changed) for changed in CHANGES for name in EXPERIMENTS]
    record: dict[str, Any] = {
        "command": "python -m tests.benchmarks.pods",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
        "plans": plans,
    }
    for name, topology, slices, changed in wanted:
        if (name, topology, slices, changed) in done:
            continue
        began = time.perf_counter()
        config = load_experiment(name, CHANGES[changed] if changed else ())
        made = plan(config, topology, slices=slices, name=name, remedies=False)
        told = {"changed": changed} if changed else {}
        plans.append(made.numbers() | told | {"planned_in_seconds": round(time.perf_counter() - began, 1)})
        fits, what = "fits" if made.fits else "does not fit", f"{name}{' with ' if changed else ''}{changed}"
        print(f"{what} on {topology} x {slices}: {fits}, {size(made.memory.needed)} a device", flush=True)
        keep(path, record)
    keep(path, record)


def keep(path: Path | None, record: dict[str, Any]) -> None:
    """Writes the record, and beside what each plan moves the least that it must."""
    for each in record["plans"]:
        each["least_bytes"] = least(each["experiment"], each)
    if path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
