"""Prints the results, the time and the files of a run at its end, and the commands to resume or to judge it."""

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
    """The end of a run's steps: the last state, its step, the results of its evaluations, and whether a signal came
    before the last step (`stopped`). feed: closed by now, but its numbers remain.
    """

    state: TrainState
    step: int
    results: Results
    stopped: bool
    feed: Feed


def stopped(run: Run, end: End) -> str:
    """The message of a run that a signal has stopped."""
    steps = run.setup.experiment.steps
    return f"stopped after step {end.step} of {steps}, which is saved. To go on:\n  {going_on(run.workdir)}"


def finished(run: Run, end: End) -> None:
    """Prints the results and files of a run that took all of its steps."""
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
