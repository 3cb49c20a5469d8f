"""HTML and SVG as text that is escaped unless it was made here."""

from html import escape
from typing import Any

VOID = frozenset(("br", "hr", "img", "input", "link", "meta"))  # elements without an end tag
# Invisible or misleading characters: controls, and those that change the direction of the text around.
_HIDDEN = dict.fromkeys(
    [*range(9), 11, 12, *range(14, 32), 127, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"
)


class Markup(str):
    """Text that is markup already; any other string is escaped where it is inserted."""

    __slots__ = ()


def tag(element: str, *children: Any, **attributes: Any) -> Markup:
    """Makes `<element attribute="value">children</element>`.

    Children are strings, or iterables of them; None is left out. An attribute's name loses a `_` at its end, `_` within
    it becomes `-`; True is an attribute without a value, None and False are no attribute.
    """
    given = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_text(value)}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if element in VOID:
        return Markup(f"<{element}{given}>")
    return Markup(f"<{element}{given}>{join(*children)}</{element}>")


def join(*children: Any) -> Markup:
    """Joins children, as in `tag`."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, list | tuple):
            parts.append(join(*child))
        else:
            parts.append(_text(child))
    return Markup("".join(parts))


def _text(value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:.2f}".rstrip("0").rstrip(".")  # coordinates of a drawing
    return str(value) if isinstance(value, Markup) else escape(str(value).translate(_HIDDEN))


def short(value: Any, letters: int = 60) -> str:
    """One line of text, cut with an ellipsis where it is longer."""
    text = " ".join(str(value).split())
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"
