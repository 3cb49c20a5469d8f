"""Files of JSON, an object a line, of a run that may be killed at any moment."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmjax import files, json_text


def read(path: Path) -> list[dict[str, Any]]:
    """The objects that have a `step`; none where there is no file. A line that a kill cut off is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json_text.parse(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def rewrite(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Puts `lines` in the file's place at once, so that a kill leaves the old file or the new one."""
    files.write(path, "".join(map(text_of, lines)))


def text_of(line: Mapping[str, Any]) -> str:
    """The line as it stands in the file. Raises ValueError for a number that isn't finite, which JSON lacks."""
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
