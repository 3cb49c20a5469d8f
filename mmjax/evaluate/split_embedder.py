"""Embeds whole splits, sharded over a mesh."""

from collections.abc import Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from mmjax.data.chains import Chains
from mmjax.data.evaluation import CONTENT, class_names, evaluation_batches
from mmjax.data.pipeline import Prepared
from mmjax.errors import UserError
from mmjax.evaluate.contract import Embedded, Variables
from mmjax.evaluate.split_losses import HeldOut
from mmjax.evaluate.split_predictions import SplitPredictor
from mmjax.objectives.pretrainer import Pretrainer
from mmjax.runtime import hosts
from mmjax.runtime.mesh import ACTIVATION_RULES, put, replicated


class SplitEmbedder:
    """Embeds a split, or strings, with the given variables (`params`, and batch statistics where there are any), in
    padded batches over the mesh; compiled once.

    Of several hosts each reads its part of every batch, and all get the whole: all must make the same calls.
    """

    def __init__(
        self,
        pretrainer: Pretrainer,
        data: Prepared,
        mesh: jax.sharding.Mesh,
        batch_size: int,
        prompts: Chains | None = None,
    ):
        """batch_size: over all hosts; the mesh must divide it.  prompts: the chains for prompts, if not the data's
        (which may have no text).
        """
        self._data, self._mesh, self._batch_size = data, mesh, batch_size
        self._prompts = data.chains if prompts is None else prompts
        self._part = hosts.reader(mesh, batch_size)

        def embed(variables: Variables, batch: dict[str, jax.Array], kept: tuple[str, ...]) -> tuple[Any, Any]:
            with nn.logical_axis_rules(ACTIVATION_RULES):
                vectors = pretrainer.apply(variables, batch, method="embed")
            return vectors, {name: batch[name] for name in kept}

        self._embed = jax.jit(embed, static_argnames="kept", out_shardings=replicated(mesh))
        self.kinds = {name: spec.kind for name, spec in data.chains.specs.items()}
        self.losses = HeldOut(pretrainer, data, mesh, batch_size)
        self.predictor = SplitPredictor(pretrainer, data, mesh, batch_size)

    def split(
        self, variables: Variables, split: str, inputs: Iterable[str] = (), rows: range | None = None
    ) -> Embedded:
        """Every example of the split (or those in `rows`), once; the batches' entries in `inputs` are kept."""
        embedded: list[dict[str, np.ndarray]] = []
        known: list[dict[str, list[Any]]] = []  # the columns of this host's examples, by batch
        kept: list[dict[str, np.ndarray]] = []
        stream = evaluation_batches(self._data, split, self._batch_size, host=self._part, rows=rows, contents=True)
        for batch, names in stream:
            wanted = [f"{modality}_valid" for modality in self._data.chains.specs] + [n for n in inputs if n in batch]
            vectors, entries = self._whole(variables, batch, wanted)
            embedded.append(vectors)
            kept.append(entries)
            known.append(names)
        columns = self._columns(known)
        count = len(columns["id"])  # the last batch is padded, its columns aren't
        vectors, entries = (
            {name: np.concatenate([batch[name] for batch in batches])[:count] for name in batches[0]}
            for batches in (embedded, kept)
        )
        valid = {modality: entries[f"{modality}_valid"] for modality in vectors}
        contents = {m: columns.pop(m + CONTENT) for m in list(vectors) if m + CONTENT in columns}
        kept_inputs = {name: entries[name] for name in inputs if name in entries}
        named = class_names(self._data, split)
        return Embedded(
            vectors, valid, columns, kept_inputs, split, class_names=named, contents=contents, kinds=self.kinds
        )

    def text(self, variables: Variables, strings: Sequence[str]) -> Float[np.ndarray, "n e"]:
        """Unit vectors of prompts, by the experiment's own text transforms."""
        if (modality := self._prompts.texts) is None:
            raise UserError(f"prompts need a text tower; the data has {', '.join(self._prompts.specs)}")
        found = []
        index, count = self._part
        rows = slice(index * self._batch_size // count, (index + 1) * self._batch_size // count)
        for start in range(0, len(strings), self._batch_size):
            part = list(strings[start : start + self._batch_size])
            batch = self._prompts.encode(**{modality: part + [None] * (self._batch_size - len(part))})
            vectors, _ = self._whole(variables, {name: array[rows] for name, array in batch.items()})
            found.append(vectors[modality][: len(part)])
        return np.concatenate(found)

    def _whole(
        self, variables: Variables, batch: dict[str, np.ndarray], kept: Iterable[str] = ()
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Embeddings, and the entries in `kept`, of the batch of all hosts, from this host's rows of it."""
        embedded = self._embed(variables, put(batch, self._mesh), kept=("index", *sorted(kept)))
        vectors, entries = jax.device_get(embedded)
        order = np.argsort(entries["index"])  # a mesh may have the hosts' rows in another order
        vectors, entries = ({name: array[order] for name, array in arrays.items()} for arrays in (vectors, entries))
        return vectors, entries

    def _columns(self, known: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
        """The columns of all hosts' examples, in the order of the data, from those of this host's by batch."""
        by_part = dict(hosts.gathered([self._part[0], known]))  # hosts that read the same part have the same columns
        columns: dict[str, list[Any]] = {}
        for batch in range(len(known)):
            for part in sorted(by_part):
                for name, values in by_part[part][batch].items():
                    columns.setdefault(name, []).extend(values)
        return columns
