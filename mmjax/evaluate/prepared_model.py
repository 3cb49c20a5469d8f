"""A model and its prepared data on a mesh, set up in the same way for `evaluate`, `watch` and `embed`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from mmjax.data.chains import Chains
from mmjax.data.pipeline import Prepared
from mmjax.evaluate.contract import Variables
from mmjax.evaluate.split_embedder import SplitEmbedder
from mmjax.experiment.definition import Experiment
from mmjax.interop import hub
from mmjax.interop.bundle import Bundle
from mmjax.interop.resolve import resolve
from mmjax.runtime import hosts
from mmjax.runtime.mesh import Mesh, replicated


def resolved(source: str | Path, step: int | None, say: Callable[[str], None], code: Any = None) -> Bundle:
    """Loads the model (`resolve`) on all hosts. Host 0 downloads files, and the others find them in the cache; `say` is
    called on host 0. code: as in `mmjax.load`.
    """
    first = hosts.leads() or not hub.is_name(str(source))
    told = say if hosts.leads() else lambda text: None
    bundle = hosts.together(lambda: resolve(source, step=step, code=code, say=told) if first else None)
    return hosts.together(lambda: bundle or resolve(source, step=step, code=code, say=told))


@dataclass(frozen=True)
class PreparedModel:
    """The embedder of the data's splits, compiled once, and its mesh."""

    embedder: SplitEmbedder
    mesh: jax.sharding.Mesh

    @contextmanager
    def holding(self, variables: Variables) -> Iterator[Variables]:
        """Sets the mesh, and yields the variables (numpy arrays, the same on all hosts) on all of its devices."""
        with jax.set_mesh(self.mesh):
            yield hosts.placed(variables, replicated(self.mesh))


def prepared_model(
    experiment: Experiment, data: Prepared, batch_size: int, prompts: Chains | None = None
) -> PreparedModel:
    """A model on all available devices, however the experiment was sharded.

    batch_size: over all devices, rounded up to a multiple of their number. prompts: as in `SplitEmbedder`.
    """
    mesh = Mesh().build()
    size = -(-batch_size // mesh.size) * mesh.size
    return PreparedModel(SplitEmbedder(experiment.pretrainer(), data, mesh, size, prompts), mesh)
