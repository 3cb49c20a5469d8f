"""A graph of `fdl.Config`s as a tree of paths: fill in the defaults, set `path=value`, compare two.

A path is dotted, `towers.image.depth`: a field of a config, a key of a dict, or an index into a list or tuple.
"""

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import fiddle as fdl
import flax.linen as nn

from mmjax.errors import UserError, closest, nearest
from mmjax.hints import Clash, converted, describe, field_hints, fits, item_hint

PLAIN = (bool, int, float, str, type(None))


class Missing:
    """Stands in a difference for what one side lacks."""

    def __repr__(self) -> str:
        return "(absent)"


MISSING = Missing()


@dataclasses.dataclass(frozen=True)
class Same:
    """Stands in a difference for a module that is the very one at another path (its parameters are shared)."""

    path: str

    def __repr__(self) -> str:
        return f"(shared with {self.path})"


class Difference(NamedTuple):
    """One path at which two configs differ."""

    path: str
    left: Any
    right: Any


def target(config: fdl.Config) -> Any:
    """The class or function that a config calls."""
    return fdl.get_callable(config)


def fields(function: Any) -> dict[str, inspect.Parameter]:
    """What can be set in a config of `function`, in order. Linen's own `parent` and `name` are not for experiments."""
    hidden = {"parent", "name"} if isinstance(function, type) and issubclass(function, nn.Module) else set()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if name not in hidden and p.kind not in variadic}


def complete(config: fdl.Config) -> fdl.Config:
    """A copy with every default written out, and dataclass instances turned into configs of their own.

    What decides a result then stands in the graph itself: it can be shown, compared, overridden and written down. A
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
                    f"{name_of(value)} has *args or Fiddle tags, which an experiment can't hold: use fields"
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
    """Whether `value` holds only numbers, strings, None, containers of them, and configs."""
    if isinstance(value, fdl.Config):
        return all(is_plain(item) for item in value.__arguments__.values())
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return type(value) in PLAIN


def children(value: Any) -> dict[str, Any]:
    """What lies directly under `value`, by path component; empty for a leaf."""
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
    """Whether `value` is a config, or a container with one somewhere in it."""
    return isinstance(value, fdl.Config) or any(map(holds_configs, children(value).values()))


def paths(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every path below `value` with what stands there, parents before children."""
    for name, item in children(value).items():
        path = f"{prefix}.{name}" if prefix else name
        yield path, item
        yield from paths(item, path)


def short(value: Any, width: int = 80) -> str:
    """`value` on one line: plain values as Python writes them, configs as calls."""
    if isinstance(value, fdl.Config):
        text = f"{name_of(value)}({', '.join(f'{k}={short(v, width)}' for k, v in children(value).items())})"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{key!r}: {short(item, width)}" for key, item in value.items()) + "}"
    elif type(value) in (list, tuple):
        text = ", ".join(short(item, width) for item in value)
        text = f"[{text}]" if isinstance(value, list) else f"({text}{',' if len(value) == 1 else ''})"
    else:
        text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def name_of(config: fdl.Config) -> str:
    """The name of the class or function that a config calls."""
    function = target(config)
    return getattr(function, "__name__", repr(function))


# --- path=value ---


def override(config: fdl.Config, assignment: str) -> None:
    """Sets one `path=value` in a complete config, in place.

    The value is read as a Python literal; what isn't one is a string. An int does for a float and a list for a tuple;
    any other clash of types is an error, as is a path that isn't there.

    Raises:
        UserError: names the nearest path, or what the type must be, or what can be set under the path.
    """
    path, equals, text = assignment.partition("=")
    path = path.strip()
    if not equals:
        raise UserError(f"{assignment!r} is no override: write path=value{_offer(config, path)}")
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    _set(config, path, value, hint=Any, whole=config, path=path)


def _set(node: Any, rest: str, value: Any, *, hint: Any, whole: fdl.Config, path: str) -> Any:
    """What stands in `node`'s place once `rest` below it is `value`."""
    if not rest:
        return _leaf(node, value, hint, whole, path)
    deeper = {"value": value, "whole": whole, "path": path}
    if isinstance(node, fdl.Config):
        head, _, tail = rest.partition(".")
        if head in fields(target(node)):
            hints = field_hints(target(node))
            child = node.__arguments__.get(head, MISSING)
            setattr(node, head, _set(child, tail, hint=hints.get(head, Any), **deeper))
            return node
    elif isinstance(node, dict):
        # A key may hold dots itself (`init.towers.image`), so the longest key that fits is meant.
        fitting = [key for key in node if isinstance(key, str) and (rest == key or rest.startswith(f"{key}."))]
        inner = item_hint(hint)
        if fitting:
            key = max(fitting, key=len)
            return {**node, key: _set(node[key], rest[len(key) + 1 :], hint=inner, **deeper)}
        if inner is not Any and fits(value, inner):  # a new key: say, a weight that was left at 1
            return {**node, rest: converted(value, inner)}
    elif isinstance(node, (list, tuple)):
        head, _, tail = rest.partition(".")
        if head.isdecimal() and int(head) < len(node):
            items = list(node)
            items[int(head)] = _set(items[int(head)], tail, hint=item_hint(hint, int(head)), **deeper)
            return type(node)(items)
    raise UserError(f"there is no {path!r}{_near(node, rest, whole, path) or _offer(whole, path.removesuffix(rest))}")


def _near(node: Any, rest: str, whole: fdl.Config, path: str) -> str:
    """What may have been meant: another name beside the first one that isn't there, else the nearest path of all."""
    stands, (head, _, tail) = path.removesuffix(rest), rest.partition(".")
    known = [known_path for known_path, _ in paths(whole)]
    beside = [f"{stands}{name}" for name in closest(head, children(node))]
    deeper = [f"{name}.{tail}" for name in beside if f"{name}.{tail}" in known]
    if found := deeper or beside:
        return f"; did you mean {' or '.join(found)}?"
    return nearest(path, known, count=1)


def _leaf(current: Any, value: Any, hint: Any, whole: fdl.Config, path: str) -> Any:
    if holds_configs(current):
        kind = name_of(current) if isinstance(current, fdl.Config) else f"{type(current).__name__} of parts"
        raise UserError(f"{path} is a {kind}, not a value; set what is in it{_offer(whole, path)}")
    if hint is Any and current is not MISSING and current is not None:
        hint = type(current)
    try:
        return converted(value, hint)
    except Clash:
        now = "" if current is MISSING else f" (it is {short(current)} now)"
        raise UserError(f"{path} must be {describe(hint)}{now}, but {value!r} is {describe(type(value))}") from None


def _offer(whole: fdl.Config, path: str) -> str:
    """What can be set under `path`, one line each (of the root's parts only the names); or an empty string."""
    path = path.rstrip(".")
    below = dict(paths(whole)).get(path) if path else whole
    lines = [f"  {known}={short(value, 60)}" for known, value in _settable(below, path) if path or "." not in known]
    if not path:
        lines += [f"  {name}..." for name, value in children(whole).items() if holds_configs(value)]
    return "\n".join([f"\nwhat can be set{f' in {path}' if path else ''}:", *lines]) if lines else ""


def _settable(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values below `path` that are no parts, nor hold any."""
    for name, item in children(value).items():
        below = f"{path}.{name}" if path else name
        if holds_configs(item):
            yield from _settable(item, below)
        else:
            yield below, item


# --- comparing ---


def diff(left: fdl.Config, right: fdl.Config) -> list[Difference]:
    """Where two configs differ, defaults included, in the order of the left one's fields.

    What only one side has is compared with `MISSING`, as a whole. Parts of another class are one difference, and so are
    lists and tuples of plain values.
    """
    found: list[Difference] = []
    first: tuple[dict[int, str], dict[int, str]] = ({}, {})

    def walk(path: str, a: Any, b: Any) -> None:
        if isinstance(a, fdl.Config) and isinstance(b, fdl.Config) and target(a) is target(b):
            # Two equal towers are two towers, one tower used twice is one: that is a difference of models.
            if isinstance(target(a), type) and issubclass(target(a), nn.Module):
                before = [seen.setdefault(id(x), path) for seen, x in zip(first, (a, b), strict=True)]
                if before[0] != before[1]:
                    sides = [x if p == path else Same(p) for x, p in zip((a, b), before, strict=True)]
                    found.append(Difference(path, *sides))
                    return
        elif not _entered(a, b):
            both_nan = isinstance(a, float) and isinstance(b, float) and a != a and b != b
            if isinstance(a, fdl.Config) or isinstance(b, fdl.Config) or not (both_nan or a == b):
                found.append(Difference(path, a, b))
            return
        inside_a, inside_b = children(a), children(b)
        for name in dict.fromkeys([*inside_a, *inside_b]):
            below = f"{path}.{name}" if path else name
            walk(below, inside_a.get(name, MISSING), inside_b.get(name, MISSING))

    walk("", complete(left), complete(right))
    return found


def _entered(a: Any, b: Any) -> bool:
    """Whether two values that aren't configs of the same callable are compared item by item."""
    if type(a) is not type(b) or isinstance(a, fdl.Config):
        return False
    return isinstance(a, dict) or holds_configs(a) or holds_configs(b)
