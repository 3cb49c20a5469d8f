"""A model and its prepared data on a mesh: what `evaluate`, `watch` and `embed` set up alike."""

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
    """The model (`resolve`), on all hosts. What has to be fetched host 0 fetches, and the others find it in the cache;
    `say` is told by host 0. code: as in `mmjax.load`."""
    first = hosts.leads() or not hub.is_name(str(source))
    told = say if hosts.leads() else lambda text: None
    bundle = hosts.together(lambda: resolve(source, step=step, code=code, say=told) if first else None)
    return hosts.together(lambda: bundle or resolve(source, step=step, code=code, say=told))


@dataclass(frozen=True)
class PreparedModel:
    """What embeds the data's splits, compiled once, and the mesh that it does so on."""

    embedder: SplitEmbedder
    mesh: jax.sharding.Mesh

    @contextmanager
    def holding(self, variables: Variables) -> Iterator[Variables]:
        """Sets the mesh, and gives the variables (numpy arrays, the same on all hosts) on all of its devices."""
        with jax.set_mesh(self.mesh):
            yield hosts.placed(variables, replicated(self.mesh))


def prepared_model(
    experiment: Experiment, data: Prepared, batch_size: int, prompts: Chains | None = None
) -> PreparedModel:
    """On all the devices there are, whatever the experiment was sharded over.

    batch_size: over all of them, to be rounded up to a multiple of their number. prompts: as in `SplitEmbedder`.
    """
    mesh = Mesh().build()
    size = -(-batch_size // mesh.size) * mesh.size
    return PreparedModel(SplitEmbedder(experiment.pretrainer(), data, mesh, size, prompts), mesh)
