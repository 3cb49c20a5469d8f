"""Takes one step of a run again, for inspection, and prints all its numbers (`mmjax train ... --replay STEP`)."""

from collections.abc import Callable
from pathlib import Path

import fiddle as fdl
import jax

from mmjax.data.bad_example import KINDS
from mmjax.data.pipeline import examples
from mmjax.errors import UserError
from mmjax.experiment.confined import Record
from mmjax.runtime import hosts
from mmjax.runtime.checkpoints import Checkpointer, whole_steps
from mmjax.runtime.files import output
from mmjax.runtime.mesh import put
from mmjax.train.setup import Setup, joined_experiment
from mmjax.train.truncation import Truncated

Say = Callable[[str], None]


def replay(
    config: fdl.Config, workdir: str | Path, step: int, say: Say = print, given: Record | None = None
) -> dict[str, float]:
    """Takes a step again, from the last whole checkpoint before it, and returns its metrics; nothing is written.

    Also prints which examples were in its batch, and which of them were bad. given: as in `train`.

    Raises:
        UserError: a step that the run doesn't have, or data that isn't the run's.
        CheckpointError: no checkpoint is whole.
    """
    workdir = output.local(workdir, "--workdir")
    experiment = joined_experiment(config)
    if not 1 <= step <= experiment.steps:
        raise UserError(f"--replay {step}: the run's steps are 1 to {experiment.steps}")
    setup = Setup.here(experiment)
    data = setup.data(workdir, given=given, say=say, begun=True, keep=False)
    start = hosts.first(lambda: next((s for s in whole_steps(workdir) if s < step), 0))
    if not start and experiment.init:
        raise UserError(
            f"--replay {step}: no checkpoint is older, and this run didn't start from its seed alone (init)"
        )
    with jax.set_mesh(setup.mesh):
        if start:
            with Checkpointer(workdir, reads_only=True) as checkpoints:
                state = checkpoints.restore(setup.abstract_state(), start)
        else:
            state = setup.fresh_state()
        say(f"from step {start}, {step - start - 1} steps to the one before {step}")
        train_step = setup.train_step(state)
        truncated, values = Truncated(data, setup.mesh), {}
        stream = setup.batches(data, start, truncated.cuts)
        for _ in range(start, step):
            batch = put(next(stream), setup.mesh)
            state, values = train_step(state, batch)
        metrics = {name: float(value) for name, value in jax.device_get(values | truncated(step)).items()}
        marks = hosts.whole({name: row for name, row in batch.items() if name.endswith(("_valid", "_bad"))})
    say(f"step {step}:")
    for name, value in sorted(metrics.items()):
        say(f"  {name} {value:.6g}")
    say("its examples, and what of them was missing or bad:")
    drawn = examples(data, batch_size=experiment.batch_size, seed=experiment.seed, step=step - 1)
    for row, (source, identity) in enumerate(drawn):
        without = [m for m in data.chains.specs if not marks[f"{m}_valid"][row]]
        codes = {m: int(marks[f"{m}_bad"][row]) for m in without}
        told = [f"{m} {KINDS[codes[m] - 1]}" if codes[m] else f"no {m}" for m in without]
        say(f"  {row} {source} {identity}" + (f" ({', '.join(told)})" if told else ""))
    return metrics
