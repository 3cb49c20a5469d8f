"""The commands that our texts name, and whether those of Python's own (`python -m ...`) start.

A command counts as started once its arguments are taken: everything that it imports is there by then, and nothing is
done yet. `python -m tests.commands` reads modules, each a line of JSON, [name, [its arguments, ...]], and says how they
began.
"""

import argparse
import ast
import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import runpy
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE = 60  # seconds until a program has taken its arguments
STARTED = "started"
TOGETHER = (
    "mmjax.evaluate.evaluate",
    "mmjax.inference.model",
    "mmjax.train.plan.plan",
    "mmjax.train.loop",
    "scipy.stats",
)  # what takes time
ROOT = Path(__file__).parent.parent
INLINE = re.compile(r"`([^`]+)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^( {2,}|>>> )", re.MULTILINE)  # how a line of code begins in plain text
PROGRAMS = ("mmjax", "python", "python3", "./launch_tpu.sh", "bash", "pip")
NAMED = re.compile("|".join(rf"{re.escape(program)}[ \t]" for program in PROGRAMS))


def words_of(line: str) -> list[str] | None:
    """A line as a shell reads it, without what is set for it and where its program lies; None where it is no command
    with arguments of one of our programs."""
    line = re.sub(r"^\s*[$!%]\s*", "", line.strip())
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # prose, with an apostrophe
        return None
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if not words:
        return None
    program = words[0] if words[0].startswith("./") else words[0].rpartition("/")[2]
    return [program, *words[1:]] if program in PROGRAMS and len(words) > 1 else None


def _lines(text: str) -> Iterator[str]:
    yield from re.sub(r"\\\n\s*", "", text).splitlines()


def in_markdown(text: str) -> Iterator[list[str]]:
    """Of fenced and indented blocks the lines, of all else what stands between backticks."""
    blocks = FENCE.findall(text)
    rest = FENCE.sub("", text)
    indented = [line for line in _lines(rest) if line.startswith("    ")]
    inline = [" ".join(code.split()) for code in INLINE.findall(re.sub(r"^    .*$", "", rest, flags=re.MULTILINE))]
    for line in [*(line for block in blocks for line in _lines(block)), *indented, *inline]:
        if found := words_of(line):
            yield found


def in_plain(text: str) -> Iterator[list[str]]:
    """Of a docstring or a help text: whole lines that are commands, and what stands between backticks."""
    for line in _lines(text):
        found = words_of(line)
        if found and (CODE.match(line) or found[:2] == ["python", "-m"]):
            yield found
    for code in INLINE.findall(text):
        if found := words_of(" ".join(code.split())):
            yield found


def in_code(file: Path) -> Iterator[list[str]]:
    """Those of a file's docstrings."""
    source = file.read_text(encoding="utf-8")
    left: list[ast.AST] = [ast.parse(source)] if NAMED.search(source) else []
    while left:
        node = left.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield from in_plain(text)
        left += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler)]


def in_notebook(file: Path) -> Iterator[list[str]]:
    """Those of its texts, and of its cells' lines that begin with "!"."""
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield from in_markdown(text)
        else:
            shell = [line for line in _lines(text) if line.lstrip().startswith("!")]
            yield from (found for line in shell if (found := words_of(re.sub(r"[{}]", "", line))))


class Started(BaseException):
    """A program has taken its arguments. (Nothing that it catches.)"""


def begun(module: str, lines: list[list[str]]) -> str:
    """How `python -m MODULE ...` begins with each of these arguments: "" where it would go on to its work, else why it
    doesn't."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return f"there is no module {module}"
    source = Path(spec.origin).read_text(encoding="utf-8")
    if "__main__" not in source:
        return f"{module} does nothing where it is run"
    if "ArgumentParser(" not in source or module == __spec__.name:
        return ""
    take = argparse.ArgumentParser.parse_args

    def taken(parser: argparse.ArgumentParser) -> Any:
        for line in lines:
            take(parser, line)
        raise Started

    argparse.ArgumentParser.parse_args = taken  # pyright: ignore[reportAttributeAccessIssue]
    sys.argv = [module]
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Started:
        return ""
    except SystemExit as error:
        return f"ended with {error.code}: {told.getvalue()[-500:]}"
    except BaseException:
        return traceback.format_exc()[-1500:]
    return f"ended without a look at its arguments: {told.getvalue()[-500:]}"


def main() -> None:
    """Each module in a process of its own, forked from one that has imported what takes time."""
    for module in TOGETHER:
        importlib.import_module(module)

    for line in sys.stdin:
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            signal.alarm(PATIENCE)  # ends one that works before it looks at its arguments
            os.write(writing, (begun(*json.loads(line)) or STARTED).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8") as answer:
            print(json.dumps(answer.read() or f"didn't look at its arguments within {PATIENCE} s"), flush=True)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
