"""The loop, and only the loop: an experiment and a workdir in, a trained state out."""

import json
import time
from functools import partial
from pathlib import Path

import fiddle as fdl
import jax

from mmjax.data.pipeline import batch_spec, batches
from mmjax.evaluate.contract import fit_split, protocols
from mmjax.evaluate.evaluate import evaluate
from mmjax.evaluate.split_embedder import Embedder
from mmjax.evaluate.tables import tables
from mmjax.experiment import record as records
from mmjax.experiment.confined import Record, check_folder
from mmjax.experiment.definition import Experiment, unscaled
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import going_on, judging, keeping, prepared, record
from mmjax.runtime import copies, hosts
from mmjax.runtime.checkpoints import Checkpointer, latest_step, whole_step
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.runtime.files import output
from mmjax.runtime.lock import Lock
from mmjax.runtime.mesh import check_batch
from mmjax.runtime.metrics import Metrics, watched
from mmjax.runtime.prefetch import device_prefetch
from mmjax.train.bad_examples import BadExamples, summary
from mmjax.train.bad_steps import bad_steps
from mmjax.train.goodput import Goodput
from mmjax.train.initialise import initialised, sources, tokenizers
from mmjax.train.interruption import Interruption
from mmjax.train.log import Log
from mmjax.train.profile import Trace
from mmjax.train.progress import Progress, duration
from mmjax.train.same_data import check_data
from mmjax.train.step import TrainState, abstract_state, compile_train_step, init_state, make_train_step, with_params
from mmjax.train.truncation import Truncated, warnings


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
) -> TrainState:
    """Trains an experiment, or goes on with it where its workdir stopped; gives the last state.

    Every host of a run on several calls it alike (`hosts`): all compute and save, host 0 writes and speaks.

    name: what the experiment is called, kept beside it for people. fork: go on from the checkpoint of a different
    experiment, or with data that has changed since (`same_data`). strict: stop where the latest checkpoint is damaged,
    instead of setting it aside and going on from the one before. profile: a trace of these steps, the first and the
    last, goes to `<workdir>/profile`. wandb: the project to mirror metrics to. given: the record that the experiment
    was read from, which may name less than a file of one's own (`confined`); None: it is the caller's own.

    Raises:
        UserError, ValueError: what was asked for can't be had. CheckpointError: a checkpoint can't be written or read.
        BadStepsError, BadExamplesError: more were bad than the experiment allows. StalledError: no data came.
        KeyboardInterrupt, SystemExit(0): Ctrl-C or SIGTERM came; the step was finished and saved.
    """
    began, workdir = time.perf_counter(), output.local(workdir, "--workdir")
    use_compilation_cache()
    hosts.join()
    experiment: Experiment = build(config)
    steps, size, seed = experiment.steps, experiment.batch_size, experiment.seed
    ema, spike = experiment.ema, experiment.spike
    mesh = experiment.mesh.build()
    check_batch(size, mesh, experiment.microbatches)
    mine = hosts.reader(mesh, size)
    lead = hosts.leads()
    hosts.first(partial(check_folder, workdir))
    with hosts.together(partial(Lock, workdir, say=print, holds=lead)):
        hosts.first(partial(copies.mend, workdir, print))
        record(config, workdir, name, fork)
        say = print if lead else lambda text: None
        if warning := unscaled(config):
            say(warning)
        begins = hosts.first(lambda: latest_step(workdir)) is None
        starts = sources(experiment, say) if experiment.init and begins else {}
        judged = [split for e in experiment.evaluators for split in (e.split, fit_split(e)) if split is not None]
        models = tokenizers(experiment, starts, say)
        data = prepared(experiment.data, workdir, ("train", *judged), models, given, say)
        check_data(data, workdir, begun=not begins, fork=fork)
        for warning in warnings(experiment, data) if lead else ():
            say(warning)
        start = hosts.first(lambda: whole_step(workdir, strict=strict, say=print)) or 0
        written = partial(Metrics, workdir, step=start, wandb=wandb, config=json.loads(records.dumps(config, name)))
        copied = partial(copies.write, workdir)
        pretrainer, optimizer, spec = experiment.pretrainer(), experiment.optimizer, batch_spec(experiment.data, size)

        with (
            jax.set_mesh(mesh),
            hosts.together(partial(written, writes=lead, say=say)) as metrics,
            Checkpointer(workdir, keeping(experiment, metrics, workdir, say), beside=copied) as checkpoints,
            Progress(steps, start, quiet=not lead) as progress,
            Trace(profile, workdir, start, steps) as trace,
            Interruption(hosts.Largest(mesh)) as interruption,
        ):
            if start:
                progress.say(f"{workdir} goes on after step {start}")
                state = checkpoints.restore(
                    abstract_state(pretrainer, optimizer, spec, mesh=mesh, ema=ema, spike=spike)
                )
            else:
                state = init_state(pretrainer, optimizer, spec, seed=seed, mesh=mesh, ema=ema, spike=spike)
                if starts:
                    fresh = hosts.whole({"params": state.params, **state.model_state})
                    model_state = initialised(fresh, experiment, starts, progress.say)
                    state = with_params(state, model_state.pop("params"), model_state)
                    starts.clear()
            train_step = make_train_step(pretrainer, optimizer, seed=seed, total_steps=steps, ema=ema, spike=spike)
            train_step = compile_train_step(train_step, state, mesh)
            embedder = Embedder(pretrainer, data, mesh, size)

            def evaluate_if_due(step: int) -> bool:
                last = step == steps
                due = [e for e in experiment.evaluators if last or e.when == "always"]
                if not due or not (last or (experiment.evaluate_every and step % experiment.evaluate_every == 0)):
                    return False
                known = hosts.first(lambda: list(metrics.evaluations(step)))
                if not {e.split for e in due} <= set(known):  # else done before the run was cut off
                    params = state.params if state.ema is None else state.ema
                    found = lambda split, values: metrics.write(step, values, split)  # noqa: E731
                    evaluate(
                        embedder, {"params": params, **state.model_state}, due, step=step, workdir=workdir, found=found
                    )
                return True

            done, saved, too_many = start, time.monotonic(), None
            clock = Goodput(began, metrics.seconds, metrics.stepped)
            if start:
                evaluate_if_due(start)
            bad, truncated = BadExamples(workdir, data, experiment, start), Truncated(data, mesh)
            idle, before = hosts.first(lambda: metrics.nothing), hosts.first(lambda: metrics.last)
            read = batches(data, batch_size=size, seed=seed, step=start, host=mine, cuts=truncated.cuts)
            source = bad.watched(read)
            with (
                device_prefetch(source, mesh, patience=experiment.patience) as stream,
                Log(metrics, progress, stream, clock, experiment.log_every, size, steps, idle) as log,
            ):
                if start == steps:  # an end that was refused isn't taken for one when it is asked for again
                    too_many = bad.too_many(steps, before, log.nothing)
                for step in range(start + 1, steps + 1):
                    trace.before(step, state)
                    batch = next(stream)
                    with jax.transfer_guard("disallow"):
                        state, values = train_step(state, batch)
                    log.step(step, values | truncated(step) if log.due(step) else values)
                    trace.after(step, state)
                    done = step
                    if step == start + 1:
                        log.flush()
                        progress.say(f"first step after {time.perf_counter() - began:.1f} s")
                    if step == steps:
                        log.flush()
                    if log.bad_in_a_row > experiment.most_bad_steps:
                        last = checkpoints.latest_step()
                        raise bad_steps(workdir, data, experiment, log.read, log.bad_in_a_row, last)
                    overdue = 0 < 60 * experiment.save_minutes < time.monotonic() - saved
                    too_many = bad.too_many(log.read, log.values, log.nothing)
                    stop = interruption.asked(save=overdue) or too_many is not None
                    due = step % experiment.save_every == 0 or step == steps or interruption.save
                    if due or stop:
                        log.flush()  # the checkpoint has a copy of what was written to its step
                        with clock.apart("saves"):
                            metrics.take(hosts.first(lambda: watched(workdir)))  # it counts for the best ones, too
                            checkpoints.save(step, state)
                    if due or overdue:
                        saved = time.monotonic()
                    if stop:
                        break
                    with clock.apart("evaluation"):
                        evaluated = evaluate_if_due(step)
                    if evaluated:
                        log.restart(step)
            with clock.apart("saves"):
                checkpoints.wait()
            if too_many is not None:
                raise too_many
            results = metrics.evaluations(done)
            stopped = interruption.asked()

        hosts.wait()
        if stopped:
            progress.say(f"stopped after step {done} of {steps}, which is saved. To go on:\n  {going_on(workdir)}")
            raise interruption.end()
        for table in tables(results, done, protocols=protocols(experiment.evaluators)):
            progress.console.print(table)
        loss = f", loss {log.loss:.3f}" if log.loss is not None else ""
        seconds = time.perf_counter() - began
        if told := summary(log.values):
            progress.say(f"bad examples, counted each time they were drawn: {told}; {bad.path} names them")
        progress.say(clock.summary(stream.waited))
        progress.say(
            f"{done:,} steps, {done * size:,} examples{loss}, {duration(seconds)} in all; written to {workdir}:"
        )
        for path in sorted(workdir.iterdir()):
            if not path.name.startswith("."):
                progress.say(f"  {path.name}")
        progress.say(f"to judge it again:\n  {judging(workdir)}")
        return state
