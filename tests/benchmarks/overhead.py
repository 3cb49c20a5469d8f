"""What it costs that a run survives: of a train step, and of checkpoints.

python -m tests.benchmarks.overhead --json experiments/records/overhead.json

Three kinds of blocks of steps take turns in one process: of a bare step (loss, gradient, update; no norms, no hash of
the batch, no counts, nothing skipped); of the real train step; and of the real one while a checkpoint is being saved,
digests included. CPU seconds are compared, since the machine may be shared; of saves also how long the loop was held
up. The share of saves is for a save after every `save_every` steps of the experiment.
"""

import argparse
import datetime
import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.objectives.keys import step_key
from mmjax.optim.base import merge_params
from mmjax.runtime.checkpoints import Checkpointer
from mmjax.runtime.mesh import put
from mmjax.train.step import TrainState, compile_train_step, make_train_step
from tests.benchmarks.machine import machine
from tests.benchmarks.plan import made_up
from tests.states import init_state

EXPERIMENTS = ("experiments/clip.py:tiny", "experiments/quickstart.py:quickstart")
STEPS, BLOCKS = 8, 5
GOAL = 0.02


def bare(experiment: Experiment) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]:
    """A train step that trusts everything."""
    pretrainer, optimizer, seed, total = (
        experiment.pretrainer(),
        experiment.optimizer,
        experiment.seed,
        experiment.steps,
    )

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        trainable, frozen = optimizer.split(state.params)
        rngs = {name: step_key(seed, state.step, name) for name in ("mask", "dropout")}

        def loss_of(params: Any) -> Any:
            variables = {"params": merge_params(params, frozen)}
            (loss, metrics), _ = pretrainer.apply(
                variables, batch, state.step, train=True, still=(), rngs=rngs, mutable=[]
            )  # type: ignore[misc]
            return loss, metrics

        (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        lr = optimizer.learning_rate(state.step, total)
        update, opt_state = optimizer.transform(trainable).update(gradient, state.opt_state, trainable)
        params = merge_params(jax.tree.map(lambda p, u: p - lr * u, trainable, update), frozen)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), {**metrics, "loss": loss}

    return step


def measured(source: str) -> dict[str, Any]:
    experiment: Experiment = build(load_experiment(source))
    mesh = experiment.mesh.build(jax.devices()[:1])
    batch = made_up(experiment)
    batch |= {name: array * 0 for name, array in batch.items() if name.endswith("_bad")}
    seconds: dict[str, list[float]] = {"bare": [], "real": [], "saving": []}
    held: list[float] = []
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder, Checkpointer(folder, keep=1) as checkpoints:
        pretrainer, optimizer = experiment.pretrainer(), experiment.optimizer
        states = {
            name: init_state(pretrainer, optimizer, batch, seed=0, mesh=mesh, ema=experiment.ema)
            for name in ("bare", "real")
        }
        real = make_train_step(pretrainer, optimizer, seed=0, total_steps=experiment.steps, ema=experiment.ema)
        steps = {
            "bare": compile_train_step(bare(experiment), states["bare"], mesh),
            "real": compile_train_step(real, states["real"], mesh),
        }
        there = put(batch, mesh)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(states["real"]))

        def block(name: str, count: int) -> None:
            for _ in range(count):
                states[name], metrics = steps[name](states[name], there)
                jax.block_until_ready(metrics)

        for name in states:
            block(name, 2)
        for number in range(BLOCKS):
            for kind in seconds:
                began = time.process_time()
                if kind == "saving":
                    start = time.perf_counter()
                    checkpoints.save(number + 1, states["real"])
                    held.append(time.perf_counter() - start)
                block("bare" if kind == "bare" else "real", STEPS)
                checkpoints.wait()
                seconds[kind].append(time.process_time() - began)
        assert bool(jnp.isfinite(jax.tree.leaves(states["real"].params)[0]).all())
    middle = {kind: statistics.median(values) for kind, values in seconds.items()}
    step = middle["real"] / STEPS
    save = statistics.median(s - r for s, r in zip(seconds["saving"], seconds["real"], strict=True))
    shares = {
        "step": statistics.median(r / b for r, b in zip(seconds["real"], seconds["bare"], strict=True)) - 1,
        "saves": save / (experiment.save_every * step),
    }
    return {
        "experiment": source,
        "batch_size": experiment.batch_size,
        "state_bytes": size,
        "cpu_seconds_of_a_step": {"bare": middle["bare"] / STEPS, "real": step},
        "cpu_seconds_of_a_save": save,
        "seconds_that_a_save_held_the_loop_up": statistics.median(held),
        "save_every": experiment.save_every,
        "overhead": shares | {"in_all": sum(shares.values()), "goal": GOAL},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    record = {
        "command": "python -m tests.benchmarks.overhead " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint")},
        "results": [],
    }
    for source in EXPERIMENTS:
        record["results"].append(measured(source))
        print(json.dumps(record["results"][-1], indent=1), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
