"""Features for a tree, wherever they come from: a file, the output of `mmjax embed`, or the chain of an experiment."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress

from mmjax.data import embedding_files
from mmjax.data.evaluation import evaluation_batches, evaluation_count
from mmjax.data.pipeline import Prepared
from mmjax.data.transforms.visual_words import VisualWords
from mmjax.errors import UserError, unknown
from mmjax.experiment import record as records
from mmjax.experiment.confined import record_of
from mmjax.experiment.graph import build
from mmjax.experiment.load import load_experiment
from mmjax.experiment.workdir import prepared
from mmjax.runtime.files import output, regular

BATCH = 32  # examples that are read at a time


class Collected(NamedTuple):
    """Features [N, D] mapped from a file. temporary: the file, where it was made for the fit."""

    features: np.ndarray
    temporary: Path | None


def is_vectors(source: str) -> bool:
    """True for a file of vectors, or a folder of `mmjax embed`: what is no experiment."""
    return source.endswith(".npy") or (Path(source) / embedding_files.MANIFEST).is_file()


def from_file(path: str) -> Collected:
    """The array of a `.npy`, mapped. Raises UserError where it can't be read."""
    try:
        regular.check(path)
        found = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as an array: {error}") from error
    return Collected(found, None)


def from_embeddings(folder: str, entry: str | None, out: Path, say: Callable[[str], None]) -> Collected:
    """The vectors of one modality in a folder of `mmjax embed`, those of examples that have it.

    Raises UserError where there are several and none is named, and as reading it does.
    """
    manifest = embedding_files.manifest(folder)
    known = list(manifest["modalities"])
    if entry is None and len(known) > 1:
        raise UserError(f"{folder} has embeddings of {', '.join(known)}: say which by --entry")
    name = entry or known[0]
    if name not in known:
        raise UserError(unknown("--entry", name, known, "embeddings there"))
    key = json.dumps([manifest["digests"], name], sort_keys=True)

    def rows() -> Iterator[np.ndarray]:
        missing = 0
        for shard in embedding_files.shards(folder, (name,)):
            valid = shard.valid[name]
            missing += int((~valid).sum())
            yield shard.embeddings[name][valid]
        if missing:
            say(f"{missing:,} examples of {folder} have no {name}, and are left out")

    return _kept(out, key, rows())


def from_experiment(
    source: str,
    out: Path,
    *,
    entry: str | None,
    split: str,
    examples: int | None,
    overrides: Sequence[str],
    code: Any,
    console: Console,
    say: Callable[[str], None],
) -> Collected:
    """The features that an experiment's own chain makes of a split, once and in order, as in evaluation: what comes to
    its `VisualWords`. Bad examples are left out.

    entry: None: the only one that ends so. examples: so many, spread evenly over the split; None: all.

    Raises UserError where no such chain is, or where it makes no features, and as preparing data does.
    """
    config = load_experiment(source, overrides, code)
    mixture = build(config).data
    ending = {name: _before(chain) for name, chain in mixture.transforms.items() if _before(chain) is not None}
    if not ending:
        raise UserError(f"{source} has no chain with VisualWords, whose features could be clustered")
    if entry is None and len(ending) > 1:
        raise UserError(f"{source} has VisualWords in {', '.join(ending)}: say which by --entry")
    name = entry or next(iter(ending))
    if name not in ending:
        raise UserError(unknown("--entry", name, ending, "entries with VisualWords"))
    if not ending[name]:
        raise UserError(
            f"{source}: the chain of {name!r} begins with VisualWords, and makes no features itself: save them as a "
            ".npy [N, D], and give that"
        )
    only = replace(mixture, transforms={name: ending[name]}, cache=False)
    given = record_of(source, overrides)
    ready = prepared(only, None, (split,), None, given, say)
    if len(ready.chains.specs[name].shape) != 2:
        raise UserError(f"{source}: what comes before VisualWords in {name!r} makes no features [T, D]")
    count = evaluation_count(ready, split)
    rows = range(count)
    if examples is not None and examples < count:
        rows = range(0, count, count // examples)[:examples]
    read = None if mixture.record_transforms else (name,)  # as for a run: they may read any column
    data = {source_name: found.fingerprint(read) for source_name, found in ready.open(split).items()}
    described = json.loads(records.dumps(config))["experiment"]["data"]
    told = [
        described["transforms"][name],
        described["record_transforms"],
        data,
        split,
        [rows.start, rows.stop, rows.step],
    ]
    key = json.dumps(told, sort_keys=True, default=str)
    return _kept(out, key, _made(ready, name, split, rows, console, say))


def _before(chain: Sequence[Any]) -> tuple[Any, ...] | None:
    """The steps before VisualWords; None where there is none."""
    place = next((i for i, step in enumerate(chain) if isinstance(step, VisualWords)), None)
    return None if place is None else tuple(chain[:place])


def _made(
    ready: Prepared, entry: str, split: str, rows: range, console: Console, say: Callable[[str], None]
) -> Iterator[np.ndarray]:
    good = 0
    with _bar(console, f"features of {entry}", len(rows)) as advance:
        for batch, columns in evaluation_batches(ready, split, BATCH, columns=("id",), rows=rows):
            real = batch[f"{entry}_valid"]
            mask = batch.get(f"{entry}_mask", np.ones(batch[entry].shape[:2], bool)) & real[:, None]
            good += int(real.sum())
            advance(len(columns["id"]))
            yield batch[entry][mask]
    say(f"{good:,} of {len(rows):,} examples of {split} have features" + ("" if good else ": nothing can be fitted"))


def _kept(out: Path, key: str, pieces: Iterable[np.ndarray]) -> Collected:
    """Features in a file beside `out`, which is there already where a fit of the same was stopped.

    The file is a `.npy` of float32: its head is written last, in the room that is left for it.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    path = out.with_name(f"{out.stem}.{digest}.features.npy")
    if not path.exists():
        try:
            _write(path, pieces)
        except OSError as error:
            raise UserError(f"{path} can't be written ({error.strerror}): give another --out") from error
    return Collected(np.load(path, mmap_mode="r"), path)


def _write(path: Path, pieces: Iterable[np.ndarray]) -> None:
    count, width = 0, 0
    head = {"descr": "<f4", "fortran_order": False}
    with output.replacing(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**head, "shape": (0, 0)})  # numpy leaves room for longer numbers
        begin = file.tell()
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, "<f4").tobytes())
            count, width = count + len(piece), piece.shape[1]
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**head, "shape": (count, width)})
        assert file.tell() == begin


@contextmanager
def _bar(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; yields the function that advances it."""
    if not console.is_terminal or console.quiet:
        yield lambda count: None
        return
    with Progress(console=console, transient=True) as bars:
        task = bars.add_task(title, total=total)
        yield lambda count: bars.advance(task, count)
