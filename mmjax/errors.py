"""Errors that are meant for whoever typed the command: shown as one message, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something that was asked for can't be had; the message names the thing, its value, and what would do.

    The command line shows its text alone, and exits with 2. Anything else that is raised is a fault, and keeps its
    traceback.
    """


class PassingError(RuntimeError):
    """A fault of the machine's, told in one message too, that need not come again: the same command may go on. It exits
    with 1."""


def closest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names among `known` that `name` may have been meant to be, best first."""
    return difflib.get_close_matches(name, list(dict.fromkeys(known)), n=count, cutoff=0.6)


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The end of a sentence, `"; did you mean a or b?"`, or `""` where nothing is near."""
    return meant(closest(name, known, count))


def meant(names: Iterable[str]) -> str:
    """The end of a sentence, `"; did you mean a or b?"`, or `""` where there are none."""
    asked = " or ".join(names)
    return f"; did you mean {asked}?" if asked else ""


def not_among(field: str, value: object, allowed: Iterable[str]) -> str:
    """`remat='ful' is not one of full, dots; did you mean full?`"""
    allowed = list(allowed)
    return f"{field}={value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}"


def unknown(where: str, name: str, known: Iterable[str], kind: str) -> str:
    """`weights 'pari', but the objectives are pair; did you mean pair?`"""
    known = list(known)
    return f"{where} {name!r}, but the {kind} are {', '.join(known) or 'none'}{nearest(name, known)}"
