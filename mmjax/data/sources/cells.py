"""Converts the cells of a table: missing ones, pictures, sounds, captions and labels."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.paths import File, is_remote
from mmjax.data.sources.tables import Table
from mmjax.errors import UserError

Media = File | bytes | list[bytes] | None
_LISTED = re.compile(r"""\[\s*["'].*["']\s*\]""", re.DOTALL)  # a list as Python prints it, or a JSON list of strings


def filled_cell(value: Any) -> Any:
    """The value; None where it is empty: text or bytes of nothing but white space, NaN, NaT, null."""
    if isinstance(value, (str, bytes)):
        return value if value.strip() else None
    if isinstance(value, (list, tuple, Mapping)) or getattr(value, "shape", ()) != ():
        return value
    return None if value is None or value != value else value


def label(value: Any) -> Any:
    """A label; of a list, its values that aren't missing; None where there is none. Text has no spaces at its ends."""
    if isinstance(value, list):
        kept = [item for item in map(label, value) if item is not None]
        return kept if kept or not value else None
    return stripped(value)


def stripped(value: Any) -> Any:
    """The value, text without spaces at its ends; None where there is none."""
    value = filled_cell(value)
    return value.strip() if isinstance(value, str) else value


def media(table: Table, column: str, root: Path) -> list[Media]:
    """Pictures or sounds of a column: paths, bytes, `{bytes, path}` as Hugging Face writes them, lists of bytes.

    root: the folder that paths are relative to. Raises UserError for an address, and for any other type.
    """

    def one(row: int, value: Any) -> Media:
        value = stripped(value) if isinstance(value, str) else value
        if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
            value = value.get("bytes") or stripped(value.get("path"))
        if isinstance(value, str):
            if is_remote(value):
                raise UserError(
                    f"{table.at(row, column)}: {value:.80} is a URL, and nothing is downloaded here: fetch the "
                    "files first (img2dataset does it for lists of pictures), and give their paths"
                )
            return File(_under(root, value))
        if isinstance(value, list):
            items = [found for item in value if (found := one(row, item)) is not None]
            if all(isinstance(item, bytes) for item in items):
                return items or None  # pyright: ignore[reportReturnType]
        elif filled_cell(value) is None or isinstance(value, bytes):
            return filled_cell(value)
        raise UserError(
            f"{table.at(row, column)} holds {_shown(value)}: a picture or sound is a path, its bytes, {{bytes, path}}, "
            "or a list of the bytes of several"
        )

    return [one(row, value) for row, value in enumerate(table.columns[column])]


def _under(root: Path, value: str) -> str:
    """The path `root / value`, twenty times as fast: there are tables of many millions."""
    if value[0] in "~./" or "//" in value or "/." in value or value[-1] == "/":
        return os.fspath(root / os.path.expanduser(value))
    begin = os.fspath(root)
    return value if begin == "." else f"{begin}{'' if begin.endswith('/') else '/'}{value}"


def caption_cells(table: Table, column: str) -> list[Any]:
    """Captions of a column: text, of which JSON lists and objects of texts are several; lists of texts; classes
    by their names, other whole numbers as their digits. Raises UserError for any other type."""

    names = table.class_names.get(column)

    def one(row: int, value: Any) -> Any:
        if names is not None:
            number = with_class(value)
            value = names[number] if isinstance(number, int) and 0 <= number < len(names) else number
        value = stripped(value)
        if isinstance(value, bytes):
            try:
                return value.decode("utf-8").strip()
            except UnicodeDecodeError:
                return value  # the chain reports that it is no text
        if isinstance(value, str):
            value = _read(value, lambda: table.at(row, column)) if value[0] in "[{" else value
            if isinstance(value, str):
                return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, Mapping):  # by language; Parquet gives every row all of them
            value = {key: stripped(item) for key, item in value.items() if filled_cell(item) is not None} or None
            if value is None or all(isinstance(item, str) for item in value.values()):
                return value
        if isinstance(value, list):
            value = [stripped(item) if filled_cell(item) is not None else item for item in value if item is not None]
            if all(isinstance(item, str) for item in value):
                return value or None
        elif value is None:
            return None
        raise UserError(
            f"{table.at(row, column)} holds {_shown(value)}: a caption is a text, a list of texts, or texts by "
            "language; Folder(fields={'text': ...}) names another column"
        )

    return [one(row, value) for row, value in enumerate(table.columns[column])]


def _read(text: str, where: Callable[[], str]) -> Any:
    """Several captions, where the text is a JSON list or object of them; else the text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    several = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [0]
    if all(item is None or isinstance(item, str) for item in several):  # an empty list too, which is no caption
        return value
    if _LISTED.fullmatch(text) or any(isinstance(item, str) for item in several):
        raise UserError(
            f"{where()}: {text:.60} looks like several captions, and is no JSON list of texts: write "
            '["a cat", "a tom"] (json.dumps does), a row a caption, or a list column in Parquet'
        )
    return text


def labels(values: Sequence[Any], classes: bool = False) -> list[Any]:
    """A column of labels; with `classes`, numbers, of which -1 is missing."""
    return [label(with_class(value) if classes else value) for value in values]


def with_class(value: Any) -> Any:
    """A class number, or several, without -1, which TFDS and Hugging Face write where there is none."""
    if isinstance(value, (list, np.ndarray)):
        return [int(item) for item in value if filled_cell(item) is not None and item != -1] or (
            None if len(value) else []
        )
    return None if filled_cell(value) is None or value == -1 else value


def text_cells(values: Sequence[Any]) -> list[str | None]:
    """A column of names, such as ids and splits, as text."""
    found = [stripped(value) for value in values]
    return [None if value is None else value if isinstance(value, str) else _name(value) for value in found]


def _name(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _shown(value: Any) -> str:
    return f"{value!r:.60} ({type(value).__name__})"
