"""Every command that a text of ours names starts in a fresh shell: README, notebooks, docstrings, `--help`."""

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmjax.cli.main import parsers
from mmjax.errors import UserError
from mmjax.experiment.load import load_experiment
from tests import commands

ROOT = commands.ROOT
PARSERS = parsers()[1]
EXPERIMENT = re.compile(r"experiments/\w+\.py(:\w+)?")
USERS_OWN = ("experiments/own.py",)  # that the README lets one write
REST = {"train": ["experiments/quickstart.py", "--workdir", "w"]}  # what "..." stands for


def named() -> Iterator[tuple[str, list[str]]]:
    """Where a command is named, and its words."""
    for file in [*ROOT.glob("*.md"), *ROOT.glob("experiments/*.md"), *ROOT.glob("notebooks/*.md")]:
        yield from ((file.name, found) for found in commands.in_markdown(file.read_text(encoding="utf-8")))
    for file in ROOT.glob("notebooks/*.ipynb"):
        yield from ((file.name, found) for found in commands.in_notebook(file))
    for folder in ("mmjax", "experiments", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            yield from ((str(file.relative_to(ROOT)), found) for found in commands.in_code(file))
    for name, (parser, _) in PARSERS.items():
        yield from ((f"mmjax {name} --help", found) for found in commands.in_plain(parser.format_help()))
    yield from (("mmjax --help", found) for found in commands.in_plain(parsers()[0].format_help()))
    usage = subprocess.run(["bash", "launch_tpu.sh", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for found in commands.in_plain(usage.stdout):
        if "NAME" not in found:  # what may stand where, and no example
            yield "launch_tpu.sh --help", found


NAMED = list(named())


def every(program: str) -> list[tuple[str, list[str]]]:
    """Those of a program, each once."""
    once = {tuple(words): where for where, words in NAMED if words[0] == program}
    return [(where, list(words)) for words, where in once.items()]


def test_they_are_found():
    """Some that a reader sees, wherever they stand: so that what finds them is no sieve."""
    found = {(where, " ".join(words)) for where, words in NAMED}
    assert {
        ("README.md", "mmjax train experiments/quickstart.py --workdir runs/quickstart"),  # in a fenced block
        ("README.md", "mmjax checkpoints runs/a"),  # in an indented one
        ("README.md", "python -m tests.faults.soak --minutes 60"),  # in a line of prose
        ("README.md", "mmjax train ..."),  # behind what is set for it
        ("README.md", "./launch_tpu.sh siglip --zone europe-west4-b --delete"),
        ("experiments/clip.py", "mmjax train experiments/clip.py:tiny --workdir runs/clip_tiny"),
        ("mmjax export --help", "mmjax export hf:google/siglip-base-patch16-224 --to bv siglip.npz"),
        ("README.md", "python -m tests.faults.mutate"),
        ("tests/benchmarks/step.py", "python -m tests.benchmarks.step --json experiments/records/step.json"),
    } <= found
    assert len(found) > 120


def taken(words: list[str], place: str) -> None:
    """Fails where `mmjax ...` doesn't take these words."""
    command, *arguments = words
    if command in ("--help", "COMMAND", "..."):
        return
    assert command in PARSERS, f"{place}: there is no command {command!r}"
    if all(word.startswith("--") for word in arguments):  # it is spoken of, with an option or without
        assert set(arguments) <= set(PARSERS[command][0]._option_string_actions), f"{place}: {' '.join(words)}"
        return
    if "..." in arguments:
        at = arguments.index("...")
        arguments[at : at + 1] = REST.get(command, ["MODEL"])
    arguments = ["1" if word == "STEP" else word for word in arguments]
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            PARSERS[command][0].parse_intermixed_args(arguments)
    except SystemExit:
        pytest.fail(f"{place}: mmjax {' '.join(words)}: {told.getvalue()}")


def test_mmjax_takes_the_arguments_that_are_named():
    ours = every("mmjax")
    assert len(ours) > 80
    for place, words in ours:
        taken(words[1:], place)
    for place, words in every("python"):
        if words[1:3] == ["-m", "mmjax"]:
            taken(words[3:], place)


def test_the_experiments_that_are_named_are_there_with_what_is_set_in_them():
    """As `mmjax train`, `show` and `plan` open them; overrides are of the one named last."""
    known = set()
    for place, words in every("mmjax"):
        sources = [word for word in words if EXPERIMENT.fullmatch(word) and word not in USERS_OWN]
        overrides = tuple(word for word in words[2:] if "=" in word and not word.startswith("-"))
        for source in sources:
            last = [word for word in words[2:] if word.startswith("runs/") or word in sources][-1]
            of = overrides if source == last or words[1] == "train" else ()
            if (source, of) in known:
                continue
            known.add((source, of))
            try:
                load_experiment(str(ROOT / source), of)
            except UserError as error:
                pytest.fail(f"{place}: {' '.join(words)}: {error}")
    assert len(known) > 30


def test_modules_that_are_named_start_in_a_fresh_shell():
    """Of every `python -m` of ours: imported and its arguments taken, with nothing set but the path."""
    lines: dict[str, list[list[str]]] = {}
    for _, words in every("python"):
        if re.match(r"-m (tests|experiments)\.", " ".join(words[1:])):
            lines.setdefault(words[2], []).append(words[3:])
    assert len(lines) > 12
    done = subprocess.run(
        [sys.executable, "-m", "tests.commands"],
        input="".join(json.dumps(module) + "\n" for module in lines.items()),
        cwd=ROOT,
        env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines), done.stderr
    assert {name: said for name, said in zip(lines, answers, strict=True) if said != commands.STARTED} == {}


def test_what_pytest_and_pip_are_given_is_there():
    (listed,) = [
        node.value
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "extras_require"
    ]
    assert isinstance(listed, ast.Dict)
    extras = {key.value for key in listed.keys if isinstance(key, ast.Constant)}
    for place, words in NAMED:
        if "pip" in words[:3]:
            for word in words:
                asked = re.search(r"(?:^\.|mmjax)\[([\w,]+)\]", word)
                assert asked is None or set(asked[1].split(",")) <= extras, f"{place}: {' '.join(words)}"
        if words[1:3] == ["-m", "pytest"]:
            for word in words[3:]:
                assert not word.startswith("tests/") or (ROOT / word).exists(), f"{place}: {' '.join(words)}"


def test_the_launcher_s_examples_are_taken_and_so_is_what_they_run(tmp_path):
    (tmp_path / "gcloud").write_text("#!/bin/sh\nexit 1\n")  # nothing is created here
    (tmp_path / "gcloud").chmod(0o755)
    ours = [(place, words) for place, words in every("./launch_tpu.sh") if "--" in words]
    assert len(ours) >= 2
    for place, words in ours:
        at = words.index("--")
        taken(words[at + 1 :], place)
        given = [*words[1:at], *(() if "--dry-run" in words else ("--dry-run",)), *words[at:]]
        done = subprocess.run(
            ["bash", "launch_tpu.sh", *given],
            cwd=ROOT,
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{place}: {' '.join(words)}: {done.stderr}"
        assert "tpu" in done.stdout + done.stderr


def test_it_is_seen_where_a_command_is_wrong():
    for words in (["trian", "x"], ["evaluate", "runs/a", "--sption", "1"], ["train", "--sption"], ["train", "x.py"]):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            taken(words, "here")
    assert commands.begun("tests.no_such", [[]]) == "there is no module tests.no_such"
    assert list(commands.in_plain("  mmjax show a  # b\nmmjax shows a\n`python -m x`")) == [
        ["mmjax", "show", "a"],
        ["python", "-m", "x"],
    ]
    assert Path(commands.__file__).name == "commands.py"
