"""Imports point down the house: the command line, the loops, the experiment, the parts, objectives, models."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmjax

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mmjax"
FILES = sorted(PACKAGE.rglob("*.py"))

# What a part may import besides its own package. A part is a file of mmjax/, or a folder.
BOTTOM = {
    *("archives", "bounds", "counts", "digests", "errors", "families", "files", "json_text", "kinds", "lines", "names"),
    "regular",
}
MODELS = {"models"} | BOTTOM
OBJECTIVES = {"objectives"} | MODELS
MIDDLE = {
    "step",
    "guard",
    "checkpoint",
    "copies",
    "metrics",
    "progress",
    "optim",
    "optimizer",
    "mesh",
    "hosts",
    "keeping",
    "data",
    "confined",
    "evaluators",
}
GRAPH = {"configs", "hints", "serialization"}  # of experiments: what reads, changes and writes them
ARROWS = {
    "__init__": set(),  # lazy: it imports when asked
    "errors": set(),
    "counts": set(),
    "families": {"counts"},
    "files": {"errors"},
    "regular": {"errors"},
    "kinds": set(),
    "lines": {"files", "json_text", "regular"},
    "archives": {"errors", "regular"},
    "bounds": {"errors"},
    "json_text": {"errors", "regular"},
    "names": {"errors"},
    "tensorboard": set(),
    "models": MODELS,
    "objectives": OBJECTIVES,
    "data": {"data"} | BOTTOM,
    "evaluators": {"evaluators"} | BOTTOM,
    "confined": {"copies", "data"} | BOTTOM,  # what a record may name
    "schedules": BOTTOM,
    "optimizer": {"schedules"} | BOTTOM,
    "optim": {"optimizer"} | BOTTOM,
    "mesh": BOTTOM,
    "launch": BOTTOM,
    "hosts": {"launch", "mesh"} | BOTTOM,
    "digests": {"errors", "json_text", "regular"},
    "copies": {"checkpoint"} | BOTTOM,
    "lock": BOTTOM,
    "keeping": BOTTOM,
    "checkpoint": {"digests", "hosts", "keeping"} | BOTTOM,
    "progress": BOTTOM,
    "metrics": {"checkpoint", "copies", "progress", "tensorboard"} | BOTTOM,
    "guard": BOTTOM,
    "step": {"guard", "mesh", "optimizer"} | OBJECTIVES,
    "hints": BOTTOM,
    "configs": {"hints"} | BOTTOM,
    "serialization": {"configs", "__init__"} | BOTTOM,
    "fit": {"data"} | OBJECTIVES,
    "experiment": {"fit"} | MIDDLE | GRAPH | OBJECTIVES,
    "planning": {"planning", "data", "hosts"} | BOTTOM,
    "plan": {"planning", "experiment", "workdir"} | MIDDLE | GRAPH | OBJECTIVES,
    "listing": {"checkpoint", "metrics", "progress"} | BOTTOM,
    "show": {"experiment"} | MIDDLE | GRAPH | OBJECTIVES,
    "interruption": BOTTOM,  # these eight are the loop's own
    "goodput": {"progress"} | BOTTOM,
    "log": {"goodput", "metrics", "progress"} | BOTTOM,
    "bad_examples": {"experiment"} | MIDDLE | GRAPH | OBJECTIVES,
    "trace": BOTTOM,
    "supervise": BOTTOM,
    "truncation": {"experiment"} | MIDDLE | GRAPH | OBJECTIVES,
    "initial": {"experiment", "interop"} | MIDDLE | GRAPH | OBJECTIVES,
    "workdir": {"experiment"} | MIDDLE | GRAPH | OBJECTIVES,
    "interop": {"interop", "experiment", "__init__"} | MIDDLE | GRAPH | OBJECTIVES,
    "inputs": {"data"} | BOTTOM,
    "embedding": {"inputs", "mesh"} | OBJECTIVES,
    "reading": {"embedding", "inputs"},
    "calibration": OBJECTIVES,
    "classification": {"evaluators"} | BOTTOM,
    "loading": {"calibration", "classification", "embedding", "experiment", "inputs", "interop", "reading"}
    | MIDDLE
    | GRAPH
    | OBJECTIVES,
    "same_data": {"data", "hosts"} | BOTTOM,
    "replay": {"experiment", "same_data", "truncation", "workdir"} | MIDDLE | GRAPH | OBJECTIVES,
    "benchmarks": {"experiment"} | MIDDLE | GRAPH | OBJECTIVES,
    "reporting": {"reporting", "data", "evaluators", "progress"} | BOTTOM,
    "report": {"__init__", "experiment", "reporting"} | MIDDLE | GRAPH | OBJECTIVES,
    "published": {"interop"} | BOTTOM,
    "held_out": {"step"} | MIDDLE | OBJECTIVES,
    "evaluate": {"benchmarks", "experiment", "held_out", "interop", "published", "report", "workdir"}
    | MIDDLE
    | GRAPH
    | OBJECTIVES,
    "embeddings": {"evaluators"} | BOTTOM,
    "features": {"data", "embeddings"} | BOTTOM,
    "evaluate_embeddings": {"benchmarks", "embeddings", "evaluate", "published"} | MIDDLE | BOTTOM,
    "embed": {"__init__", "benchmarks", "embeddings", "evaluate", "experiment", "interop", "workdir"}
    | MIDDLE
    | GRAPH
    | OBJECTIVES,
    "searching": {"__init__", "embed", "embedding", "experiment", "interop", "loading"} | MIDDLE | GRAPH | OBJECTIVES,
    "serving": {"data", "searching"} | BOTTOM,
    "uploads": BOTTOM,
    "in_part": {"data"} | BOTTOM,
    "page": {"in_part", "interop", "reporting", "searching", "serving", "uploads", "workdir"}
    | MIDDLE
    | GRAPH
    | OBJECTIVES,
    "watch": {"evaluate", "experiment", "workdir"} | MIDDLE | GRAPH | OBJECTIVES,
    "train": {
        *("bad_examples", "evaluate", "experiment", "goodput", "initial", "interruption", "lock", "log", "replay"),
        *("same_data", "trace", "truncation", "workdir"),
    }
    | MIDDLE
    | GRAPH
    | OBJECTIVES,
    "cli": {
        *(
            "cli",
            "confined",
            "data",
            "embed",
            "evaluate",
            "evaluate_embeddings",
            "experiment",
            "interop",
            "interruption",
            "listing",
            "page",
            "plan",
            "published",
            "replay",
            "show",
            "supervise",
            "train",
            "watch",
        ),
    }
    | BOTTOM,
    "__main__": {"cli", "__init__"} | BOTTOM,
}


def part(module: str) -> str:
    """`mmjax.models.image` -> models, `mmjax` -> __init__."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imported(file: Path) -> set[str]:
    """Every module that a file imports when it runs, at its top or within a function, by absolute name."""
    found = set()
    tree = ast.parse(file.read_text())
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []  # never run
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            assert node.module is not None
            found |= {
                f"{node.module}.{alias.name}" if is_module(f"{node.module}.{alias.name}") else node.module
                for alias in node.names
            }
    return found


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def name_of(file: Path) -> str:
    """The module that a file is."""
    names = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" and len(names) > 2 else names)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_down(file):
    here = part(name_of(file))
    assert here in ARROWS, f"say in ARROWS what {here} may import"
    ours = {module for module in imported(file) if module.split(".")[0] == "mmjax"}
    wrong = {module for module in ours if part(module) not in ARROWS[here]}
    assert not wrong, f"{name_of(file)} may import {sorted(ARROWS[here])} of mmjax, but imports {sorted(wrong)}"


def test_the_arrows_have_no_circle():
    order: list[str] = []
    while len(order) < len(ARROWS):
        free = [p for p, below in ARROWS.items() if p not in order and below - {p} <= set(order)]
        assert free, f"a circle among {sorted(set(ARROWS) - set(order))}"
        order += free


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_who_may_import_what_from_outside(file):
    roots = {module.split(".")[0] for module in imported(file)}
    assert "experiments" not in roots
    assert "tests" not in roots
    if part(name_of(file)) in ("data", "evaluators"):
        assert not roots & {"jax", "jaxlib", "flax", "optax", "fiddle", "orbax"}
    if name_of(file) != "mmjax.checkpoint":
        assert "orbax" not in roots
    assert "tensorflow" not in roots
    if name_of(file) != "mmjax.interop.tensors":  # which reads PyTorch's own files, in a function, by weights_only
        assert "torch" not in roots


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_one_file_counts_hosts(file):
    counts = {"process_index", "process_count", "host_id", "host_count", "local_device_count"}
    names = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
    assert name_of(file) == "mmjax.hosts" or not names & counts


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_that_is_read_can_bring_code(file):
    """What unpickles or evaluates runs what it reads: neither stands anywhere in the package."""
    runs_code = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "yaml"}
    assert not {module.split(".")[0] for module in imported(file)} & runs_code
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "compile", "__import__"), f"{file}:{node.lineno}"
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle", f"{file}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_holds_one_idea(file):
    lines = len(file.read_text().splitlines())
    assert lines <= 400, f"{file} has {lines} lines: a sign that it holds two ideas"


def test_data_and_evaluators_load_without_jax():
    """What they do never touches a device. Grain imports jax of its own accord, so what imports Grain is left out."""
    files = [file for file in FILES if part(name_of(file)) in ("data", "evaluators") and "grain" not in imported(file)]
    modules = [name_of(file) for file in files]
    assert len(modules) > 10
    program = f"""
import importlib, sys
for module in {modules!r}:
    importlib.import_module(module)
    loaded = {{name.split(".")[0] for name in sys.modules}} & {{"jax", "flax", "optax", "fiddle", "tensorflow"}}
    assert not loaded, f"importing {{module}} loads {{loaded}}"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_s_lazy_names_are_those_that_an_editor_is_told():
    body = next(n for n in ast.parse((ROOT / "mmjax" / "__init__.py").read_text()).body if isinstance(n, ast.If)).body
    told = {alias.name: n.module for n in body if isinstance(n, ast.ImportFrom) for alias in n.names}
    assert told == mmjax._HOME
    assert sorted([*told, "__version__"]) == mmjax.__all__
    files = {name for name, home in told.items() if home == "mmjax"}
    assert all(getattr(mmjax, name) is sys.modules[f"mmjax.{name}"] for name in files)
    assert all(getattr(mmjax, name).__module__.startswith(told[name]) for name in told.keys() - files)


def test_the_command_line_starts_without_jax():
    program = "import sys, mmjax.__main__; assert not {'jax', 'numpy', 'rich', 'fiddle'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
