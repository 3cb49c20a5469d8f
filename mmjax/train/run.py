"""Opens and holds the parts that a run needs for its steps: metrics, checkpoints, progress, and then the stream of
batches.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from mmjax.data.pipeline import Prepared
from mmjax.evaluate.contract import splits_read
from mmjax.experiment.confined import Record
from mmjax.experiment.workdir import keeping
from mmjax.interop.bundle import Bundle
from mmjax.runtime import copies, hosts
from mmjax.runtime.checkpoints import Checkpointer, latest_step
from mmjax.runtime.files.own_code import Code
from mmjax.runtime.metrics import Metrics
from mmjax.runtime.prefetch import DevicePrefetch, device_prefetch
from mmjax.train.ahead import Ahead
from mmjax.train.bad_examples import BadExamples
from mmjax.train.evaluations import Evaluations
from mmjax.train.first_counts import with_counts
from mmjax.train.goodput import Goodput
from mmjax.train.initialise import initialised, sources, tokenizers
from mmjax.train.interruption import Interruption
from mmjax.train.log import Log
from mmjax.train.profile import Trace
from mmjax.train.progress import Progress
from mmjax.train.setup import Setup
from mmjax.train.step import TrainState, with_params
from mmjax.train.truncation import Truncated, warnings

Starts = dict[str, Bundle]  # the models of `init`


@dataclass(frozen=True)
class Run:
    """A run between its set-up and its end, alike on all hosts.

    start: the step after which it goes on, 0 where it begins. began: when, by `time.perf_counter`.
    """

    setup: Setup
    ahead: Ahead
    data: Prepared
    workdir: Path
    start: int
    began: float
    metrics: Metrics
    checkpoints: Checkpointer
    progress: Progress
    trace: Trace
    interruption: Interruption
    clock: Goodput
    evaluations: Evaluations

    def state(self, starts: Starts) -> TrainState:
        """The state before the first step: the last checkpoint; or the experiment's seed with `starts`, which it
        empties, since they are as large as the model.

        Raises:
            CheckpointError: the checkpoint holds another state. UserError: as `initialised`.
        """
        if self.start:
            self.progress.say(f"{self.workdir} goes on after step {self.start}")
            return self.checkpoints.restore(self.ahead.abstract_state())
        state = self.ahead.fresh_state()
        if starts:
            fresh = hosts.whole({"params": state.params, **state.model_state})
            model_state = initialised(fresh, self.setup.experiment, starts, self.progress.say)
            state = with_params(state, model_state.pop("params"), model_state)
            starts.clear()
        return with_counts(state, self.setup.experiment, self.data)

    @contextlib.contextmanager
    def feed(self) -> Iterator["Feed"]:
        """Opens the stream of batches of the remaining steps, read ahead of their use, within the `with`."""
        experiment, mesh = self.setup.experiment, self.setup.mesh
        bad, truncated = BadExamples(self.workdir, self.data, experiment, self.start), Truncated(self.data, mesh)
        idle = hosts.first(lambda: self.metrics.nothing)
        source = bad.watched(self.setup.batches(self.data, self.start, truncated.cuts))
        every, size, steps = experiment.log_every, experiment.batch_size, experiment.steps
        with (
            device_prefetch(source, mesh, patience=experiment.patience) as stream,
            Log(self.metrics, self.progress, stream, self.clock, every, size, steps, idle) as log,
        ):
            yield Feed(stream, log, bad, truncated)


@dataclass(frozen=True)
class Feed:
    """The stream of batches on the devices, and the counters and log of its steps."""

    stream: DevicePrefetch
    log: Log
    bad: BadExamples
    truncated: Truncated


def data_and_starts(
    setup: Setup,
    workdir: Path,
    *,
    fork: bool,
    given: Record | None,
    say: Callable[[str], None],
    own: Code = (),
) -> tuple[Prepared, Starts]:
    """Reads a run's data, and the models that it starts from if it is new. Prints which data the model won't see.

    fork, given: as in `train`. own: files of one's own that may be run for parts of those models.

    Raises:
        UserError: something is missing, or differs from the run's.
    """
    experiment = setup.experiment
    begins = hosts.first(lambda: latest_step(workdir)) is None
    starts = sources(experiment, say, own) if experiment.init and begins else {}
    judged, models = splits_read(experiment.evaluators), tokenizers(experiment, starts, say)
    data = setup.data(workdir, judged, tokenizers=models, given=given, say=say, begun=not begins, fork=fork)
    for warning in warnings(experiment, data) if hosts.leads() else ():
        say(warning)
    return data, starts


@contextlib.contextmanager
def opened(
    setup: Setup,
    ahead: Ahead,
    data: Prepared,
    workdir: Path,
    start: int,
    *,
    began: float,
    profile: tuple[int, int] | None,
    wandb: str | None,
    told: Any,
    say: Callable[[str], None],
) -> Iterator[Run]:
    """Sets the mesh, and opens the files that a run writes; all of it is closed in the opposite order.

    profile, wandb: as in `train`. told: the record of the experiment, for wandb.
    """
    lead = hosts.leads()
    written = partial(Metrics, workdir, step=start, wandb=wandb, config=told, writes=lead, say=say)
    keep = partial(keeping, setup.experiment, workdir=workdir, say=say)
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.set_mesh(setup.mesh))
        metrics = stack.enter_context(hosts.together(written))
        yield Run(
            setup,
            ahead,
            data,
            workdir,
            start,
            began,
            metrics=metrics,
            checkpoints=stack.enter_context(
                Checkpointer(workdir, keep(metrics), beside=partial(copies.write, workdir))
            ),
            progress=stack.enter_context(Progress(setup.experiment.steps, start, quiet=not lead)),
            trace=stack.enter_context(Trace(profile, workdir, start, setup.experiment.steps)),
            interruption=stack.enter_context(Interruption(hosts.Largest(setup.mesh))),
            clock=Goodput(began, metrics.seconds, metrics.stepped),
            evaluations=Evaluations(setup, data, metrics, workdir),
        )
