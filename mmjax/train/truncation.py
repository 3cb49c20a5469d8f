"""Reports how much of the texts and sounds the model never reads: before the first step, and in the metrics."""

from collections.abc import Callable, Iterator
from typing import Any

import jax

from mmjax.data.cuts import Lengths, sampled
from mmjax.data.pipeline import Prepared, cuts_of
from mmjax.data.transforms.contract import Spec
from mmjax.experiment.definition import Experiment
from mmjax.runtime import hosts

SHARE = 0.05  # share of a sample's examples, above which truncation is reported
HELD = 0.99  # share of a sample's examples that the recommended length holds
_LENGTHS = ("length", "samples")  # the field's name in transforms and towers


class Truncated:
    """Computes the metrics `truncated/<source>`: the share of a batch's examples of that source, over all hosts, whose
    text or sound is longer than the model's input, among those that have one. Where several modalities vary in length,
    also `truncated/<source>/<modality>`, among the examples that have it.

    A function of the batch alone, as `clipped/<modality>` is: a run that goes on writes what it would have written.
    """

    def __init__(self, data: Prepared, mesh: jax.sharding.Mesh):
        self.cuts = cuts_of(data)
        columns = ("", *(f"/{modality}" for modality in self.cuts.modalities if len(self.cuts.modalities) > 1))
        names = [[f"truncated/{source}{column}" for column in columns] for source in self.cuts.sources]

        def shares(counts: Any) -> dict[str, Any]:
            cut, there = (counts[..., i].astype("float32") for i in (0, 1))
            found = cut / there.clip(1)
            return {name: found[row, i] for row, of_source in enumerate(names) for i, name in enumerate(of_source)}

        self._total: Callable[..., dict[str, Any]] = hosts.Total(mesh, shares)

    def __call__(self, step: int) -> dict[str, Any]:
        """The metrics of that step's batch, once this host has read it. All hosts must call it for the same steps."""
        return self._total(self.cuts.take(step)) if self.cuts.modalities else {}


def warnings(experiment: Experiment, data: Prepared) -> Iterator[str]:
    """Warnings before the first step: the sources and modalities of which more than SHARE of a sample is cut off, at
    which length, and the length that would hold HELD of it. It reads for seconds at most.
    """
    for lengths in sampled(data.chains, data.open("train"), experiment.seed, data.record_transforms):
        spec = data.chains.specs[lengths.modality]
        if lengths.longer(spec.shape[0]) > SHARE * len(lengths.lengths):
            yield _warning(experiment, lengths, spec)


def _warning(experiment: Experiment, found: Lengths, spec: Spec) -> str:
    kind, length = spec.kind, spec.shape[0]
    count, longer, wanted = len(found.lengths), found.longer(length), found.holds(HELD)
    several = kind.several or f"examples of {found.modality!r}"
    return (
        f"warning: {longer:,} of {count:,} {several} of {found.source!r}, drawn at random, are longer "
        f"{kind.lost(length, spec.rate)} (metric truncated/{found.source}). {kind.measured(wanted, spec.rate)} would"
        f" hold {HELD:.0%} of them{_settings(experiment, found.modality, length, wanted)}"
    )


def _settings(experiment: Experiment, modality: str, length: int, wanted: int) -> str:
    """The overrides that set the length, `: data.transforms.text.1.length=24 towers.text.length=24`, as far as they are
    known.
    """
    chain, tower = experiment.data.transforms[modality], experiment.towers.get(modality)
    parts = {f"data.transforms.{modality}.{place}": transform for place, transform in enumerate(chain)}
    says = [(path, name) for path, part in parts.items() for name in _LENGTHS if getattr(part, name, None) == length]
    says += [(f"towers.{modality}", name) for name in _LENGTHS if getattr(tower, name, wanted) < wanted]
    return f": {' '.join(f'{path}.{name}={wanted}' for path, name in says)}" if says else ""
