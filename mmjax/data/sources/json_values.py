"""Values of JSON as those of records: entries by their path, and captions."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.sources.cells import filled_cell, stripped


def json_entry(value: Any, path: Sequence[str]) -> Any:
    """The entry of nested objects, and of lists by number; None where there is none."""
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def json_caption(value: Any) -> Any:
    """A caption, or several; a number as its digits; None where there is none, bytes where it is no text."""
    if isinstance(value, str):
        return stripped(value)
    if isinstance(value, bool):
        return str(value).encode()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        kept = [stripped(one) if isinstance(one, str) else one for one in value if filled_cell(one) is not None]
        return (kept or None) if all(isinstance(one, str) for one in kept) else json.dumps(value).encode()
    if isinstance(value, Mapping):
        kept = {name: stripped(one) for name, one in value.items() if filled_cell(one) is not None}
        return (kept or None) if all(isinstance(one, str) for one in kept.values()) else json.dumps(value).encode()
    return None if filled_cell(value) is None else json.dumps(value).encode()
