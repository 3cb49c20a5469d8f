"""Says how much of the texts and sounds the model never reads: before the first step, and in the metrics."""

from collections.abc import Callable, Iterator
from typing import Any

import jax

from mmjax.data.cuts import Lengths, sampled
from mmjax.data.pipeline import Prepared, cuts_of
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.experiment.definition import Experiment
from mmjax.runtime import hosts

SHARE = 0.05  # of a sample: where more is cut off, it is said
HELD = 0.99  # of a sample: the length that is named holds so many
_LENGTHS = ("length", "samples")  # what transforms and towers call it


class Truncated:
    """`truncated/<source>`: of a batch's examples of that source those of which the text or the sound was longer than
    what the model gets; of those that have one, over all hosts. Where several modalities vary in length, also
    `truncated/<source>/<modality>`, of the examples that have it.

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
        """The metrics of that step's batch, once this host has read it. All hosts must ask for the same steps."""
        return self._total(self.cuts.take(step)) if self.cuts.modalities else {}


def warnings(experiment: Experiment, data: Prepared) -> Iterator[str]:
    """What to say before the first step: of which sources and modalities more than SHARE of a sample is cut off, at
    which length, and which would hold HELD of it. It reads for seconds at most."""
    for lengths in sampled(data.chains, data.open("train"), experiment.seed, data.record_transforms):
        (length, *_) = data.chains.specs[lengths.modality].shape
        if lengths.longer(length) > SHARE * len(lengths.lengths):
            yield _warning(experiment, lengths, length)


def _warning(experiment: Experiment, found: Lengths, length: int) -> str:
    chain = experiment.data.transforms[found.modality]
    rate = next((transform.rate for transform in chain if isinstance(transform, DecodeAudio)), None)
    count, longer, wanted = len(found.lengths), found.longer(length), found.holds(HELD)
    metric = f"(metric truncated/{found.source})"
    if found.modality == "audio":
        kind, heard, most = "sounds", f"{length:,} samples", f"{wanted:,} samples"
        if rate is not None:
            heard, most = f"{heard} ({length / rate:.3g} s)", f"{most} ({wanted / rate:.3g} s)"
        rest = f"than the model hears: {heard}, a random part of each in training, the beginning in evaluation {metric}"
    else:
        kind, unit = ("texts", "tokens") if found.modality == "text" else (f"examples of {found.modality!r}", "places")
        rest, most = f"than the model reads, and lose what comes after {length:,} {unit} {metric}", f"{wanted:,}"
    return (
        f"warning: {longer:,} of {count:,} {kind} of {found.source!r}, drawn at random, are longer {rest}. {most} would"
        f" hold {HELD:.0%} of them{_settings(experiment, found.modality, length, wanted)}"
    )


def _settings(experiment: Experiment, modality: str, length: int, wanted: int) -> str:
    """`: data.transforms.text.1.length=24 towers.text.length=24`, as far as it is known what says the length."""
    chain, tower = experiment.data.transforms[modality], experiment.towers.get(modality)
    parts = {f"data.transforms.{modality}.{place}": transform for place, transform in enumerate(chain)}
    says = [(path, name) for path, part in parts.items() for name in _LENGTHS if getattr(part, name, None) == length]
    says += [(f"towers.{modality}", name) for name in _LENGTHS if getattr(tower, name, wanted) < wanted]
    return f": {' '.join(f'{path}.{name}={wanted}' for path, name in says)}" if says else ""
