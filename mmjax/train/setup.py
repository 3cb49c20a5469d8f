"""An experiment set up on a mesh, once for `train`, `replay` and `plan`: its data, its state, its compiled step."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import fiddle as fdl
import jax
import numpy as np

from mmjax.data.cuts import Cuts
from mmjax.data.pipeline import Prepared, batch_spec, batches
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.experiment.confined import Record
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.runtime import hosts
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.runtime.mesh import check_batch
from mmjax.train.same_data import check_data
from mmjax.train.step import TrainState, compile_train_step, creation, make_train_step


def joined_experiment(config: fdl.Config) -> Experiment:
    """Joins this host to the others, and then builds the experiment; compiled programs are cached on disk."""
    use_compilation_cache()
    hosts.join()
    return build(config)


@dataclass(frozen=True)
class Setup:
    """The mesh, shapes, state and step that an experiment has on given devices. Each is made when it is first used.

    part: the rows of each batch that this host reads, (index, count) as in `batches`.
    """

    experiment: Experiment
    mesh: jax.sharding.Mesh
    part: tuple[int, int] = (0, 1)

    @classmethod
    def here(cls, experiment: Experiment) -> Self:
        """A set-up on the devices of all hosts of this run.

        Raises:
            UserError: the mesh doesn't fit the devices, or doesn't cut the batch.
        """
        setup = cls.on(experiment, None)
        return cls(experiment, setup.mesh, hosts.reader(setup.mesh, experiment.batch_size))

    @classmethod
    def on(cls, experiment: Experiment, devices: Sequence[Any] | None) -> Self:
        """A set-up on `devices`, which need not exist (None: all of this run's). Raises as `here`."""
        mesh = experiment.mesh.build(devices)
        check_batch(experiment.batch_size, mesh, experiment.microbatches)
        return cls(experiment, mesh)

    @cached_property
    def pretrainer(self) -> Pretrainer:
        """The module that is trained."""
        return self.experiment.pretrainer()

    @cached_property
    def spec(self) -> dict[str, np.ndarray]:
        """The global batch's names, shapes and dtypes (`batch_spec`)."""
        return batch_spec(self.experiment.data, self.experiment.batch_size)

    @cached_property
    def creation(self) -> tuple[Any, TrainState]:
        """The jitted function from the seed (np.uint32) to the first state, and the state's shapes, dtypes and
        shardings. The mesh must be set, as below."""
        e = self.experiment
        return creation(self.pretrainer, e.optimizer, self.spec, mesh=self.mesh, ema=e.ema, spike=e.spike)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        return self.creation[1]

    def fresh_state(self) -> TrainState:
        """The state of step 0, by the experiment's seed."""
        return self.creation[0](np.uint32(self.experiment.seed))

    def train_step(self, state: TrainState) -> Any:
        """The jitted train step (`compile_train_step`) for states laid out as `state`, which may be abstract."""
        e = self.experiment
        step = make_train_step(self.pretrainer, e.optimizer, seed=e.seed, total_steps=e.steps, ema=e.ema, spike=e.spike)
        return compile_train_step(step, state, self.mesh)

    def data(
        self,
        workdir: Path,
        judged: Iterable[str] = (),
        *,
        tokenizers: Mapping[str, Tokenizer] | None = None,
        given: Record | None = None,
        say: Callable[[str], None],
        begun: bool,
        fork: bool = False,
        keep: bool = True,
    ) -> Prepared:
        """The data, prepared (`prepared`: tokenizers, given, say), and checked to be the run's (`check_data`: begun,
        fork, keep). The training split is opened, and those in `judged`."""
        data = prepared(self.experiment.data, workdir, ("train", *judged), tokenizers, given, say)
        check_data(data, workdir, begun=begun, fork=fork, keep=keep)
        return data

    def batches(self, data: Prepared, start: int, cuts: Cuts | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Iterates over this host's rows of the training batches after step `start`; cuts: as in `pipeline.batches`."""
        e = self.experiment
        return batches(data, batch_size=e.batch_size, seed=e.seed, step=start, host=self.part, cuts=cuts)
