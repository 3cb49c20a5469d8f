"""Confines an untrusted workdir: names in its record lead to no place that the user hasn't named.

Names that become files are plain (`names`). Tokenizers come from the workdir alone. Data that a record names is opened
in its place, with a message, and nothing is built, written or copied there. Links that lead out of a workdir are not
written through.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmjax.data.pipeline import Mixture
from mmjax.data.sources.contract import Source, nested_sources
from mmjax.data.sources.tfds import Tfds
from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.data.tokenizers.files import load_tokenizers
from mmjax.errors import UserError
from mmjax.runtime import copies
from mmjax.runtime.copies import TOKENIZERS


@dataclass(frozen=True)
class Record:
    """An experiment that was read from a record, not from a file of Python.

    source: the workdir, or the model, for messages. tokenizers: those beside the record, by modality. overrides: paths
    that the user has set by hand, `data.transforms.text.1.tokenizer.path`: these are trusted. trains: whether a
    tokenizer may be trained on captions, as a run that begins does; a checkpoint that is judged has its own. data:
    whether the data is the record's; else the user has named it.
    """

    source: str
    tokenizers: Mapping[str, Tokenizer]
    overrides: tuple[str, ...] = ()
    trains: bool = False
    data: bool = True


def record_of(source: str, overrides: Sequence[str] = ()) -> Record | None:
    """The record of the experiment that `mmjax train` was given, a workdir or a file; None for an experiment in a file
    of Python.

    overrides: `path=value`, as on the command line.
    """
    if source.endswith(".py") or source.rpartition(":")[0].endswith(".py"):
        return None
    folder = Path(source).parent if source.endswith(".json") else Path(source)
    paths = tuple(assignment.partition("=")[0].strip() for assignment in overrides)
    return Record(source, load_tokenizers(copies.whole(folder, TOKENIZERS)), paths, trains=True)


def models(record: Record, data: Mixture) -> dict[str, Tokenizer]:
    """The record's tokenizers of modalities whose tokenizer isn't trained on captions, and isn't named by the user."""
    wanted = {
        path.split(".")[2]
        for path, spec in _specs(data)
        if f"{path}.path" not in record.overrides and not (record.trains and spec.captions)
    }
    return {modality: tokenizer for modality, tokenizer in record.tokenizers.items() if modality in wanted}


def check_confined(record: Record, data: Mixture, kept: Mapping[str, Tokenizer], say: Callable[[str], None]) -> None:
    """Checks that the data can be prepared with only what the record may name; `say` gets a message with the places of
    its data.

    kept: the available tokenizers, the record's among them, by modality.

    Raises:
        UserError: a tokenizer is missing, or a dataset would have to be built in a place that the record names.
    """
    for path, spec in _specs(data):
        modality = path.split(".")[2]
        if modality in kept or f"{path}.path" in record.overrides:
            continue
        file = getattr(spec, "path", None)
        if file or not record.trains:
            named = f", and {file!r}, which its record names, isn't read" if file else ""
            raise UserError(
                f"{record.source} has no tokenizer of {modality!r}{named}: bring tokenizers/{modality}.* back, set "
                f"{path}.path, or train from the experiment's own file"
            )
    for path, source in _sources(data) if record.data else ():
        named = {field: place for field, place in source.places().items() if f"{path}.{field}" not in record.overrides}
        if named and (command := source.to_build()) is not None:
            said = ", ".join(f"{field}={place!r}" for field, place in named.items())
            raise UserError(
                f"{path} is in {said}, which the record of {record.source} names, and isn't there: nothing is built "
                f"where a record says; {command} builds it"
            )
    if record.data and (places := list(dict.fromkeys(_places(data)))):
        say(f"{record.source} names its data: {', '.join(places)}")


def check_folder(workdir: Path) -> None:
    """Checks that no link leads out of a workdir, before anything is written there.

    Raises:
        UserError: a link in it leads out, or something is neither a file nor a folder (a pipe would be waited for).
    """
    if "://" in str(workdir) or not workdir.is_dir():
        return
    home = os.path.realpath(workdir)
    for inside, folders, names in os.walk(workdir):
        for name in (*folders, *names):
            path = os.path.join(inside, name)
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:  # deleted meanwhile, as a checkpoint may be
                continue
            if stat.S_ISLNK(mode) and not Path(real := os.path.realpath(path)).is_relative_to(home):
                raise UserError(
                    f"{path} is a link to {real}, out of the workdir, and nothing is written through it: put what it "
                    "leads to in its place (the whole workdir may be a link)"
                )
            if not (stat.S_ISLNK(mode) or stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise UserError(f"{path} is neither a file nor a folder: take it away")


def _specs(data: Mixture) -> Iterator[tuple[str, TokenizerSpec]]:
    """Iterates over the descriptions of tokenizers, with their paths in the experiment."""
    for modality, chain in data.transforms.items():
        for place, transform in enumerate(chain):
            if isinstance(wanted := transform.vocabulary(), TokenizerSpec):
                yield f"data.transforms.{modality}.{place}.tokenizer", wanted


def _sources(data: Mixture) -> Iterator[tuple[str, Source]]:
    """Every source, those that others are made of too, with its path in the experiment."""
    for name in data.weights:
        for depth, source in enumerate(nested_sources(data.sources.get(name, Tfds(name)))):
            yield f"data.sources.{name}" + ".source" * depth, source


def _places(data: Mixture) -> Iterator[str]:
    """Iterates over files and folders that sources name, as absolute paths."""
    for _, source in _sources(data):
        yield from map(os.path.abspath, source.places().values())
