"""Is the planner's step time right? Plans experiments for this machine's CPU, and runs the same steps.

python -m tests.benchmarks.plan --json experiments/records/plan.json

Planned and measured in turn in one process, since other work on the machine slows both.
"""

import argparse
import datetime
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax.data.pipeline import batch_spec
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.runtime.mesh import put
from mmjax.train.plan.plan import plan
from mmjax.train.plan.this_machine import machine_rates
from mmjax.train.step import compile_train_step, make_train_step
from tests.benchmarks.machine import machine
from tests.states import init_state

EXPERIMENTS = (
    ("experiments/quickstart.py:quickstart",),
    ("experiments/clip.py:tiny",),
    ("experiments/siglip.py:tiny",),
    ("experiments/clip.py:tiny", "towers.image.blocks.width=384", "towers.image.blocks.heads=6", "batch_size=64"),
)
STEPS = 3


def made_up(experiment: Experiment) -> dict[str, np.ndarray]:
    """A batch of the right structure, everything valid; what is in it costs the step nothing."""
    rng = np.random.default_rng(0)
    batch = {}
    for name, x in batch_spec(experiment.data, experiment.batch_size).items():
        whole = np.issubdtype(x.dtype, np.integer)
        batch[name] = rng.integers(0, 100, x.shape).astype(x.dtype) if whole else np.ones(x.shape, x.dtype)
    batch["index"] = np.arange(experiment.batch_size, dtype=np.uint32)
    return batch


def measured(experiment: Experiment) -> float:
    """Seconds of a step of the compiled train step, the median."""
    mesh = experiment.mesh.build(jax.devices()[:1])
    pretrainer, batch = experiment.pretrainer(), made_up(experiment)
    with jax.set_mesh(mesh):
        state = init_state(pretrainer, experiment.optimizer, batch, seed=0, mesh=mesh)
        step = make_train_step(pretrainer, experiment.optimizer, seed=0, total_steps=experiment.steps)
        compiled = compile_train_step(step, state, mesh)
        there, taken = put(batch, mesh), []
        for _ in range(STEPS + 1):
            began = time.perf_counter()
            state, metrics = compiled(state, there)
            jax.block_until_ready((state, metrics))
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def compare(source: str, *overrides: str) -> dict[str, Any]:
    """What was expected and what was measured, in seconds, and the ratio of the two."""
    config = load_experiment(source, overrides)
    machine_rates.cache_clear()  # measured again each time: the machine's speed changes
    planned = plan(config, "cpu:1", name=source).seconds
    assert planned is not None
    taken = measured(build(config))
    return {
        "experiment": " ".join((source, *overrides)),
        "expected_seconds": round(planned.step, 3),
        "of_products": round(planned.products, 3),
        "of_memory": round(planned.memory, 3),
        "measured_seconds": round(taken, 3),
        "measured_by_expected": round(taken / planned.step, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = []
    for experiment in EXPERIMENTS:
        runs.append(compare(*experiment))
        print(json.dumps(runs[-1]), flush=True)
    record = {
        "command": "python -m tests.benchmarks.plan",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "jax": jax.__version__,
        "runs": runs,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
