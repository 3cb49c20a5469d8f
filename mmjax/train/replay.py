"""Steps that went wrong: told, with their examples, when they stop a run; and taken again, to be looked at."""

from collections.abc import Callable
from pathlib import Path

import fiddle as fdl
import jax

from mmjax.data.bad_example import KINDS
from mmjax.data.pipeline import batch_spec, batches, examples
from mmjax.errors import UserError
from mmjax.experiment.confined import Record
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.runtime import hosts
from mmjax.runtime.checkpoints import Checkpointer, whole_steps
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.runtime.files import output
from mmjax.runtime.mesh import check_batch, put
from mmjax.train.same_data import check_data
from mmjax.train.step import abstract_state, compile_train_step, init_state, make_train_step
from mmjax.train.truncation import Truncated

Say = Callable[[str], None]


def replay(
    config: fdl.Config, workdir: str | Path, step: int, say: Say = print, given: Record | None = None
) -> dict[str, float]:
    """Takes a step again, from the last whole checkpoint before it, and gives its metrics; nothing is written.

    Also says which examples were in its batch, and which of them were bad. given: as in `train`.

    Raises:
        UserError: a step that the run doesn't have, or data that isn't the run's.
        CheckpointError: no checkpoint is whole.
    """
    workdir = output.local(workdir, "--workdir")
    use_compilation_cache()
    hosts.join()
    experiment: Experiment = build(config)
    if not 1 <= step <= experiment.steps:
        raise UserError(f"--replay {step}: the run's steps are 1 to {experiment.steps}")
    size, seed, spike = experiment.batch_size, experiment.seed, experiment.spike
    mesh = experiment.mesh.build()
    check_batch(size, mesh, experiment.microbatches)
    mine = hosts.reader(mesh, size)
    data = prepared(experiment.data, workdir, ("train",), None, given, say)
    check_data(data, workdir, begun=True, keep=False)
    start = hosts.first(lambda: next((s for s in whole_steps(workdir) if s < step), 0))
    pretrainer, optimizer, spec = experiment.pretrainer(), experiment.optimizer, batch_spec(experiment.data, size)
    if not start and experiment.init:
        raise UserError(
            f"--replay {step}: no checkpoint is older, and this run didn't start from its seed alone (init)"
        )
    with jax.set_mesh(mesh):
        if start:
            with Checkpointer(workdir, reads_only=True) as checkpoints:
                target = abstract_state(pretrainer, optimizer, spec, mesh=mesh, ema=experiment.ema, spike=spike)
                state = checkpoints.restore(target, start)
        else:
            state = init_state(pretrainer, optimizer, spec, seed=seed, mesh=mesh, ema=experiment.ema, spike=spike)
        say(f"from step {start}, {step - start - 1} steps to the one before {step}")
        train_step = make_train_step(
            pretrainer, optimizer, seed=seed, total_steps=experiment.steps, ema=experiment.ema, spike=spike
        )
        train_step = compile_train_step(train_step, state, mesh)
        truncated, values = Truncated(data, mesh), {}
        stream = batches(data, batch_size=size, seed=seed, step=start, host=mine, cuts=truncated.cuts)
        for _ in range(start, step):
            batch = put(next(stream), mesh)
            state, values = train_step(state, batch)
        metrics = {name: float(value) for name, value in jax.device_get(values | truncated(step)).items()}
        marks = hosts.whole({name: row for name, row in batch.items() if name.endswith(("_valid", "_bad"))})
    say(f"step {step}:")
    for name, value in sorted(metrics.items()):
        say(f"  {name} {value:.6g}")
    say("its examples, and what of them was missing or bad:")
    for row, (source, identity) in enumerate(examples(data, batch_size=size, seed=seed, step=step - 1)):
        without = [m for m in data.chains.specs if not marks[f"{m}_valid"][row]]
        codes = {m: int(marks[f"{m}_bad"][row]) for m in without}
        told = [f"{m} {KINDS[codes[m] - 1]}" if codes[m] else f"no {m}" for m in without]
        say(f"  {row} {source} {identity}" + (f" ({', '.join(told)})" if told else ""))
    return metrics
