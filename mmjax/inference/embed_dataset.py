"""`mmjax embed`: the embeddings of a dataset, in shards, on any mesh; killed anywhere, it goes on where it stopped."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from rich.console import Console

from mmjax import __version__
from mmjax.data import embedding_files
from mmjax.data.embedding_files import Embeddings
from mmjax.data.evaluation import evaluation_count
from mmjax.data.kinds import entries
from mmjax.data.pipeline import Mixture
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.sources.contract import Source, nested_sources
from mmjax.data.sources.folder import table_like
from mmjax.data.sources.renamed import Renamed
from mmjax.data.sources.splits import WHOLE
from mmjax.data.sources.tables import is_table
from mmjax.data.sources.tfds import Tfds
from mmjax.data.transforms.image import seen_upright
from mmjax.errors import UserError, unknown
from mmjax.evaluate.benchmarks import BENCHMARKS, by_entries, model_kinds
from mmjax.evaluate.prepared_model import prepared_model, resolved
from mmjax.experiment import record as records
from mmjax.experiment.confined import Record
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.workdir import prepared
from mmjax.interop.bundle import Bundle
from mmjax.runtime import hosts
from mmjax.runtime.checkpoints import latest_step
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.runtime.files import output

ROWS = 8_192  # rows of a shard, about
BATCH = 256


def embed(
    source: str,
    data: str | None,
    out: str | Path,
    *,
    split: str | None = None,
    modalities: Sequence[str] | None = None,
    step: int | None = None,
    code: Any = None,
    rows: int = ROWS,
    batch_size: int = BATCH,
    console: Console | None = None,
) -> Path:
    """Embeds a split into a folder (`embeddings.read`), or the shards that it still lacks.

    split: None: the test split; for a table, all rows.
    source: whatever `mmjax.load` takes. data: a benchmark, another TFDS name, or a table of one's own files; None: the
    model's training data. modalities: some of the model's; None: those that the data has. step: of a workdir.
    code: as in `mmjax.load`.
    rows: of a shard; a folder that was begun keeps its own number. batch_size: over all devices. Every shard has
    batches of its own: whichever shards exist already, the files are the same, bit by bit, on machines that round
    alike. Of several hosts, which must share the folder, each writes its shards.

    Raises:
        UserError: model, data or settings are invalid, or the folder belongs to another model or other data.
    """
    out = output.local(out, "--out")
    use_compilation_cache()
    hosts.join()
    split = split or (WHOLE if data is not None and is_table(data) else "test")
    console = console or Console(highlight=False, quiet=not hosts.leads())
    if step is None and (Path(source) / "checkpoints").is_dir():
        step = hosts.first(lambda: latest_step(source))
    bundle = resolved(source, step, print, code)
    experiment: Experiment = build(bundle.config)
    mixture = hosts.together(lambda: chosen(experiment, data, split, modalities))
    given = Record(source, bundle.tokenizers, data=data is None or data in experiment.data.sources)
    models = {name: tokenizer for name, tokenizer in bundle.tokenizers.items() if name in mixture.transforms}
    say = partial(console.print, soft_wrap=True, markup=False)
    ready = prepared(mixture, None, (split,), models, given, say)
    count = evaluation_count(ready, split)
    if count == 0:
        raise UserError(f"the {split} split of {data or 'the data'} has no examples")
    told = {
        "mmjax": __version__,
        "model": {"source": source, "step": step, "digest": digest_of(bundle.variables)},
        "data": {
            "name": data or ", ".join(mixture.weights),
            "split": split,
            "digest": _data_digest(bundle, mixture, data, split),
        }
        | _renamed_columns(mixture, data),
        "modalities": dict.fromkeys(mixture.transforms),
        "words": [name for name, spec in ready.chains.specs.items() if spec.kind.words],
        "count": count,
        "rows": rows,
        "shards": -(-count // rows),
        "digests": None,
    }
    told = hosts.first(lambda: _begun(out, told))
    names = [embedding_files.shard_name(index, told["shards"]) for index in range(told["shards"])]
    missing = hosts.first(lambda: [i for i, name in enumerate(names) if not (out / f"{name}.safetensors").exists()])
    host, number = hosts.host()
    model = prepared_model(experiment, ready, min(batch_size, told["rows"]))
    with model.holding(bundle.variables) as variables:
        began, done = time.perf_counter(), 0
        for index in missing:
            part = range(index * told["rows"], min(count, (index + 1) * told["rows"]))
            embedded = model.embedder.split(variables, split, rows=part)
            found = Embeddings(embedded.embeddings, embedded.valid, embedded.columns, split, embedded.contents)
            write = partial(embedding_files.write_shard, out, names[index], found)
            hosts.together(write if index % number == host else lambda: None)
            done += len(part)
            pace = done / (time.perf_counter() - began)
            console.print(f"shard {index + 1}/{len(names)}  {done:,} examples, {pace:,.0f} a second", soft_wrap=True)
    hosts.wait()
    hosts.first(lambda: _complete(out, told, names))
    console.print(f"{count:,} examples in {out}, of {', '.join(told['modalities'])}", soft_wrap=True)
    return out


def chosen(experiment: Experiment, data: str | None, split: str, modalities: Sequence[str] | None) -> Mixture:
    """The data to embed, with the model's own transforms of the modalities that both have, or of the given ones.

    Pictures of a table of one's own are seen upright (`Decode.upright`). Record transforms are dropped for other data
    than the model's own: its inputs are columns.
    """
    own = experiment.data
    for modality in modalities or ():
        if modality not in own.transforms:
            raise UserError(unknown("--modalities", modality, own.transforms, "model's modalities"))
    if data is None:
        if not own.weights:
            raise UserError("the model brings no data of its own: name a dataset, or a table")
        weights, sources = own.weights, own.sources
    else:
        weights = {data: 1.0}
        sources = {data: _source(experiment, data, split)}
    transformed = own.record_transforms if data is None or data in own.weights else ()
    opened = [sources.get(name, Tfds(name)).open(split) for name in weights] if data else []
    there = RecordTransforms(transformed, tuple(own.transforms)).columns
    columns = {column for records in opened for column in there(records.columns)} if data else None
    names = [m for m in own.transforms if (m in modalities if modalities else columns is None or m in columns)]
    if not names:
        raise UserError(
            f"{data} has columns {', '.join(sorted(columns or ()))}, none of which the model reads: it reads "
            f"{', '.join(own.transforms)} (a table's columns are to have these names)"
        )
    transforms = {name: own.transforms[name] for name in names}
    if data is not None and is_table(data):
        transforms = {name: seen_upright(chain) for name, chain in transforms.items()}
    return replace(
        own, weights=weights, sources=sources, transforms=transforms, cache=False, record_transforms=transformed
    )


def _renamed_columns(mixture: Mixture, data: str | None) -> dict[str, Any]:
    """For the manifest: which columns of the dataset the model calls otherwise."""
    source = mixture.sources.get(data or "")
    return {"columns": source.names} if isinstance(source, Renamed) else {}


def _source(experiment: Experiment, data: str, split: str) -> Source:
    """What is to be embedded, its columns called as the model's entries are that read them."""
    own = experiment.data
    if data in own.sources:
        return own.sources[data]
    kinds = model_kinds(experiment)
    if data in BENCHMARKS:  # with its fields by their names here
        return by_entries(BENCHMARKS[data].source, entries(BENCHMARKS[data].modalities, kinds))
    media = [name for name, kind in kinds.items() if not kind.words]
    found = table_like(data, own.sources.values(), media) if is_table(data) else Tfds(data)
    return by_entries(found, entries(found.open(split).columns, kinds))


def _begun(out: Path, told: dict[str, Any]) -> dict[str, Any]:
    """The folder's manifest: a new one, or that of a folder that was begun, if its model and data are the same."""
    if not (out / embedding_files.MANIFEST).exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is there already and holds no embeddings: give another --out")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{out} can't be written ({error.strerror}): give another --out") from error
        embedding_files.write_manifest(out, told)
        return told
    there = embedding_files.manifest(out)
    for what, name in (("model", "source"), ("data", "name")):
        if there[what]["digest"] != told[what]["digest"]:
            mine, theirs = (
                f"{side[what][name]} ({detail} {side[what][detail]})"
                for side in (told, there)
                for detail in ("step" if what == "model" else "split",)
            )
            which = f"{theirs} there, {mine} here" if mine != theirs else f"{mine}, which has changed since"
            raise UserError(f"{out} holds embeddings by other {what}: {which}; give another --out")
    if list(there["modalities"]) != list(told["modalities"]) or there["count"] != told["count"]:
        raise UserError(
            f"{out} holds {there['count']:,} examples of {', '.join(there['modalities'])}, and here are "
            f"{told['count']:,} of {', '.join(told['modalities'])}: give another --out"
        )
    output.sweep(out)
    return there


def _complete(out: Path, told: dict[str, Any], names: Sequence[str]) -> None:
    digests = {name: embedding_files.digest(out, name) for name in names}
    changed = [name for name, digest in (told["digests"] or {}).items() if digests.get(name) != digest]
    if changed:
        raise UserError(f"{out / changed[0]} has changed since it was written: delete its files, and embed again")
    whole = {**told, "digests": digests}
    embedding_files.write_manifest(
        out, {**whole, "modalities": embedding_files.byte_sizes(out, names[0], told["modalities"])}
    )


def digest_of(variables: dict[str, Any]) -> str:
    """The digest of every name, shape, type and number of a model."""
    found = hashlib.blake2b(digest_size=16)
    for path, leaf in sorted(flatten_dict(variables, sep="/").items()):
        array = np.asarray(leaf)
        found.update(f"{path} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _data_digest(bundle: Bundle, mixture: Mixture, data: str | None, split: str) -> str:
    """The digest of how the data is read: all transforms, tokenizers, the sources' names, and tables' contents."""
    found = hashlib.blake2b(digest_size=16)
    record = records.dumps(bundle.config)
    text = json.loads(record)["experiment"]["data"]
    if not mixture.record_transforms:  # digests of older versions have no record transforms
        del text["record_transforms"]
    told = [text["transforms"], None if data else text, data, split]
    told += [text["record_transforms"]] if mixture.record_transforms else []
    found.update(json.dumps(told, sort_keys=True).encode())
    if code := records.code_of(record):  # the record lacks its computation
        found.update(json.dumps(code, sort_keys=True).encode())
    for name, tokenizer in sorted(bundle.tokenizers.items()):
        found.update(name.encode() + hashlib.blake2b(tokenizer.model).digest())
    for source in (inner for each in mixture.sources.values() for inner in nested_sources(each)):
        if (file := source.index_file()) is not None:
            found.update(Path(file).expanduser().read_bytes())
    return found.hexdigest()
