"""A model by whatever names it: a workdir, a folder or file of any project, a name of a hub -> a `Bundle`.

Everything that takes a model takes it from here: load, evaluate, export, import, and towers that start from another's.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from etils import epath

from mmjax.data.tokenizers.files import load_tokenizers
from mmjax.errors import UserError, nearest
from mmjax.experiment import own_parts
from mmjax.experiment import record as records
from mmjax.experiment.record import RECORD
from mmjax.interop import bundle as bundles
from mmjax.interop import hub, projects
from mmjax.interop.bundle import PARAMS, TOKENIZERS, Bundle
from mmjax.runtime import copies
from mmjax.runtime.checkpoints import latest_step, restore_variables
from mmjax.runtime.files import json_text, own_code, regular
from mmjax.runtime.files.own_code import Code


def forms() -> str:
    """Lists what a model may be."""
    return (
        f"a workdir of a run ({RECORD}, checkpoints/), a folder that mmjax export wrote ({RECORD}, {PARAMS}), "
        f"{projects.foreign_forms()}, or a name: hf:ORG/NAME, open_clip:MODEL/WEIGHTS, bv:gs://....npz"
    )


def resolve(
    source: str | os.PathLike[str],
    *,
    step: int | None = None,
    ema: bool = True,
    code: Any = None,
    say: Callable[[str], None] = print,
) -> Bundle:
    """The model at `source`, its numbers in numpy arrays.

    source: see `forms`; a path may lie in a bucket (gs://...).
    step: which checkpoint of a workdir; None: the latest.
    ema: whether the moving average of the parameters is taken, where a checkpoint has one.
    code: a file, or several, that may be run for the parts of one's own that the model's record names.
    say: is told what was fetched, and what of a model's files is read otherwise than it stands there.

    Raises:
        UserError: there is nothing, or nothing that can be read; says what is near, and what there may be.
    """
    name = os.fspath(source)
    if hub.is_name(name):
        _no_step(step, name)
        return hub.fetched(name, say)
    path = epath.Path(name).expanduser() if "://" not in name else _bucket(name)
    if not path.exists():
        raise UserError(_nothing(name, path))
    if path.name == RECORD:
        path = path.parent
    if path.is_dir() and not (path / PARAMS).exists() and copies.whole(path, RECORD).exists():
        return _of_workdir(path, step, ema, own_code.named(code))
    _no_step(step, name)
    if "://" not in name:
        return replace(_told(_of_files(Path(path), code), say), source=name)
    with tempfile.TemporaryDirectory() as folder:  # what reads it reads files of this machine
        return replace(_told(_of_files(_copied(path, Path(folder) / path.name), code), say), source=name)


def _told(bundle: Bundle, say: Callable[[str], None]) -> Bundle:
    for note in bundle.notes:
        say(note)
    return bundle


def _of_files(path: Path, code: Any) -> Bundle:
    if path.is_dir() and bundles.is_bundle(path):
        return bundles.read(path, own_code.named(code))
    for project in projects.PROJECTS.values():
        if project.owns(path):
            return project.read(path)
    if path.is_dir():
        inner = sorted(p.name for p in path.iterdir() if p.is_dir() and (p / RECORD).exists())
        within = f"; in it there is {', '.join(inner[:5])}" if inner else ""
        raise UserError(f"{path} holds no model{within}. A model is {forms()}")
    raise UserError(
        f"{path} is no model: a file must be {projects.suffixes()}, or flax's msgpack. A model is {forms()}"
    )


def _of_workdir(path: epath.Path, step: int | None, ema: bool, code: Code) -> Bundle:
    if "://" not in str(path):
        regular.check_inside(path)  # a checkpoint is many files, which others open
    text = json_text.text(copies.whole(path, RECORD))
    try:
        config = records.loads(text, code, lambda: own_parts.kept_code(path))
    except UserError as error:
        raise UserError(f"{path / RECORD}: {error}{bundles.written_by(text)}") from error
    records.tell_changes(text, code, path / RECORD)
    latest = latest_step(str(path))
    if latest is None:
        going_on = "" if "://" in str(path) else f": mmjax train {path} --workdir {path} goes on with it"
        raise UserError(f"{path} has no checkpoint yet{going_on}")
    step = latest if step is None else step
    variables = restore_variables(str(path), step, ema=ema)
    with tempfile.TemporaryDirectory() as folder:
        tokenizers = copies.whole(Path(path), TOKENIZERS)
        if "://" in str(path) and (path / TOKENIZERS).is_dir():
            tokenizers = _copied(path / TOKENIZERS, Path(folder) / TOKENIZERS)
        bundle = Bundle(config, variables, load_tokenizers(tokenizers), str(path), step=step)
    try:
        bundles.check_bundle(bundle)
    except UserError as error:
        raise UserError(f"{error}{bundles.written_by(text)}") from error
    return bundle


def _no_step(step: int | None, name: str) -> None:
    if step is not None:
        raise UserError(f"step={step}: {name} has no steps; a workdir of a run has")


def _bucket(name: str) -> epath.Path:
    try:
        return epath.Path(name)
    except KeyError:
        raise UserError(f"{name}: buckets are gs://, s3:// and az://") from None


def _copied(path: epath.Path, to: Path) -> Path:
    """A file or folder of a bucket, on this machine."""
    if not path.is_dir():
        with path.open("rb") as source, to.open("wb") as target:
            shutil.copyfileobj(source, target)
        return to
    to.mkdir()
    for inner in path.iterdir():
        _copied(inner, to / inner.name)
    return to


def _nothing(name: str, path: epath.Path) -> str:
    """The error for a name where nothing is."""
    scheme, colon, _ = name.partition(":")
    if colon and "://" not in name and re.fullmatch(r"\w{2,}", scheme):
        kinds = [f"{kind}:" for kind in hub.KINDS]
        return f"there is no {name!r}{_ended(nearest(scheme + ':', kinds))} A model is {forms()}"
    near = ""
    if path.parent.is_dir():
        near = nearest(path.name, [other.name for other in path.parent.iterdir()])
    if not near:
        near = hub.near(name)
    return f"there is no {name!r}{_ended(near)} A model is {forms()}"


def _ended(hint: str) -> str:
    """A hint as the end of a sentence: with a full stop where it is no question."""
    return hint or "."
