"""Reads and rewrites files of JSON lines, of a run that may be killed at any moment."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.runtime.files import json_text, output, regular

LARGEST = 2**32  # bytes; a line of metrics has about a thousand

Line = dict[str, Any]


def read(path: Path) -> list[dict[str, Any]]:
    """The objects that have a `step`; empty where there is no file. A line that is damaged, or that a kill cut off, is
    left out.
    """
    lines = []
    try:
        content = regular.content(path, LARGEST)
    except FileNotFoundError:
        return []
    for text in content.split(b"\n"):
        try:
            line = json_text.parse(text.decode("utf-8"))
        except ValueError:
            continue
        if isinstance(line, dict) and type(line.get("step")) is int:
            lines.append(line)
    return lines


def completed(
    lines: Sequence[Line], copied: Sequence[Line], key: Callable[[Line], Any]
) -> tuple[list[Line], list[Line]]:
    """Merges lines with an earlier copy of them: returns all lines, and those that only the copy had.

    key: identifies what a line is about. Where both have it, the copy's line is used. Lines that the copy lacks are
    later ones, and come after it.
    """
    there: dict[Any, list[Line]] = {}
    for line in lines:
        there.setdefault(key(line), []).append(line)
    known = {key(line) for line in copied}
    lacked = [line for line in copied if line not in there.get(key(line), ())]
    if not lacked:
        return list(lines), []
    return [*copied, *(line for line in lines if key(line) not in known)], lacked


def rewrite(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replaces the file by `lines` at once: a kill leaves the old file or the new one."""
    output.write(path, "".join(map(lines_text, lines)))


def lines_text(line: Mapping[str, Any]) -> str:
    """The line as the file has it. Raises ValueError for a number that isn't finite, which JSON lacks."""
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
