"""A model as it travels: what it is, its numbers, its tokenizers; and the folder that holds one.

digests.json          of the other files
experiment.json       the experiment, as in a workdir: towers, objectives, and how inputs become arrays
code/                 the files that define parts of one's own, if there are any
params.safetensors    every variable by its path, `params/towers_image/stem/kernel`
extras.safetensors    of another project's model what has no place in ours, if there is any
tokenizers/           each modality's
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import fiddle as fdl
import jax
import numpy as np
from etils import epath
from flax.core import meta
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax import __version__
from mmjax.data.pipeline import Mixture, batch_spec
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.files import load_tokenizers, save_tokenizers
from mmjax.errors import UserError, nearest
from mmjax.experiment import own_parts
from mmjax.experiment import record as records
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build
from mmjax.experiment.record import RECORD
from mmjax.objectives.cider_reward import FREQUENCIES
from mmjax.objectives.contrastive.key_queue import QUEUE
from mmjax.optim.optimizers import AdamW
from mmjax.runtime.files import archives, digests, json_text, output
from mmjax.runtime.files.own_code import Code

PARAMS, EXTRAS = "params.safetensors", "extras.safetensors"
TOKENIZERS = "tokenizers"
TRAINING = (QUEUE, FREQUENCIES)  # collections that exported models lack
LISTED = 8  # paths in a message, before it only counts


@dataclass(frozen=True)
class Bundle:
    """
    config: of an `Experiment`. One that another project trained has no sources of data (`Mixture({}, ...)`).
    variables: Linen's collections, nested dicts of numpy arrays, `params` among them.
    tokenizers: by modality.
    source: where it comes from, for messages.
    extras: arrays of another project's model that have no place in ours, by its names: BERT's next-sentence head, say.
        Ours don't train them; written for that project again, they are part of it.
    step: of the run, where it comes from a workdir.
    notes: lines to be said to whoever reads it: what of the files isn't as it is with their project.
    """

    config: fdl.Config
    variables: dict[str, Any]
    tokenizers: dict[str, Tokenizer] = field(default_factory=dict)
    source: str = ""
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    step: int | None = None
    notes: tuple[str, ...] = ()


def stand_in(
    towers: Mapping[str, fdl.Config],
    objectives: Mapping[str, fdl.Config],
    transforms: Mapping[str, Any],
    fusions: Mapping[str, fdl.Config] = MappingProxyType({}),
) -> fdl.Config:
    """The experiment of a model that another project trained: no data, and an optimiser that nobody has chosen yet."""
    return fdl.Config(
        Experiment,
        towers=dict(towers),
        objectives=dict(objectives),
        data=fdl.Config(Mixture, {}, dict(transforms)),
        optimizer=fdl.Config(AdamW, peak_lr=1e-5),
        batch_size=1,
        steps=1,
        **({"fusions": dict(fusions)} if fusions else {}),
    )


def save(bundle: Bundle, folder: str | Path, half: bool = False) -> Path:
    """Writes the folder, whole or not at all, and gives its path.

    half: float32 is stored as float16; `halved` gives the numbers that come back.

    Raises:
        UserError: there is something else in its place, or it can't be written.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    if folder.exists() and not is_bundle(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and is no exported model: give another folder")
    flat: dict[str, Any] = flatten_dict(bundle.variables, sep="/")
    with fresh_folder(folder) as part:
        (part / RECORD).write_text(records.dumps(bundle.config, bundle.source), encoding="utf-8")
        own_parts.write_code(own_parts.files_of(bundle.config), part)
        save_tokenizers(bundle.tokenizers, part / TOKENIZERS)
        arrays = {path: np.asarray(leaf, order="C") for path, leaf in flat.items()}
        if half:
            arrays = {path: leaf.astype(np.float16) if _single(leaf) else leaf for path, leaf in arrays.items()}
        save_file(arrays, part / PARAMS, metadata={"mmjax": __version__})
        if bundle.extras:
            save_file(bundle.extras, part / EXTRAS, metadata={"mmjax": __version__})
        digests.write(epath.Path(part))
    return folder


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """`output.replacing_folder`, whose errors of the disk are a user's too."""
    try:
        with output.replacing_folder(folder) as part:
            yield part
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror or error}): give another folder") from error


def halved(bundle: Bundle) -> Bundle:
    """The model with its float32 numbers rounded to those that 16 bits hold (11 bits of precision).

    Raises:
        UserError: a number is too large for them.
    """

    def rounded(path: tuple[Any, ...], leaf: Any) -> Any:
        if not _single(leaf):
            return leaf
        if np.abs(leaf).max(initial=0) > np.finfo(np.float16).max:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(f"{name} holds {np.abs(leaf).max():g}, which is too large for 16 bits: leave out --half")
        return leaf.astype(np.float16).astype(np.float32)

    return replace(bundle, variables=jax.tree_util.tree_map_with_path(rounded, bundle.variables))


def without_queues(bundle: Bundle) -> Bundle:
    """The model without the keys of earlier batches and the counts of the training split, which only training reads."""
    return replace(bundle, variables={name: parts for name, parts in bundle.variables.items() if name not in TRAINING})


def _single(array: Any) -> bool:
    return array.dtype == np.float32


def _unhalved(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def is_bundle(folder: Path) -> bool:
    """True for a folder that `save` wrote."""
    return (folder / PARAMS).is_file() and (folder / RECORD).is_file()


def read(folder: str | Path, code: Code = ()) -> Bundle:
    """Reads what `save` wrote. code: files of one's own that may be run, since the user has named them.

    Raises:
        UserError: a file is missing or broken, or the numbers aren't those of the experiment's model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    for name in (RECORD, PARAMS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no exported model: it has no {name}")
    text = json_text.text(folder / RECORD)
    try:
        config = records.loads(text, code, lambda: own_parts.kept_code(folder))
        table = archives.safetensors_table(folder / PARAMS)
    except UserError as error:
        raise UserError(f"{folder} can't be read: {error}{written_by(text)}") from error
    try:
        _check_shapes(config, table, str(folder))  # before a number is read
    except UserError as error:
        raise UserError(f"{error}{written_by(text)}") from error
    try:
        arrays = {path: _unhalved(array) for path, array in load_file(folder / PARAMS).items()}
        extras = load_file(folder / EXTRAS) if (folder / EXTRAS).is_file() else {}
    except SafetensorError as error:
        raise UserError(f"{folder} can't be read: {error}{written_by(text)}") from error
    if (folder / digests.NAME).is_file() and (problems := digests.problems(epath.Path(folder))):
        raise UserError(
            f"{folder} is damaged: {problems[0]}. Bring back what was there, export the model again, or, if the change "
            f"is meant, delete {digests.NAME}"
        )
    records.tell_changes(text, code, folder / RECORD)
    return Bundle(config, unflatten_dict(arrays, sep="/"), load_tokenizers(folder / TOKENIZERS), str(folder), extras)


def written_by(record: str) -> str:
    """The end of a message about a model that can't be read, where another version of mmjax wrote it; else empty."""
    try:
        version = records.version_of(record)
    except UserError:  # it is no record at all
        return ""
    if version == __version__:
        return ""
    return f"\nmmjax {version or '(of an unknown version)'} wrote it, and this is {__version__}: install that version"


def check_bundle(bundle: Bundle) -> None:
    """Compares the variables with those that the experiment's model has.

    Raises:
        UserError: lists what is missing, what has another shape, and what has no place; or says why there can be no
            such model.
    """
    _check_shapes(bundle.config, flatten_dict(bundle.variables, sep="/"), bundle.source)


def _check_shapes(config: fdl.Config, found: Mapping[str, Any], source: str) -> None:
    """`check` of what is known by its paths and shapes alone."""
    record = records.dumps(config)
    try:
        wanted = dict(_expected(record, own_parts.files_of(config)))
    except ValueError as error:  # UserError too: sizes of another project's config that don't go together
        raise UserError(f"{source or 'the model'}: {error}") from error
    given = {path: tuple(leaf.shape) for path, leaf in found.items()}
    for name in TRAINING:
        if not any(path.startswith(f"{name}/") for path in given):  # as in an exported model
            wanted = {path: shape for path, shape in wanted.items() if not path.startswith(f"{name}/")}
    problems = [
        f"{path} {shape} is missing{nearest(path, given)}" for path, shape in wanted.items() if path not in given
    ]
    problems += [
        f"{path} is {given[path]}, and the model's is {shape}"
        for path, shape in wanted.items()
        if path in given and given[path] != shape
    ]
    problems += [f"{path} {shape} has no place in the model" for path, shape in given.items() if path not in wanted]
    if problems:
        more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        lines = "\n".join(f"  {problem}" for problem in problems[:LISTED])
        raise UserError(f"{source or 'the model'} doesn't hold the experiment's parameters:\n{lines}{more}")


@functools.lru_cache(maxsize=8)
def _expected(record: str, code: Code) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The shape of every variable by its path. Tracing a model takes seconds, and many are read more than once."""
    flat: dict[str, Any] = flatten_dict(variables_of(build(records.loads(record, code))), sep="/")
    return tuple((path, leaf.shape) for path, leaf in flat.items())


def variables_of(experiment: Experiment) -> dict[str, Any]:
    """The shapes and dtypes of all that the experiment's model holds, `params` and other collections; nothing is
    computed."""
    pretrainer, batch = experiment.pretrainer(), batch_spec(experiment.data, batch_size=1)

    def every_part(pretrainer: Any, batch: Any) -> None:
        pretrainer.embed(batch)
        for name in experiment.fusions:
            pretrainer.fused(batch, name)

    def init() -> Any:
        if not experiment.objectives:  # an encoder alone
            return pretrainer.init(jax.random.key(0), batch, method=every_part)
        keys = {name: jax.random.key(0) for name in ("params", "mask", "dropout")}
        return pretrainer.init(keys, batch, train=False)

    return meta.unbox(jax.eval_shape(init))
