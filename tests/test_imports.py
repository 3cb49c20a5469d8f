"""The house: its folders, and that imports point down from the command line to models, optimisers, data and runtime."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmjax
from mmjax.data import embedding_files

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mmjax"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top. A folder imports from lower levels only, and nothing of its own level but itself.
LEVELS = (
    {"cli"},
    {"train", "inference"},
    {"evaluate"},
    {"interop"},
    {"experiment"},
    {"objectives"},
    {"models", "optim", "data", "runtime"},
)
LEVEL = {folder: level for level, folders in enumerate(LEVELS) for folder in folders}
EVERYONES = ("mmjax", "mmjax.errors", "mmjax.runtime.files")  # import nothing of mmjax but each other
# Folders within a folder: what each may import of the folders beside it. Files of the folder above are for all of them.
WITHIN = {
    "evaluate": {"evaluators": {"metrics"}, "metrics": set(), "report": {"metrics"}, "writing": set()},
    "models": {"towers": {"layers"}, "fusion": {"layers"}, "decoders": {"layers"}, "layers": set()},
    "data": {
        "sources": {"transforms", "datasets"},
        "transforms": {"tokenizers", "decoding"},
        "datasets": {"decoding"},
        "tokenizers": set(),
        "decoding": set(),
        "workers": set(),
    },
    "objectives": {"contrastive": set()},
}


def folders(module: str) -> tuple[str, str]:
    """The folder of `mmjax/` that a module is in, and the one within that: "" where it lies above."""
    names = module.split(".")[1:]
    path = PACKAGE.joinpath(*names)
    names = [*(names if path.is_dir() else names[:-1]), "", ""]
    return names[0], names[1]


def everyones(module: str) -> bool:
    return module in EVERYONES or module.startswith("mmjax.runtime.files.")


def wrong(module: str, wanted: str) -> str | None:
    """Why `module` must not import `wanted`, both of mmjax; None where it may."""
    if everyones(wanted):
        return None
    if everyones(module):
        return "it is below everything"
    (here, inner), (there, other) = folders(module), folders(wanted)
    if here != there:
        return None if LEVEL[there] > LEVEL[here] else f"{there} isn't below {here}"
    may = WITHIN.get(here, {}).get(inner)
    if may is None or other in ("", inner) or other in may:
        return None
    return f"{inner} may not import {other}"


def imported(file: Path, late: bool = True) -> set[str]:
    """Every module that a file imports when it runs, at its top or (`late`) within a function, by absolute name."""
    found = set()
    tree = ast.parse(file.read_text())
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []  # never run
    for node in ast.walk(tree) if late else tree.body:
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


def is_without_jax(file: Path) -> bool:
    return folders(name_of(file)) in (("evaluate", "evaluators"), ("evaluate", "metrics")) or "data" in file.parts


def name_of(file: Path) -> str:
    """The module that a file is."""
    names = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" and len(names) > 2 else names)


@pytest.mark.parametrize("file", [file for file in FILES if file.parent != PACKAGE], ids=name_of)
def test_imports_point_down(file):
    here = name_of(file)
    ours = sorted(module for module in imported(file) if module.split(".")[0] == "mmjax")
    assert not [f"{module}: {why}" for module in ours if (why := wrong(here, module))]


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        ("mmjax.models.towers.vit", "mmjax.runtime.mesh"),
        ("mmjax.data.pipeline", "mmjax.evaluate.contract"),
        ("mmjax.train.loop", "mmjax.inference.model"),
        ("mmjax.inference.model", "mmjax.train.step"),
        ("mmjax.interop.bundle", "mmjax.evaluate.evaluate"),
        ("mmjax.runtime.files.output", "mmjax.runtime.hosts"),
        ("mmjax.models.layers.attention", "mmjax.models.towers.vit"),
        ("mmjax.evaluate.metrics.ranks", "mmjax.evaluate.evaluators.retrieval"),
        ("mmjax.data.transforms.image", "mmjax.data.sources.folder"),
    ],
)
def test_an_import_that_points_up_is_found(module, wanted):
    assert is_module(module)
    assert is_module(wanted)
    assert wrong(module, wanted)


def test_no_file_is_imported_in_a_circle():
    """What runs when a module is imported, at its top: nothing that imports that module again."""
    below = {name_of(file): {m for m in imported(file, late=False) if m.startswith("mmjax.")} for file in FILES}
    order: set[str] = set()
    while len(order) < len(below):
        free = {module for module, wanted in below.items() if module not in order and wanted <= order}
        assert free, f"a circle among {sorted(set(below) - order)}"
        order |= free


def test_the_house_has_a_dozen_doors():
    entries = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert entries == {*LEVEL, "errors.py"}
    assert len(entries) <= 12


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_who_may_import_what_from_outside(file):
    roots = {module.split(".")[0] for module in imported(file)}
    assert "experiments" not in roots
    assert "tests" not in roots
    if is_without_jax(file):
        assert not roots & {"jax", "jaxlib", "flax", "optax", "fiddle", "orbax"}
    if name_of(file) != "mmjax.runtime.checkpoints":
        assert "orbax" not in roots
    assert "tensorflow" not in roots
    if name_of(file) != "mmjax.interop.weight_files":  # which reads PyTorch's own files, in a function, by weights_only
        assert "torch" not in roots


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_one_file_counts_hosts(file):
    counts = {"process_index", "process_count", "host_id", "host_count", "local_device_count"}
    names = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
    assert name_of(file) == "mmjax.runtime.hosts" or not names & counts


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
    """What they do never touches a device; Grain, which imports jax and Orbax, comes with the first batch."""
    modules = [name_of(file) for file in FILES if is_without_jax(file)]
    assert len(modules) > 10
    program = f"""
import importlib, sys
for module in {modules!r}:
    importlib.import_module(module)
    loaded = {{"jax", "flax", "optax", "fiddle", "tensorflow", "grain"}} & sys.modules.keys()
    assert not loaded, f"importing {{module}} loads {{loaded}}"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_s_lazy_names_are_those_that_an_editor_is_told():
    body = next(n for n in ast.parse((ROOT / "mmjax" / "__init__.py").read_text()).body if isinstance(n, ast.If)).body
    told = {a.asname or a.name: n.module for n in body if isinstance(n, ast.ImportFrom) for a in n.names}
    told["embeddings"] = "mmjax.data.embedding_files"  # the file itself
    assert told == mmjax._HOME
    assert sorted([*told, "__version__"]) == mmjax.__all__
    assert mmjax.embeddings is embedding_files
    assert all(getattr(mmjax, name).__module__ == told[name] for name in told.keys() - {"embeddings"})


HEAVY = {
    *("jax", "flax", "optax", "fiddle", "orbax", "grain", "numpy", "rich", "PIL", "soundfile", "etils", "scipy"),
    *("tensorflow_datasets", "tensorboardX", "matplotlib", "transformers", "gradio", "sentencepiece", "libcst"),
}


@pytest.mark.parametrize(
    ("program", "needed"),
    [
        ("import mmjax", set()),
        ("from mmjax.cli.main import main; main([])", set()),
        ("from mmjax.cli.main import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass", set()),
        (  # builds its experiment and counts its parameters
            "from mmjax.cli.main import main; main(['show', 'experiments/quickstart.py'])",
            HEAVY - {"orbax", "grain", "tensorflow_datasets", "tensorboardX", "matplotlib", "transformers", "gradio"},
        ),
        (  # what a process that reads unpickles; Grain brings jax and Orbax of its own accord
            "import grain, mmjax.data.pipeline, mmjax.data.workers.readers",
            {"grain", "jax", "orbax", "numpy", "scipy", "etils", "rich", "PIL", "soundfile", "sentencepiece"},
        ),
    ],
    ids=["import", "help", "train --help", "show", "worker"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(program, needed):
    told = f"{program}\nimport sys; print('loaded:', *(set({sorted(HEAVY)!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.rpartition("loaded:")[2].split()) <= needed
