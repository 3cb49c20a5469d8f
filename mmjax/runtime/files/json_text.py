"""Reads untrusted JSON, or refuses it in one line.

Python's parser raises RecursionError on deep nesting, which no reader of files expects; here it is an error of JSON.
"""

import json
from pathlib import Path
from typing import Any

from mmjax.errors import UserError
from mmjax.runtime.files import regular


def parse(text: str | bytes, **options: Any) -> Any:
    """Parses JSON. Raises ValueError where the text is no JSON, or is nested too deeply; options: of `json.loads`."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def text(path: Any) -> str:
    """The text of a file, here or in a bucket.

    Raises:
        UserError: it is no file (`regular.content`), or isn't UTF-8.
        OSError: it isn't there, or can't be read.
    """
    try:
        return regular.content(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text: {error}") from error


def read(path: Path) -> Any:
    """Reads and parses a JSON file.

    Raises:
        UserError: it is no file, no JSON, or no UTF-8, or nested too deeply.
        OSError: it isn't there, or can't be read.
    """
    written = regular.content(path)
    try:
        return parse(written.decode("utf-8"))
    except ValueError as error:  # of json, or of the decoding
        raise UserError(f"{path} is no JSON: {error}") from error
