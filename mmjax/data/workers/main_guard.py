"""Detects scripts without `if __name__ == "__main__":` before they start processes.

A process that is spawned imports the script of its parent first, as `__mp_main__`. Code there without the guard runs
again in each of them, and if it starts processes, so do those.
"""

import ast
import multiprocessing
import sys
from pathlib import Path
from types import FrameType

from mmjax.errors import UserError

GUARD = 'if __name__ == "__main__":'


def check_main_guard(what: str, instead: str) -> None:
    """Checks that spawning processes is safe; call it before they are spawned.

    what: the thing that starts them; instead: the alternative without processes; both for the message.

    Raises:
        UserError: each process would run the same line of this process's script; or this is such a process.
    """
    again = bool(getattr(multiprocessing.current_process(), "_inheriting", False))  # as multiprocessing itself asks
    place = _unguarded()
    if place is None and not again:
        return
    where = f"{place[0]}, line {place[1]}: " if place else ""
    raise UserError(
        f"{where}{what} starts processes, and each of them runs the script again from its top. Put what the script "
        f"does under `{GUARD}`, or {instead}"
    )


def _unguarded() -> tuple[str, int] | None:
    """The script of this process and its current line, where a spawned process would run that line too; None also where
    that can't be known.
    """
    main = sys.modules.get("__main__")
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if main is None or file is None or (spec is not None and f".{spec.name}".endswith(".__main__")):
        return None  # a notebook, `python -c`, or a package's __main__, which nobody imports again
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    if frame is None or Path(frame.f_code.co_filename).name != Path(file).name:
        return None
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    line = frame.f_lineno
    return None if any(_guards(node, line) for node in tree.body) else (file, line)


def _guards(node: ast.stmt, line: int) -> bool:
    """True if a statement keeps an import from the line: an `if` on `__name__` round it, or one before it that may
    leave (`if __name__ != "__main__": sys.exit()`).
    """
    if not isinstance(node, ast.If) or node.lineno > line:
        return False
    names = {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
    plain = isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], ast.Eq)
    return "__name__" in names and (line <= (node.end_lineno or line) or not plain)
