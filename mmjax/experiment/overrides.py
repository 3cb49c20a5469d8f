"""Overrides of the command line, `path=value`, applied to an experiment."""

import ast
from collections.abc import Iterator
from typing import Any

import fiddle as fdl

from mmjax.errors import UserError, closest, meant, nearest
from mmjax.experiment.annotations import Clash, converted, describe_type, field_hints, fits, item_hint
from mmjax.experiment.diff import MISSING
from mmjax.experiment.graph import callable_name, children, fields, holds_configs, paths, short_repr, target
from mmjax.experiment.part_texts import part_of_text


def override(config: fdl.Config, assignment: str) -> None:
    """Sets one `path=value` in a complete config, in place.

    The value is read as a Python literal, as a part (`data.sources.own=Tars("a/*.tar")`), or else as a string. An int
    is converted to a float and a list to a tuple; any other clash of types is an error, as is an unknown path. A part
    takes the place of another.

    Raises:
        UserError: the path is unknown or the type is wrong; the message has the nearest path, the type, or what can be
            set under the path.
    """
    path, equals, text = assignment.partition("=")
    path = path.strip()
    if not equals:
        raise UserError(f"{assignment!r} is no override: write path=value{_offer(config, path)}")
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = part_of_text(text) or text
    _set(config, path, value, hint=Any, whole=config, path=path)


def _set(node: Any, rest: str, value: Any, *, hint: Any, whole: fdl.Config, path: str) -> Any:
    """Returns the replacement of `node` in which `rest` below it is `value`."""
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
        # A key may hold dots itself (`init.towers.image`), so the longest key that fits is used.
        fitting = [key for key in node if isinstance(key, str) and (rest == key or rest.startswith(f"{key}."))]
        inner = item_hint(hint)
        if fitting:
            key = max(fitting, key=len)
            return {**node, key: _set(node[key], rest[len(key) + 1 :], hint=inner, **deeper)}
        if isinstance(value, fdl.Config) or (
            inner is not Any and fits(value, inner)
        ):  # a new key, such as a weight that had the default 1
            return {**node, rest: value if isinstance(value, fdl.Config) else converted(value, inner)}
    elif isinstance(node, (list, tuple)):
        head, _, tail = rest.partition(".")
        if head.isdecimal() and int(head) < len(node):
            items = list(node)
            items[int(head)] = _set(items[int(head)], tail, hint=item_hint(hint, int(head)), **deeper)
            return type(node)(items)
    raise UserError(f"there is no {path!r}{_near(node, rest, whole, path) or _offer(whole, path.removesuffix(rest))}")


def _near(node: Any, rest: str, whole: fdl.Config, path: str) -> str:
    """What may have been meant: the same name deeper in the same part (`towers.image.depth`: `blocks` has it), else
    another name beside the first one that isn't there, else the nearest path of all."""
    stands, (head, _, tail) = path.removesuffix(rest), rest.partition(".")
    known = [known_path for known_path, _ in paths(whole)]
    if isinstance(node, fdl.Config) and (inside := [name for name, _ in paths(node) if name.endswith(f".{rest}")]):
        return meant([f"{stands}{min(inside, key=lambda name: name.count('.'))}"])
    beside = [f"{stands}{name}" for name in closest(head, children(node))]
    deeper = [f"{name}.{tail}" for name in beside if f"{name}.{tail}" in known]
    if found := deeper or beside:
        return meant(found)
    return nearest(path, known, count=1)


def _leaf(current: Any, value: Any, hint: Any, whole: fdl.Config, path: str) -> Any:
    if isinstance(value, fdl.Config) and not isinstance(current, dict | list | tuple):
        return value
    if holds_configs(current):
        kind = callable_name(current) if isinstance(current, fdl.Config) else f"{type(current).__name__} of parts"
        raise UserError(f"{path} is a {kind}, not a value; set what is in it{_offer(whole, path)}")
    if hint is Any and current is not MISSING and current is not None:
        hint = type(current)
    try:
        return converted(value, hint)
    except Clash:
        now = "" if current is MISSING else f" (it is {short_repr(current)} now)"
        raise UserError(
            f"{path} must be {describe_type(hint)}{now}, but {value!r} is {describe_type(type(value))}"
        ) from None


def _offer(whole: fdl.Config, path: str) -> str:
    """The values that can be set under `path`, one line each (of the root's parts only the names); or an
    empty string.
    """
    path = path.rstrip(".")
    below = dict(paths(whole)).get(path) if path else whole
    lines = [
        f"  {known}={short_repr(value, 60)}" for known, value in _settable(below, path) if path or "." not in known
    ]
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
