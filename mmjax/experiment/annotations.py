"""Checks whether a value typed by hand fits a field's annotation, without importing what the annotation names."""

import collections.abc
import functools
import types
import typing
from typing import Any, Literal, Union


class Clash(Exception):  # noqa: N818 (caught here, never shown)
    """A value doesn't fit its annotation."""


@functools.cache
def field_hints(function: Any) -> dict[str, Any]:
    """The annotations of a callable's fields; empty where they can't be resolved."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # an annotation may name anything; then the field's present value decides its type
        return {}


def item_hint(hint: Any, index: int = 0) -> Any:
    """The type of the items of a container of type `hint` (or `hint | None`); `Any` where it isn't known."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        hint = options[0] if len(options) == 1 else Any
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if not arguments or not isinstance(origin, type):
        return Any
    if issubclass(origin, tuple) and arguments[-1] is not Ellipsis:
        return arguments[index] if index < len(arguments) else Any
    return arguments[0] if issubclass(origin, collections.abc.Sequence) else arguments[-1]


def converted(value: Any, hint: Any) -> Any:
    """Converts `value` to `hint`: an int becomes a float, a list a tuple; anything else must fit already.

    Raises:
        Clash: it doesn't fit.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return value
    if origin in (Union, types.UnionType):
        options = sorted(arguments, key=lambda option: option is not type(value))  # 1 stays an int in int | float
        for option in options:
            try:
                return converted(value, option)
            except Clash:
                continue
        raise Clash
    if origin is Literal:
        if value in arguments:
            return value
        raise Clash
    kind = origin or hint
    if kind is None:
        kind = type(None)
    if not isinstance(kind, type):
        raise Clash
    if kind is float and type(value) is int:
        return float(value)
    if kind in (bool, int, float, str, type(None)):
        if type(value) is kind:
            return value
        raise Clash
    if issubclass(kind, collections.abc.Mapping):
        if not isinstance(value, dict):
            raise Clash
        inner = arguments[1] if len(arguments) == 2 else Any
        return {key: converted(item, inner) for key, item in value.items()}
    if issubclass(kind, collections.abc.Sequence):
        if not isinstance(value, (list, tuple)):
            raise Clash
        build = list if kind is list else tuple
        if kind is tuple and arguments and arguments[-1] is not Ellipsis:
            if len(value) != len(arguments):
                raise Clash
            return tuple(converted(item, inner) for item, inner in zip(value, arguments, strict=True))
        inner = arguments[0] if arguments else Any
        return build(converted(item, inner) for item in value)
    raise Clash


def fits(value: Any, hint: Any) -> bool:
    """True if `converted` accepts the value."""
    try:
        converted(value, hint)
    except Clash:
        return False
    return True


def describe_type(hint: Any) -> str:
    """An annotation in words: `an int`, `one of 'softmax', 'sigmoid'`, `a float or None`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(option) for option in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if hint in (None, type(None)):
        return "None"
    if arguments:
        return f"a {hint}".replace("typing.", "")
    name = getattr(hint, "__name__", str(hint))
    name = {"str": "string", "bool": "bool (True or False)"}.get(name, name)
    return f"an {name}" if name[0] in "aeio" else f"a {name}"
