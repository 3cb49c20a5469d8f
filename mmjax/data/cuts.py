"""Examples that are longer than the model reads: how many of them each batch holds, and how long those of a sample are.

A chain says of each example whether it is a part only (`image.Cut`): a text that loses pieces, and a sound that
loses samples, at random or at its end. The segments of a `SentencePair` are drawn to fill the length: they are whole.
Batches have no entry for that: the workers' extra entry is counted and removed as they are read.
"""

import time
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32

from mmjax.data.chains import Chains, Row
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.sources.contract import Records

ENTRY = "cut"  # the row's entry, uint16 [2]: the source's index, and a bit for each modality that was cut
SAMPLE = 256  # examples of each source that are read before the first step ...
SECONDS = 2.0  # ... as far as they can be read in these seconds, all sources together

Counts = Int32[np.ndarray, "sources columns 2"]


def can_be_cut(chains: Chains) -> tuple[str, ...]:
    """The modalities whose examples vary in length: those with a mask."""
    return tuple(modality for modality, spec in chains.specs.items() if spec.masked)


class Cuts:
    """Counts, for each source, a batch's examples that were cut, and those that could have been.

    `sources` are the sources' names; `modalities` those that vary in length. A batch's `Counts` have a row for each
    source, a column for "anything in it" and then one for each modality, and in the last axis (cut, there): examples
    without a text and a sound, and bad ones, aren't counted.
    """

    def __init__(self, sources: tuple[str, ...], chains: Chains):
        self.sources, self.modalities = sources, can_be_cut(chains)
        self._counts: dict[int, Counts] = {}

    def entry(self, source: str, cut: tuple[str, ...]) -> Row:
        """The entry of a row that `counted` reads."""
        bits = sum(1 << place for place, modality in enumerate(self.modalities) if modality in cut)
        return {ENTRY: np.array((self.sources.index(source), bits), np.uint16)}

    def counted(self, batches: Iterator[Row], step: int) -> Generator[Row]:
        """Counts the batches, which begin after `step`, and yields them without that entry."""
        try:
            for number, batch in enumerate(batches, step + 1):
                batch = dict(batch)
                self._counts[number] = self._count(batch.pop(ENTRY), batch)
                yield batch
        finally:
            if close := getattr(batches, "close", None):
                close()

    def _count(self, entry: np.ndarray, batch: Row) -> Counts:
        source, bits = entry.T
        valid = [batch[f"{modality}_valid"] for modality in self.modalities]  # empty where nothing varies in length
        there = np.array(valid, bool).reshape(-1, len(source))
        cut = (bits >> np.arange(len(self.modalities), dtype=np.uint16)[:, None]) & 1 == 1
        marks = np.stack([np.concatenate([x.any(axis=0, keepdims=True), x]) for x in (cut & there, there)])
        of_source = source == np.arange(len(self.sources))[:, None]
        return np.einsum("kmb,sb->smk", marks.astype(np.int32), of_source.astype(np.int32))

    def take(self, step: int) -> Counts:
        """The counts of that step's batch, which was read; drops those of steps before it."""
        for before in [number for number in list(self._counts) if number < step]:
            del self._counts[before]
        return self._counts.pop(step)


@dataclass(frozen=True)
class Lengths:
    """The `lengths` of some examples of a source, in the chain's units of `modality`."""

    source: str
    modality: str
    lengths: tuple[int, ...]

    def longer(self, length: int) -> int:
        """The number of examples longer than `length`."""
        return sum(one > length for one in self.lengths)

    def holds(self, share: float) -> int:
        """The least length that at least this share of the examples doesn't exceed."""
        return int(np.quantile(self.lengths, share, method="inverted_cdf"))


def sampled(
    chains: Chains, opened: Mapping[str, Records], seed: int, record_transforms: RecordTransforms | None = None
) -> list[Lengths]:
    """Measures the lengths of some examples of every source, drawn by `seed` and augmented as in training.

    At most SAMPLE of each, and no more than can be read in SECONDS, but at least one of each.
    """
    modalities, whole = can_be_cut(chains), record_transforms or RecordTransforms((), ())
    found = []
    for name, records in opened.items():
        until = time.monotonic() + SECONDS / len(opened)
        draw = np.random.default_rng((seed, zlib.crc32(name.encode())))
        of_record = np.random.default_rng((seed, zlib.crc32(name.encode()), 1))  # a stream apart from the chains' draws
        columns = whole.columns(records.columns)
        lengths: dict[str, list[int]] = {modality: [] for modality in modalities if modality in columns}
        places = draw.permutation(len(records))[:SAMPLE] if lengths else ()
        for place in places:
            record: Mapping[str, Any] = whole(records[int(place)], lambda name, stream=of_record: stream)
            for modality, known in lengths.items():
                if (length := chains.length(record, modality, draw)) is not None:
                    known.append(length)
            if time.monotonic() > until:
                break
        found += [Lengths(name, modality, tuple(known)) for modality, known in lengths.items() if known]
    return found
