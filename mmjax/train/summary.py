"""Says at the end of a run what it found, took and wrote, and how to go on or to judge it."""

import time
from dataclasses import dataclass

from mmjax.evaluate.contract import protocols
from mmjax.evaluate.tables import Results, tables
from mmjax.experiment.workdir import going_on, judging
from mmjax.train.bad_examples import summary as bad_ones
from mmjax.train.progress import duration
from mmjax.train.run import Feed, Run
from mmjax.train.step import TrainState


@dataclass(frozen=True)
class End:
    """How a run's steps ended: the last state, the step it is of, the results of its evaluations, and whether a signal
    came before the last step (`stopped`). feed: which is closed, but still has its numbers."""

    state: TrainState
    step: int
    results: Results
    stopped: bool
    feed: Feed


def stopped(run: Run, end: End) -> str:
    """What is said of a run that a signal has stopped."""
    steps = run.setup.experiment.steps
    return f"stopped after step {end.step} of {steps}, which is saved. To go on:\n  {going_on(run.workdir)}"


def finished(run: Run, end: End) -> None:
    """Says what a run that took all of its steps has found and written."""
    say, experiment, log = run.progress.say, run.setup.experiment, end.feed.log
    for table in tables(end.results, end.step, protocols=protocols(experiment.evaluators)):
        run.progress.console.print(table)
    loss = f", loss {log.loss:.3f}" if log.loss is not None else ""
    seconds = time.perf_counter() - run.began
    if told := bad_ones(log.values):
        say(f"bad examples, counted each time they were drawn: {told}; {end.feed.bad.path} names them")
    say(run.clock.summary(end.feed.stream.waited))
    say(
        f"{end.step:,} steps, {end.step * experiment.batch_size:,} examples{loss}, {duration(seconds)} in all; "
        f"written to {run.workdir}:"
    )
    for path in sorted(run.workdir.iterdir()):
        if not path.name.startswith("."):
            say(f"  {path.name}")
    say(f"to judge it again:\n  {judging(run.workdir)}")
