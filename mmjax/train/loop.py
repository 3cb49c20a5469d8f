"""Trains: an experiment and a workdir in, a trained state out. `_steps` is the loop."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import fiddle as fdl
import jax

from mmjax.experiment import own_parts
from mmjax.experiment import record as records
from mmjax.experiment.confined import Record, check_folder
from mmjax.experiment.definition import unscaled
from mmjax.experiment.workdir import record
from mmjax.runtime import copies, hosts
from mmjax.runtime.checkpoints import latest_step, whole_step
from mmjax.runtime.files import output, own_code
from mmjax.runtime.lock import Lock
from mmjax.runtime.metrics import watched
from mmjax.train.ahead import Ahead
from mmjax.train.bad_steps import bad_steps
from mmjax.train.run import Run, data_and_starts, opened
from mmjax.train.setup import Setup, joined_experiment
from mmjax.train.step import TrainState
from mmjax.train.summary import End, finished, stopped


def train(
    config: fdl.Config,
    workdir: str | Path,
    *,
    name: str = "",
    fork: bool = False,
    strict: bool = False,
    profile: tuple[int, int] | None = None,
    wandb: str | None = None,
    given: Record | None = None,
    code: Any = None,
) -> TrainState:
    """Trains an experiment, or resumes it where its workdir stopped; returns the last state.

    Every host of a run on several calls it alike (`hosts`): all compute and save, host 0 writes and prints.

    name: the experiment's name, kept in the record. fork: go on from the checkpoint of a different
    experiment, or with data that has changed since (`same_data`). strict: stop where the latest checkpoint is damaged,
    instead of setting it aside and going on from the one before. profile: a trace of these steps, the first and the
    last, goes to `<workdir>/profile`. wandb: the project to mirror metrics to. given: the record that the experiment
    was read from, which may name less than a file of one's own (`confined`); None: it is the caller's own.
    code: files of one's own, besides the experiment's, that may be run for the models in its `init`.

    Raises:
        UserError: the settings, or the files, don't allow it. CheckpointError: a checkpoint can't be written or read.
        BadStepsError, BadExamplesError: more were bad than the experiment allows. StalledError: no data came.
        KeyboardInterrupt, SystemExit(0): Ctrl-C or SIGTERM came; the step was finished and saved.
    """
    began, workdir = time.perf_counter(), output.local(workdir, "--workdir")
    setup = Setup.here(joined_experiment(config))
    own = own_code.joined([*own_parts.files_of(config), *own_code.named(code)])
    say = print if hosts.leads() else lambda text: None
    hosts.first(partial(check_folder, workdir))
    with hosts.together(partial(Lock, workdir, say=print, holds=hosts.leads())):
        hosts.first(partial(copies.mend, workdir, print))
        record(config, workdir, name, fork)
        if warning := unscaled(config):
            say(warning)
        last = hosts.first(lambda: latest_step(workdir))
        with Ahead(setup, fresh=last is None, steps=last != setup.experiment.steps) as ahead:
            data, starts = data_and_starts(setup, workdir, fork=fork, given=given, say=say, own=own)
            start = hosts.first(lambda: whole_step(workdir, strict=strict, say=print)) or 0
            ahead.begin()
            asked = {"profile": profile, "wandb": wandb, "told": json.loads(records.dumps(config, name))}
            with opened(setup, ahead, data, workdir, start, began=began, say=say, **asked) as run:
                end = _steps(run, run.state(starts))
        hosts.wait()
        if end.stopped:
            run.progress.say(stopped(run, end))
            raise run.interruption.end()
        finished(run, end)
        return end.state


def _steps(run: Run, state: TrainState) -> End:
    """Takes the remaining steps, up to the last one or until the run is to stop, and saves the state.

    Raises:
        BadStepsError, BadExamplesError: more were bad than the experiment allows.
    """
    experiment, start, steps = run.setup.experiment, run.start, run.setup.experiment.steps
    done, saved, too_many = start, time.monotonic(), None
    if start:
        run.evaluations.after(start, state)  # needed where the run was cut off between the save and the evaluation
    with run.feed() as feed:
        log, train_step = feed.log, None
        if start == steps:  # a run that bad examples stopped at its last step is refused again, not taken for ended
            too_many = feed.bad.too_many(steps, hosts.first(lambda: run.metrics.last), log.nothing)
        for step in range(start + 1, steps + 1):
            run.trace.before(step, state)
            batch = next(feed.stream)
            train_step = train_step or run.ahead.train_step()  # compiled while the first batches were read
            with jax.transfer_guard("disallow"):
                state, values = train_step(state, batch)
            log.step(step, values | feed.truncated(step) if log.due(step) else values)
            run.trace.after(step, state)
            done = step
            if step == start + 1:
                log.flush()
                run.progress.say(f"first step after {time.perf_counter() - run.began:.1f} s")
            if step == steps:
                log.flush()  # the checks below use the metrics read so far, which lag behind the steps
            if log.bad_in_a_row > experiment.most_bad_steps:
                last = run.checkpoints.latest_step()
                raise bad_steps(run.workdir, run.data, experiment, log.read, log.bad_in_a_row, last)
            overdue = 0 < 60 * experiment.save_minutes < time.monotonic() - saved
            too_many = feed.bad.too_many(log.read, log.values, log.nothing)
            stop = run.interruption.asked(save=overdue) or too_many is not None  # sets `.save` too
            due = step % experiment.save_every == 0 or step == steps or run.interruption.save
            if due or stop:
                log.flush()  # the checkpoint copies the metrics written up to its step
                with run.clock.apart("saves"):
                    run.metrics.take(hosts.first(lambda: watched(run.workdir)))  # it decides the best ones, too
                    run.checkpoints.save(step, state)
            if due or overdue:
                saved = time.monotonic()
            if stop:
                break
            with run.clock.apart("evaluation"):
                evaluated = run.evaluations.after(step, state)
            if evaluated:
                log.restart(step)
    with run.clock.apart("saves"):
        run.checkpoints.wait()
    if too_many is not None:
        raise too_many
    return End(state, done, run.metrics.evaluations(done), run.interruption.asked(), feed)
