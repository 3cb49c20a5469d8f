"""Batches: a pure function of the mixture, the seed and the step, the same for any number of hosts and workers.

A batch is a flat dict of arrays, batch first: `image` uint8 [B, H, W, 3]; `text` int32 [B, L] with `text_mask` bool;
`audio` int16 [B, T] with `audio_mask` bool, real samples first; `<modality>_valid` bool [B]; `index` uint32 [B], the
row in the global batch; `id` uint32 [B, 2], the example. A bad or missing example is zeros with valid False, and a bad
one has its kind in `<modality>_bad`, uint8 [B] (`BadExample.code`; else 0). Further labels of a chain are entries too:
`text_next` and `text_types` of `SentencePair`.
"""

import itertools
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy
from rich.progress import track

from mmjax.data.chains import Chains, Row, captions, chain_specs, identity, row_spec, untrained
from mmjax.data.cuts import Cuts
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.sources.contract import Records, Source
from mmjax.data.sources.every_caption import expanded
from mmjax.data.sources.splits import SplitNotFoundError
from mmjax.data.sources.tfds import Tfds
from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.data.transforms.contract import RecordTransform, Transform
from mmjax.data.workers.readers import Readers
from mmjax.errors import UserError, nearest
from mmjax.runtime.files import own_code

with epy.lazy_imports():  # it brings jax and Orbax, which nothing else here needs
    import grain

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Mixture:
    """The training data: sources by weight, and the transforms of their examples to arrays.

    `weights` say how often each source is drawn from (they need not add up to 1). A name is looked up in `sources`
    first, else it is a TFDS dataset. `transforms` holds the chain of each modality that the batch is to have; a source
    may lack a modality. `workers` processes read and transform, 0 means a thread of this process for each of the
    `prefetch` batches that are read ahead. `cache` keeps every training example in memory (each worker its own) as it
    is before the first random transform of each chain: for data that fits there. `record_transforms` change the whole
    record of an example before its chains read it (`RecordTransform`): they may make inputs that no source has.
    """

    weights: dict[str, float]
    transforms: dict[str, tuple[Transform, ...]]
    sources: dict[str, Any] = field(default_factory=dict)
    workers: int = 0
    prefetch: int = 2
    cache: bool = False
    record_transforms: tuple[RecordTransform, ...] = ()


class Prepared:
    """A mixture with trained or loaded tokenizers, made by `prepare`. The caller must save `chains.tokenizers` with the
    run."""

    def __init__(self, mixture: Mixture, chains: Chains, data_dir: str | None):
        self.mixture, self.chains, self.data_dir = mixture, chains, data_dir
        self.record_transforms = RecordTransforms(mixture.record_transforms, tuple(mixture.transforms))
        self._opened: dict[str, dict[str, Records]] = {}
        self._judged: dict[str, dict[str, Records]] = {}

    def open(self, split: str) -> dict[str, Records]:
        """The records of every source that has the split, by the source's name.

        Raises `SplitNotFoundError` where none has it, UserError where none of them has a modality of the chains.
        """
        if split not in self._opened:
            self._opened[split] = _open(self.mixture, split, self.data_dir)
        return self._opened[split]

    def judged(self, split: str) -> dict[str, Records]:
        """The records as `open` gives them, for evaluation: where a table has lists of captions, a row for each
        caption.
        """
        if split not in self._judged:
            opened = self.open(split)
            texts = [modality for modality, spec in self.chains.specs.items() if spec.kind.words]
            self._judged[split] = {name: expanded(records, texts) for name, records in opened.items()}
        return self._judged[split]


def prepare(
    mixture: Mixture,
    *,
    data_dir: str | None = None,
    tokenizers: Mapping[str, Tokenizer] | None = None,
    progress: bool = False,
) -> Prepared:
    """Makes the mixture ready: builds the datasets that can be built, and finds or trains the tokenizers.

    `data_dir` is where datasets and tokenizers are kept (TFDS_DATA_DIR, else ~/tensorflow_datasets). `tokenizers`, by
    modality, are taken as they are (a checkpoint's own), the others are trained on the captions of the training split:
    one for all chains that describe it alike, on the captions of all of them. Raises UserError where the mixture is
    invalid: no weights, a chain without a fixed shape, an unknown field or split.
    """
    _check(mixture)
    models = dict(tokenizers or {})
    described = untrained(mixture.transforms)
    for modality, wanted in described.items():
        if modality not in models:
            alike = [other for other, spec in described.items() if spec == wanted]
            known = next((models[other] for other in alike if other in models), None)
            models[modality] = known or _tokenizer(mixture, wanted, alike, data_dir, progress)
    return Prepared(mixture, Chains(mixture.transforms, models), data_dir)


def batch_spec(mixture: Mixture, batch_size: int) -> Row:
    """The shapes and dtypes of a global batch, without reading data: arrays of zeros that take no
    memory (read-only).
    """
    rows = {**row_spec(chain_specs(mixture.transforms)), "index": ((), "uint32"), "id": ((2,), "uint32")}
    return {name: np.broadcast_to(np.zeros((), dtype), (batch_size, *shape)) for name, (shape, dtype) in rows.items()}


def batches(
    mixture: Mixture | Prepared,
    *,
    batch_size: int,
    seed: int,
    step: int = 0,
    host: tuple[int, int] = (0, 1),
    split: str = "train",
    cuts: Cuts | None = None,
) -> Iterator[Row]:
    """Iterates over this host's rows of the global batches from `step` on, without end.

    `batch_size` is the global one; `host` is (index, count), and host i has the rows from i · B/n on. Every source is
    shuffled anew in each epoch. The iterator has `close()`, which ends its threads and processes. `cuts` (`cuts_of`)
    counts the texts and sounds of each batch that were cut off; the batches are the same without it. Raises UserError
    where the hosts don't divide the batch; the iterator, `readers.ReaderError` where a process that reads was killed.
    """
    prepared = mixture if isinstance(mixture, Prepared) else prepare(mixture)
    rows = host_rows(batch_size, host)
    opened = prepared.open(split)
    if missing := [name for name in prepared.mixture.weights if name not in opened]:
        raise SplitNotFoundError(f"{', '.join(missing)} has no split {split!r}, so it can't be trained on")
    make = _TrainingRow(prepared, opened, seed, batch_size, cuts)
    stream = _places(prepared.mixture, opened, seed)
    # Batched first and sliced after: the global batch is the same for any number of hosts (and so is resuming a slice).
    index, count = host
    mine = stream.map_with_index(make).batch(rows)[step * count + index :: count]
    stream = _iterated(mine, prepared.mixture)
    return stream if cuts is None else cuts.counted(stream, step)


def cuts_of(prepared: Prepared) -> Cuts:
    """New counts, for `batches`."""
    return Cuts(tuple(prepared.mixture.weights), prepared.chains)


def examples(
    prepared: Prepared,
    *,
    batch_size: int,
    seed: int,
    step: int,
    rows: Iterable[int] | None = None,
    split: str = "train",
) -> list[tuple[str, str]]:
    """The records of the rows of a training batch: (source, id), in the global batch's order.

    rows: only of these rows, in their order.
    """
    opened = prepared.open(split)
    places = _places(prepared.mixture, opened, seed)
    found: list[Any] = [places[step * batch_size + row] for row in (range(batch_size) if rows is None else rows)]
    return [(name, str(opened[name][index]["id"])) for name, index in found]


def _places(mixture: Mixture, opened: Mapping[str, Records], seed: int) -> "grain.MapDataset":
    """The stream of training, place by place: (source, index of the record).

    Indices alone go through shuffle, repeat and mix: the place in the stream decides the example and its randomness.
    """
    parts = [
        grain.MapDataset.range(len(records))
        .shuffle(seed=int(np.random.SeedSequence((seed, zlib.crc32(name.encode()))).generate_state(1)[0]))
        .repeat(None)
        .map(_Tag(name))
        for name, records in opened.items()
    ]
    return grain.MapDataset.mix(parts, [mixture.weights[name] for name in opened]) if len(parts) > 1 else parts[0]


class _Tag:
    """Maps a record's index to (its source's name, index)."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, index: int) -> tuple[str, int]:
        return self.name, index


class _TrainingRow:
    """Maps (place in the stream, (source, index)) to a row of a batch."""

    def __init__(
        self, prepared: Prepared, opened: Mapping[str, Records], seed: int, batch_size: int, cuts: Cuts | None
    ):
        self.chains, self.opened, self.seed, self.batch_size = prepared.chains, opened, seed, batch_size
        self.cuts = cuts
        self.record_transforms = prepared.record_transforms
        self.kept: dict[tuple[str, int], Mapping[str, Any]] | None = {} if prepared.mixture.cache else None

    def __call__(self, place: int, where: tuple[str, int]) -> Row:
        name, index = where

        rng = partial(random_stream, self.seed, place)
        begun = self.kept is not None and self.record_transforms.settled
        if self.kept is None:
            record = self.record_transforms(self.opened[name][index], rng)
        else:
            if (record := self.kept.get(where)) is None:
                record = self.record_transforms.begin(self.opened[name][index])
                record = self.kept[where] = self.chains.begin(record) if begun else record
            record = self.record_transforms.finish(record, rng)
        row, cut = self.chains.row_and_cuts(record, rng, begun=begun)
        row |= identity(place % self.batch_size, name, record["id"])
        return row if self.cuts is None else row | self.cuts.entry(name, cut)


def random_stream(seed: int, place: int, name: str) -> np.random.Generator:
    """The random generator of a chain, or of the record transforms, for the example at a place of the stream of
    examples.

    Each has its own: a change of one leaves the others' draws alone.
    """
    key = (seed, zlib.crc32(name.encode()))
    return np.random.Generator(np.random.Philox(key=key, counter=(0, 0, 0, place)))


def _iterated(dataset: Any, mixture: Mixture) -> Iterator[Row]:
    if mixture.workers:
        return Readers(dataset, mixture.workers, mixture.prefetch, own_code.of_parts(mixture))
    options = grain.ReadOptions(num_threads=mixture.prefetch, prefetch_buffer_size=mixture.prefetch)
    return iter(dataset.to_iter_dataset(options))


def host_rows(batch_size: int, host: tuple[int, int]) -> int:
    """The number of rows of a host. Raises UserError where the hosts don't divide the batch."""
    index, count = host
    if not 0 <= index < count:
        raise UserError(f"host={host} must be (index, count) with 0 <= index < count")
    if batch_size <= 0 or batch_size % count:
        near = max(1, round(batch_size / count)) * count
        raise UserError(f"batch_size={batch_size} must be a multiple of the {count} hosts: {near} would do")
    return batch_size // count


def _check(mixture: Mixture) -> None:
    for modality, chain in mixture.transforms.items():
        if misplaced := [transform for transform in chain if isinstance(transform, RecordTransform)]:
            raise UserError(
                f"Mixture(transforms={{{modality!r}: ...}}): {misplaced[0]!r} changes the whole record: it goes into "
                "record_transforms"
            )
    for transform in mixture.record_transforms:
        if not isinstance(transform, RecordTransform):
            raise UserError(
                f"Mixture(record_transforms=...): {transform!r} is no RecordTransform: a transform of one input goes "
                "into its chain, in transforms"
            )
    chain_specs(mixture.transforms)
    if not mixture.weights:
        raise UserError("Mixture(weights={}): name at least one source, such as {'spoken_emoji': 1.0}")
    for name, weight in mixture.weights.items():
        if not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise UserError(
                f"Mixture(weights={{{name!r}: {weight!r}}}): a weight is above 0 and finite; or leave the source out"
            )
    if unused := [name for name in mixture.sources if name not in mixture.weights]:
        hint = nearest(unused[0], mixture.weights)
        raise UserError(f"Mixture(sources=...): {', '.join(unused)} has no weight{hint}")


def _source(mixture: Mixture, name: str) -> Source:
    return mixture.sources[name] if name in mixture.sources else Tfds(name)


def _open(mixture: Mixture, split: str, data_dir: str | None) -> dict[str, Records]:
    opened: dict[str, Records] = {}
    reasons = []
    for name in mixture.weights:
        try:
            opened[name] = _opened(name, _source(mixture, name), split, data_dir)
        except SplitNotFoundError as error:
            reasons.append(error)
    if not opened:
        raise SplitNotFoundError("; ".join(map(str, reasons)))
    columns = RecordTransforms(mixture.record_transforms, tuple(mixture.transforms)).columns
    known = {column for records in opened.values() for column in columns(records.columns)}
    for modality in mixture.transforms:
        if modality not in known:
            raise UserError(
                f"Mixture(transforms={{{modality!r}: ...}}): no source has such a modality, there are "
                f"{', '.join(sorted(known))}{nearest(modality, known) or _renaming(mixture, modality)}"
                + ("; what a record transform adds, its columns() names" if mixture.record_transforms else "")
            )
    return opened


def _opened(name: str, source: Any, split: str, data_dir: str | None) -> Records:
    where = f"Mixture(sources={{{name!r}: {type(source).__name__}(...)}})"
    if not isinstance(source, Source):
        raise UserError(f"{where} is no source: its class must be a mmjax.data.Source")
    records = source.open(split, data_dir)
    if not isinstance(records, Records) or "id" not in records.columns:
        raise UserError(f"{where}: its open() must give mmjax.data.Records that have columns, 'id' among them")
    return records


def _renaming(mixture: Mixture, modality: str) -> str:
    """What the first source that knows says of how a column is renamed."""
    return next(filter(None, (source.renaming(modality) for source in mixture.sources.values())), "")


def _tokenizer(
    mixture: Mixture, wanted: TokenizerSpec, modalities: Sequence[str], data_dir: str | None, progress: bool
) -> Tokenizer:
    """The tokenizer that the chains of these modalities describe, trained on their captions if it is."""
    lines = None
    if most := wanted.captions:
        parts = (_captions(mixture, modality, most, data_dir, progress) for modality in modalities)
        lines = itertools.chain.from_iterable(parts)
    return wanted.load(lines, _data_dir(data_dir) / "tokenizers")


def _captions(mixture: Mixture, modality: str, most: int, data_dir: str | None, progress: bool) -> Iterator[str]:
    """The training captions as they reach the tokenizer, in a stable order; of more than `most` records, every n-th.

    Record transforms draw as in training, so that the tokenizer learns from all that they may pick.
    """
    whole = RecordTransforms(mixture.record_transforms, (modality,))
    for name, records in _open(mixture, "train", data_dir).items():
        if modality in whole.columns(records.columns):
            indices = range(0, len(records), -(-len(records) // most))
            for index in track(indices, f"Captions of {name}", disable=not progress, transient=True):
                record = whole(records[index], partial(random_stream, 0, index))
                yield from captions(record, modality, mixture.transforms[modality])


def _data_dir(data_dir: str | None) -> Path:
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
