"""A graph of `fdl.Config`s as a tree of paths: fill in the defaults, set `path=value`, compare two.

A path is dotted, `towers.image.blocks.depth`: a field of a config, a key of a dict, or an index into a list or tuple.
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import fiddle as fdl
import flax.linen as nn

from mmjax.errors import UserError

PLAIN = (bool, int, float, str, type(None))


def target(config: fdl.Config) -> Any:
    """The class or function that a config calls."""
    return fdl.get_callable(config)


@functools.cache  # asked for at every node of every graph, and a signature takes a tenth of a millisecond to read
def fields(function: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters that a config of `function` can set, in order. Linen's own `parent` and `name` are left out."""
    hidden = {"parent", "name"} if isinstance(function, type) and issubclass(function, nn.Module) else set()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters
    found = {name: p for name, p in parameters.items() if name not in hidden and p.kind not in variadic}
    return MappingProxyType(found)


def complete(config: fdl.Config) -> fdl.Config:
    """A copy with every default written out, and dataclass instances turned into configs of their own.

    All that decides a result is then in the graph itself: it can be shown, compared, overridden and written down. A
    default that isn't plain (an initialiser, say) stays with the code. Sharing of configs is kept.
    """
    return _complete(config, {})


def _complete(value: Any, memo: dict[int, fdl.Config]) -> Any:
    if isinstance(value, fdl.Config):
        if id(value) not in memo:
            memo[id(value)] = copy = fdl.Config(target(value))
            given = value.__arguments__
            if any(isinstance(name, int) for name in given) or any(value.__argument_tags__.values()):
                raise UserError(
                    f"{callable_name(value)} has *args or Fiddle tags, which an experiment can't hold: use fields"
                )
            for name, argument in given.items():
                setattr(copy, str(name), _complete(argument, memo))
            for name, default in defaults(target(value)).items():
                if name not in given:
                    setattr(copy, name, default)
        return memo[id(value)]
    if isinstance(value, dict):
        return {key: _complete(item, memo) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_complete(item, memo) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, fdl.Buildable):
        names = [name for name in fields(type(value)) if hasattr(value, name)]
        return fdl.Config(type(value), **{name: _complete(getattr(value, name), memo) for name in names})
    return value


def defaults(function: Any) -> dict[str, Any]:
    """The plain defaults of `function`'s fields, as configs where they are dataclass instances."""
    factories = {}
    if dataclasses.is_dataclass(function):
        factories = {
            f.name: f.default_factory
            for f in dataclasses.fields(function)
            if f.default_factory is not dataclasses.MISSING
        }
    found = {}
    for name, parameter in fields(function).items():
        if name in factories:
            default = factories[name]()
        elif parameter.default is inspect.Parameter.empty:
            continue
        else:
            default = parameter.default
        default = _complete(default, {})
        if is_plain(default):
            found[name] = default
    return found


def is_plain(value: Any) -> bool:
    """True if `value` holds only numbers, strings, None, containers of them, and configs."""
    if isinstance(value, fdl.Config):
        return all(is_plain(item) for item in value.__arguments__.values())
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return type(value) in PLAIN


def children(value: Any) -> dict[str, Any]:
    """The values directly under `value`, by path component; empty for a leaf."""
    if isinstance(value, fdl.Config):
        order = list(fields(target(value)))
        given = value.__arguments__
        return {str(name): given[name] for name in sorted(given, key=lambda n: order.index(n) if n in order else -1)}
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return {str(i): item for i, item in enumerate(value)}
    return {}


def holds_configs(value: Any) -> bool:
    """True if `value` is a config, or a container with one somewhere in it."""
    return isinstance(value, fdl.Config) or any(map(holds_configs, children(value).values()))


def paths(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every path below `value` with its value, parents before children."""
    for name, item in children(value).items():
        path = f"{prefix}.{name}" if prefix else name
        yield path, item
        yield from paths(item, path)


def short_repr(value: Any, width: int = 80) -> str:
    """`value` on one line: plain values as Python writes them, configs as calls."""
    if isinstance(value, fdl.Config):
        text = f"{callable_name(value)}({', '.join(f'{k}={short_repr(v, width)}' for k, v in children(value).items())})"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{key!r}: {short_repr(item, width)}" for key, item in value.items()) + "}"
    elif type(value) in (list, tuple):
        text = ", ".join(short_repr(item, width) for item in value)
        text = f"[{text}]" if isinstance(value, list) else f"({text}{',' if len(value) == 1 else ''})"
    else:
        text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def callable_name(config: fdl.Config) -> str:
    """The name of the class or function that a config calls."""
    function = target(config)
    return getattr(function, "__name__", repr(function))


# --- path=value ---


# --- comparing ---


def build(config: fdl.Config) -> Any:
    """Constructs the object that a config describes.

    Raises:
        UserError: a part refuses its fields, or lacks one that it requires.
    """
    try:
        return fdl.build(config)
    except (ValueError, TypeError) as error:
        original = getattr(error, "proxy_base_exception", error)  # Fiddle adds a dump of all arguments to the message
        raise UserError(str(original)) from error
