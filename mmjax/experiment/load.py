"""Experiments by name: `file.py:name`, a workdir, or a record."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import fiddle as fdl
from etils import epath
from fiddle.experimental import auto_config

from mmjax.errors import UserError, closest, meant, nearest
from mmjax.experiment import own_parts
from mmjax.experiment import record as records
from mmjax.experiment.definition import Experiment
from mmjax.experiment.graph import build, complete, target
from mmjax.experiment.overrides import override
from mmjax.experiment.record import RECORD
from mmjax.runtime import copies
from mmjax.runtime.files import json_text, own_code

P = ParamSpec("P")


R = TypeVar("R")


def experiment(function: Callable[P, R]) -> Callable[P, R]:
    """Marks a function that returns an `Experiment`, or a part of one, as readable without being called.

    A marked function can be called as before; inside another one it becomes part of that one's graph. Loops, conditions
    and comprehensions are fine. A file's experiments are those annotated `-> Experiment` that need no arguments.
    """
    mark = auto_config.auto_config(
        experimental_allow_control_flow=True,
        experimental_allow_dataclass_attribute_access=True,
        experimental_result_must_contain_buildable=False,  # a helper may return a tuple of numbers
    )
    return mark(function)


def load_experiment(source: str, overrides: Iterable[str] = (), code: Any = None) -> fdl.Config:
    """Loads the experiment at `source`, complete with its defaults, applies `path=value` overrides, and checks it.

    source: `file.py:name`; `file.py`, for its first function annotated `-> Experiment`; a workdir; or an
    experiment.json. `experiment_name` says which one it was. code: a file, or several, that may be run for the parts of
    one's own that a record names; where its digest isn't the record's, there is a warning.

    Raises:
        UserError: an unknown file, name or path (the message has the nearest), or an invalid experiment.
    """
    config, _ = _load(source, code, told=True)
    config = complete(config)
    for assignment in overrides:
        override(config, assignment)
    build(config)
    return config


def experiment_name(source: str, code: Any = None) -> str:
    """The full name of the experiment that `load_experiment(source)` returns: `file.py:name`, also for a workdir."""
    return _load(source, code, told=False)[1]


def file_of(source: str) -> tuple[str, str]:
    """The file of Python and the name in it that `source` refers to; both empty for any other source."""
    file, colon, name = source.rpartition(":")
    if not (colon and file.endswith(".py")):
        file, name = source, ""
    return (file, name) if file.endswith(".py") else ("", "")


def own_digests(source: str, config: fdl.Config) -> dict[str, str]:
    """The digests of the files that define parts of one's own in the experiment at `source`, by name; for a record,
    those that it holds.
    """
    if file_of(source)[0]:
        return own_parts.digests_of(own_parts.files_of(config))
    return records.code_of(json_text.text(_record(source)))


def _load(source: str, code: Any, told: bool) -> tuple[fdl.Config, str]:
    if file_of(source)[0]:
        return _from_file(*file_of(source))
    record, named = _record(source), own_code.named(code)
    folder = epath.Path(source).parent if source.endswith(".json") else epath.Path(source)
    text = json_text.text(record)
    try:
        config = records.loads(text, named, lambda: own_parts.kept_code(folder))
    except UserError as error:
        raise UserError(f"{record}: {error}") from error
    if told:
        records.tell_changes(text, named, record)
    return config, records.name_of(text) or str(record)


def _record(source: str) -> Any:
    """The path of the record that `source` refers to, or of a whole copy."""
    record: Any = epath.Path(source)
    if record.suffix != ".json":
        record /= RECORD
    if record.name == RECORD and "://" not in source:
        record = copies.whole(Path(record.parent), RECORD)
    if not record.exists():
        raise UserError(
            f"{source!r} is neither an experiment (file.py or file.py:name) nor a workdir nor an {RECORD}"
            f"{_near_files(source)}"
        )
    return record


def _from_file(file: str, name: str) -> tuple[fdl.Config, str]:
    path = Path(file)
    if not path.is_file():
        raise UserError(f"there is no file {file!r}{_near_files(file)}")
    read = own_code.read_own(path)
    module = own_code.load_own(read)
    with own_code.importable(read):
        marked = {k: v for k, v in vars(module).items() if isinstance(v, auto_config.AutoConfig)}
        own = [k for k, v in marked.items() if v.func.__module__ == module.__name__ and _is_whole(v.func)]
        if not name and not own:
            raise UserError(f"{file} has no experiment: a function marked @experiment and annotated -> Experiment")
        name = name or own[0]
        if name not in marked:
            why = "isn't marked @experiment" if name in vars(module) else "isn't in it"
            raise UserError(f"{file}:{name}: {name!r} {why}; its experiments: {', '.join(own)}{nearest(name, own)}")
        try:
            inspect.signature(marked[name].func).bind()
        except TypeError as error:
            raise UserError(f"{file}:{name} can't be run alone ({error}); its experiments: {', '.join(own)}") from None
        config = marked[name].as_buildable()
    if not isinstance(config, fdl.Config) or target(config) is not Experiment:
        raise UserError(f"{file}:{name} gives no Experiment but a part of one; its experiments: {', '.join(own)}")
    return config, f"{file}:{name}"


def _is_whole(function: Callable[..., Any]) -> bool:
    """True if a function returns an experiment, and requires no arguments."""
    signature = inspect.signature(function)
    if any(parameter.default is parameter.empty for parameter in signature.parameters.values()):
        return False
    annotation = signature.return_annotation
    return annotation is Experiment or annotation in ("Experiment", "mmjax.Experiment")


def _near_files(source: str) -> str:
    """The experiment files nearest to the given name, beside it and in experiments/, or all of them."""
    folders = dict.fromkeys([Path(source).parent, Path("experiments")])
    files = {file.stem: str(file) for folder in folders for file in sorted(folder.glob("*.py"))}
    found = [files[stem] for stem in closest(Path(source.partition(":")[0]).stem, files)]
    if found:
        return meant(found)
    return f"; there are: {', '.join(files.values())}" if files else ""
