"""The evaluations of a run, between its steps and at its end."""

from pathlib import Path

from mmjax.data.pipeline import Prepared
from mmjax.evaluate.evaluate import evaluate
from mmjax.evaluate.split_embedder import SplitEmbedder
from mmjax.runtime import hosts
from mmjax.runtime.metrics import Metrics
from mmjax.train.setup import Setup
from mmjax.train.step import TrainState


class Evaluations:
    """Runs the experiment's evaluators after the steps at which they are due, on the moving average where there is one,
    and writes their results into the metrics.
    """

    def __init__(self, setup: Setup, data: Prepared, metrics: Metrics, workdir: Path):
        self._experiment, self._metrics, self._workdir = setup.experiment, metrics, workdir
        self._embedder = SplitEmbedder(setup.pretrainer, data, setup.mesh, setup.experiment.batch_size)

    def after(self, step: int, state: TrainState) -> bool:
        """Evaluates the state of that step if it is due, and returns whether it was. Results that are written already
        aren't computed again.
        """
        experiment, last = self._experiment, step == self._experiment.steps
        due = [e for e in experiment.evaluators if last or e.when == "always"]
        if not due or not (last or (experiment.evaluate_every and step % experiment.evaluate_every == 0)):
            return False
        known = hosts.first(lambda: list(self._metrics.evaluations(step)))
        if not {e.split for e in due} <= set(known):  # else evaluated before the run was cut off
            params = state.params if state.ema is None else state.ema
            evaluate(
                self._embedder,
                {"params": params, **state.model_state},
                due,
                step=step,
                workdir=self._workdir,
                found=lambda split, values: self._metrics.write(step, values, split),
            )
        return True
