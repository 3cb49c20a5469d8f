"""An experiment as JSON: readable without running code, and read by running only callables on a list.

    {"mmjax": "0.1.0", "name": "experiments/clip.py:tiny",
     "experiment": {"@call": "experiment:Experiment",
                    "towers": {"image": {"@call": "models:ViT", "patch": 8, ...}, ...}, ...},
     "blake2b": "0c4f..."}

Plain values, lists and dicts are unchanged. `{"@tuple": [...]}` is a tuple, `{"@float": "inf"}` a number that JSON
lacks, and `{"@same": ["towers", "image"]}` the very config at that path (two equal towers are two, one used twice is
one). `blake2b` is the digest of the rest: a record that was damaged isn't read. Where a part is of one's own,
`own.py:Mine`, the files that define such parts are in `"code": {"own.py": <digest>}` (`own_parts`).

Why not Fiddle's own JSON (`fiddle.experimental.serialization`)? Its policy is asked about (module, symbol) pairs, but
symbols may be dotted and are followed with getattr; after the policy has agreed, an override may put another module in
the place of the one that it saw; containers and traversal metadata are imported types too, so `builtins`, `fiddle` and
every registered traverser would have to be on the list; enums and constants resolve by other routes. And nobody can
read it. Here only exact names are read that a face lists (`known`), and the result is an `fdl.Config`.
"""

import dataclasses
import importlib
import importlib.util
import json
import logging
import math
from collections.abc import Callable
from typing import Any

import fiddle as fdl

from mmjax import __version__
from mmjax.errors import UserError, nearest
from mmjax.experiment import old_fields, old_names, own_parts
from mmjax.experiment.graph import complete, fields, short_repr, target
from mmjax.runtime.files import digests, json_text
from mmjax.runtime.files.own_code import Code

# The packages whose faces list the parts that an experiment may hold (their `__init__.py`); of optax, these functions.
FACES = ("data", "evaluate", "experiment", "models", "objectives", "optim")
SCHEDULES = ("constant_schedule", "cosine_decay_schedule", "linear_schedule", "polynomial_schedule")

CALL, TUPLE, FLOAT, SAME = "@call", "@tuple", "@float", "@same"
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}

RECORD = "experiment.json"  # its name in a workdir
DEEPEST = 64  # parts within parts: an experiment has about ten
SHORT = 80  # characters of a list or dict of plain values that is written on one line of the file

Path = tuple[str | int, ...]

log = logging.getLogger(__name__)


def dumps(config: fdl.Config, name: str = "") -> str:
    """An experiment as JSON text, every default written out; `name` is stored with it.

    Raises:
        UserError: it holds a value that isn't plain and isn't on the list; the message has its path.
    """
    whole, seen = complete(config), {}
    code = own_parts.digests_of(own_parts.files_of(whole))
    own = {own_parts.CODE: code} if code else {}
    record = {"mmjax": __version__, "name": name, **own, "experiment": _write(whole, (), seen)}
    return _laid_out(digests.sealed(record)) + "\n"


def _laid_out(value: Any, indent: str = "") -> str:
    """JSON with short values without configs on one line (`json` has one line for everything, or one for
    each number).
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, (dict, list)) or (len(line) <= SHORT and CALL not in line):
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        lines = [f"{json.dumps(key, ensure_ascii=False)}: {_laid_out(item, deeper)}" for key, item in value.items()]
    else:
        lines = [_laid_out(item, deeper) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(lines) + f"\n{indent}{closing}"


def _write(value: Any, path: Path, seen: dict[int, Path]) -> Any:
    if type(value) is fdl.Config:
        if id(value) in seen:
            return {SAME: list(seen[id(value)])}
        seen[id(value)] = path
        called = _called(target(value), path)
        known = fields(target(value))
        given = {field: value.__arguments__[field] for field in known if field in value.__arguments__}
        if extra := set(value.__arguments__) - set(given):
            raise UserError(f"{_dotted(path)}: {called} has no field {', '.join(map(str, sorted(extra, key=str)))}")
        return {CALL: called, **{k: _write(v, (*path, k), seen) for k, v in given.items()}}
    if type(value) is dict:
        for key in value:
            if type(key) is not str or key.startswith("@"):
                raise UserError(
                    f"{_dotted(path)}: the key {key!r} can't be written; a key is a string without an @ first"
                )
        return {key: _write(item, (*path, key), seen) for key, item in value.items()}
    if type(value) in (list, tuple):
        items = [_write(item, (*path, i), seen) for i, item in enumerate(value)]
        return items if type(value) is list else {TUPLE: items}
    if type(value) is float and not math.isfinite(value):
        return {FLOAT: repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise UserError(
        f"{_dotted(path)} is {short_repr(value)}, which experiment.json can't hold: only numbers, strings, None, "
        "lists, tuples, dicts and mmjax's own parts can stand in an experiment (a dtype as a string, 'bfloat16'; a "
        "helper function that makes parts is marked @experiment too)"
    )


def known() -> dict[str, tuple[str, str]]:
    """Every callable that an experiment may hold, `models:ViT`, with the module and the name of it."""
    found = {f"optax:{name}": ("optax", name) for name in SCHEDULES}
    for face in FACES:
        module = importlib.import_module(f"mmjax.{face}")
        names = sorted(set(dir(module)) - vars(module).keys())  # names that are listed there, and not yet imported
        found |= {f"{face}:{name}": (module.__name__, name) for name in names}
    return found


def _called(function: Any, path: Path) -> str:
    """The name under which `function` is listed, by identity: its own `__name__` may be wrong."""
    name = getattr(function, "__name__", "")
    for called, (module, symbol) in known().items():
        if symbol == name and getattr(importlib.import_module(module), symbol) is function and can_be_part(function):
            return called
    if (called := own_parts.part_name(function)) is not None:
        return called
    described = f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function))}"
    raise UserError(
        f"{_dotted(path)} calls {described}, which may not stand in experiment.json: reading one runs only what "
        f"mmjax's faces list ({', '.join(f'mmjax.{face}' for face in FACES)}), and classes of fields (dataclasses and "
        "Linen modules) at the top of the experiment's own file or of one beside it"
        f"{nearest(name, [symbol for _, symbol in known().values()])} "
        "A function that makes parts is marked @experiment, so that the parts themselves are written"
    )


def can_be_part(function: Any) -> bool:
    """True if a listed name is a part: a class of fields, or a schedule of optax's. Faces list base classes, contracts
    and functions too.
    """
    if isinstance(function, type):
        return dataclasses.is_dataclass(function)
    return function.__module__.partition(".")[0] == "optax"


def loads(text: str, code: Code = (), kept: Callable[[], Any] = lambda: None, stand_ins: bool = False) -> fdl.Config:
    """Reads the experiment that `dumps` wrote. Only callables on the list are imported, and none is called.

    code: files of one's own that may be run, since the user has named them. kept: gives the folder that has the texts
    of those that the record was written with, for messages. stand_ins: the experiment is to be compared, not built:
    parts of one's own that can't be loaded are replaced by stand-ins.

    Raises:
        UserError: the text isn't such a record, or names a callable that isn't on the list, or parts of a file that
            wasn't named.
    """
    record = _record(text)
    own = own_parts.Finder(record, code, stand_ins)
    own.check(record["experiment"], kept)
    config = _read(record["experiment"], (), {}, own)
    if not isinstance(config, fdl.Config):
        raise UserError(f"'experiment' must be a {CALL}, not {short_repr(config)}")
    return config


def name_of(text: str) -> str:
    """The name that `dumps` got."""
    return str(_record(text).get("name", ""))


def code_of(text: str) -> dict[str, str]:
    """The digests of the files that define parts of one's own, by name; none where it has no such parts."""
    return own_parts.recorded(_record(text))


def code_options(text: str, folder: Any) -> list[str]:
    """The options that name the texts that `folder` keeps of the record's own parts: `["--code",
    "runs/a/code/own.py"]`.
    """
    return own_parts.options(_record(text)["experiment"], folder)


def tell_changes(text: str, code: Code, where: Any) -> None:
    """Warns of each named file that isn't the one that the record at `where` was written with; it is run all
    the same.
    """
    for line in own_parts.changed(code_of(text), own_parts.by_name(code).values()):
        log.warning("%s: %s; it is taken as it is now", where, line)


def version_of(text: str) -> str:
    """The version of mmjax that wrote the record; empty where it has none."""
    return str(_record(text).get("mmjax", ""))


def _record(text: str) -> dict[str, Any]:
    try:
        record = json_text.parse(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
    except UserError:
        raise
    except ValueError as error:  # no JSON, or a number of thousands of digits
        raise UserError(f"this is no experiment.json of mmjax: {error}") from None
    if not isinstance(record, dict) or "experiment" not in record:
        raise UserError("this is no experiment.json of mmjax: it has no 'experiment'")
    if not digests.unbroken(record):
        raise UserError(
            "this experiment.json isn't what mmjax wrote: bring that back, or, if the change is meant, take out the "
            f"entry {digests.SEAL!r} at its end"
        )
    return record


def _refuse_constant(name: str) -> None:
    raise UserError(f"{name} is not JSON; write {{{FLOAT!r}: {name.lower()!r}}}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise UserError(f"this is no experiment.json of mmjax: it says {twice!r} twice in one place")
    return found


def _read(value: Any, path: Path, seen: dict[Path, fdl.Config], own: own_parts.Finder) -> Any:
    if len(path) > DEEPEST:  # building it would run out of stack
        raise UserError(
            f"{_dotted(path[:4])}... is nested more than {DEEPEST} deep: this is no experiment.json of mmjax"
        )
    if isinstance(value, list):
        return [_read(item, (*path, i), seen, own) for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    marks = [key for key in value if key.startswith("@")]
    if not marks:
        return {key: _read(item, (*path, key), seen, own) for key, item in value.items()}
    if marks == [CALL]:
        called = value[CALL]
        called = old_names.NAMES.get(called, called) if isinstance(called, str) else called
        given = [name for name in value if name != CALL]
        function = own(called, given, _dotted(path)) if own_parts.is_own(called) else _allowed(called, path)
        names = fields(function)
        config = fdl.Config(function)
        value, was_flat = old_fields.in_blocks(called, function, value)
        for name, item in value.items():
            if name == CALL:
                continue
            if name not in names:
                why = nearest(name, names) + (own.since() if own_parts.is_own(called) else "")
                raise UserError(f"{_dotted(path)}: {called} has no field {name!r}{why}")
            setattr(config, name, _read(item, (*path, name), seen, own))
        for name, meant in old_fields.BEFORE.get(called, {}).items():
            if name not in value:
                setattr(config, name, meant)
        if was_flat:
            old_fields.settle(config)
        seen[path] = config  # only once it is whole: a config can't hold itself
        return config
    if len(value) == 1 and marks == [TUPLE] and isinstance(value[TUPLE], list):
        return tuple(_read(item, (*path, i), seen, own) for i, item in enumerate(value[TUPLE]))
    if len(value) == 1 and marks == [FLOAT] and value[FLOAT] in tuple(_FLOATS):
        return _FLOATS[value[FLOAT]]
    if len(value) == 1 and marks == [SAME] and isinstance(value[SAME], list):
        try:
            return seen[tuple(value[SAME])]
        except (KeyError, TypeError):
            raise UserError(f"{_dotted(path)} is to be the same as {value[SAME]}, where no config stands") from None
    raise UserError(
        f"{_dotted(path)}: {short_repr(value)} is none of {CALL}, {TUPLE}, {FLOAT} and {SAME} as mmjax writes them"
    )


def _allowed(called: Any, path: Path) -> Any:
    """The callable of a listed name; only faces are imported before the name was found there."""
    names = known()
    if not isinstance(called, str) or called not in names:
        raise UserError(
            f"{_dotted(path)}: {called!r} isn't among the callables that an experiment.json may name "
            f"(the faces of mmjax list them: {', '.join(f'mmjax.{face}' for face in FACES)})"
            f"{nearest(str(called), names)}"
        )
    module, name = names[called]
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{_dotted(path)}: this version of mmjax ({__version__}) has no {called}: {error}") from error
    if not can_be_part(function):
        raise UserError(
            f"{_dotted(path)}: {called!r} isn't among the callables that an experiment.json may name: it is no class "
            "of fields"
        )
    return function


def _dotted(path: Path) -> str:
    return ".".join(map(str, path)) or "the experiment"
