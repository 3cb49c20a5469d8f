"""A word means one thing: no two public classes or functions of the package have one name with two meanings."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "mmjax").rglob("*.py"))

# What stands in several files and means the same there, by the folder that all of these files are in, and why.
ALIKE = {
    ("add", "run"): ("mmjax/cli/", "each command adds its arguments to the parser, and runs"),
    ("read", "write", "near"): (
        "mmjax/interop/",
        "each format reads checkpoints into our parts, writes them, and finds its nearest model",
    ),
    ("read", "write"): ("mmjax/interop/hf/", "the parts of Hugging Face's format are read and written as it is"),
    ("describe", "model_parts", "rules", "renamed", "restored"): (
        "mmjax/interop/",
        "each family's config to our parts and back, and its parameters' names to ours and back",
    ),
    ("how_to_load", "ids"): (
        "mmjax/interop/",
        "each project's own library: how it opens a model, and its ids of texts",
    ),
    ("image", "image_of", "image_rules", "text", "text_of", "text_rules"): (
        "mmjax/interop/hf/",
        "each family's tower of one modality from its config, its config from the tower, its parameters",
    ),
    ("inputs", "pictures", "texts", "from_hugging_face", "from_open_clip"): (
        "mmjax/interop/",
        "chains of one modality, as each project's preprocessing says them",
    ),
    ("catalogue", "draw", "groups", "split_of"): (
        "mmjax/data/datasets/",
        "each dataset's list of examples, how one is drawn, what it belongs with, and its split",
    ),
}
# Verbs that are said with their module, `hosts.first`, `output.write`: no file imports them by the name alone.
WITH_MODULE = {
    "mmjax.data.embedding_files": ("read",),
    "mmjax.interop.config_keys": ("whole",),
    "mmjax.interop.weight_files": ("read", "write"),
    "mmjax.interop.card": ("write",),
    "mmjax.models.layers.pooling": ("first",),
    "mmjax.runtime.copies": ("whole", "write"),
    "mmjax.runtime.files.digests": ("write",),
    "mmjax.runtime.files.json_text": ("read", "text"),
    "mmjax.runtime.files.output": ("sweep", "write"),
    "mmjax.runtime.hosts": ("first", "join", "whole"),
    "mmjax.runtime.jsonl": ("read",),
    "mmjax.runtime.metrics": ("read",),
}
PROCESSES = ("main",)  # what a process runs


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def defined() -> dict[str, list[Path]]:
    """Public classes and functions at the top of a file, by name."""
    found = defaultdict(list)
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                found[node.name].append(file)
    return found


def meanings(name: str, files: list[Path]) -> list[str]:
    """The files that define a name with a meaning of its own; several of one meaning are one."""
    folders = [folder for names, (folder, _) in ALIKE.items() if name in names]
    alike: set[str] = set()
    found = []
    for file in files:
        if name in WITH_MODULE.get(module_of(file), ()) or name in PROCESSES:
            continue
        path = file.relative_to(ROOT).as_posix()
        if folder := next((folder for folder in folders if path.startswith(folder)), None):
            alike.add(folder)
        else:
            found.append(path)
    return [*found, *sorted(alike)]


def test_no_public_name_has_two_meanings():
    twice = {name: where for name, files in defined().items() if len(where := meanings(name, files)) > 1}
    assert not twice


@pytest.mark.parametrize("module", WITH_MODULE)
def test_verbs_that_are_said_with_their_module_are_imported_by_no_other_name(module):
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == module:
                bare = {alias.name for alias in node.names} & set(WITH_MODULE[module])
                assert not bare, f"{file}:{node.lineno} imports {', '.join(bare)} without {module}"


def test_the_lists_hold_nothing_that_is_not_there():
    there = defined()
    for names, (folder, why) in ALIKE.items():
        for name in names:
            files = [file for file in there[name] if file.relative_to(ROOT).as_posix().startswith(folder)]
            assert len(files) > 1, f"{name} in {folder}: {why}"
    for module, names in WITH_MODULE.items():
        for name in names:
            assert any(module_of(file) == module for file in there[name]), f"{module}.{name}"
            assert len(there[name]) > 1, f"{module}.{name} has no namesake any more"


def test_a_second_meaning_is_found():
    files = [ROOT / "mmjax/models/towers/shared_trunk.py", ROOT / "mmjax/models/towers/resnet.py"]
    assert meanings("Trunk", files) == ["mmjax/models/towers/shared_trunk.py", "mmjax/models/towers/resnet.py"]
    assert meanings("read", [ROOT / "mmjax/interop/onnx.py", ROOT / "mmjax/runtime/jsonl.py"]) == ["mmjax/interop/"]
