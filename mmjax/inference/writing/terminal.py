"""`mmjax chat`: a conversation in the terminal, a line a turn; in a pipe the answers alone."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console

from mmjax.errors import UserError
from mmjax.inference.model import load
from mmjax.inference.writing.chat import Chat
from mmjax.runtime.compilation_cache import use_compilation_cache

SHOWS = ("image", "audio", "video")  # what a line `/image FILE ...` may begin with


def converse(
    source: str,
    *,
    shown: Mapping[str, Sequence[str]] | None = None,
    system: str | None = None,
    objective: str | None = None,
    step: int | None = None,
    code: Any = None,
    lines: Any = None,
    console: Console | None = None,
    **options: Any,
) -> Chat:
    """Reads turns, writes answers, and returns the conversation once there are no more turns.

    source, step, code: as in `mmjax.load`. shown: files that the first turn shows, by kind. system: its turn's words.
    lines: a text file of the turns; None: the standard input. options: of `Chat.stream`.

    Raises UserError where the model has no conversations, and where a turn can't be used and nobody sits there to say
    another.
    """
    use_compilation_cache()
    console = console or Console(highlight=False)
    lines = sys.stdin if lines is None else lines
    asked = lines.isatty() and console.is_terminal
    if asked:
        console.print(f"reading {source}", style="dim", markup=False)
    model = load(source, step=step, code=code)
    first = [{"role": "system", "content": system}] if system else []
    chat = model.chat(first, objective=objective)
    waiting: dict[str, Any] = {kind: list(files) for kind, files in (shown or {}).items() if files}
    for line in _turns(lines, console if asked else None):
        try:
            text, given = _turn(line, waiting)
            if text == "/undo":
                chat.undo()
                continue
            for piece in chat.stream(text, **given, **options):
                console.print(piece, end="", markup=False, soft_wrap=True)
        except UserError as error:
            if not asked:
                raise
            console.print(str(error), style="red", markup=False)
            continue
        console.print()
        waiting = {}
    return chat


def _turns(lines: TextIO, console: Console | None) -> Iterator[str]:
    """The lines that say something. console: of a terminal, which shows whose turn it is."""
    while True:
        if console is not None:
            console.print("> ", end="", style="bold")
        try:
            line = lines.readline()
        except KeyboardInterrupt:
            line = ""
        if not line:
            if console is not None:
                console.print()
            return
        if line.strip():
            yield line.strip()


def _turn(line: str, waiting: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The words of a line, and the files that it shows by kind, behind those that wait to be shown."""
    given = {kind: list(files) for kind, files in waiting.items()}
    for kind in SHOWS:
        if line == f"/{kind}" or line.startswith(f"/{kind} "):
            _, file, text = [*line.split(maxsplit=2), "", ""][:3]
            if not file:
                raise UserError(f"/{kind}: name a file, /{kind} FILE what is said")
            given[kind] = [*given.get(kind, []), file]
            return text, given
    return line, given
