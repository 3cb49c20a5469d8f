"""Errors: those meant for a person are told from faults by their class alone, and survive the way between processes."""

import ast
import builtins
import importlib
import pickle
import re
from pathlib import Path

import pytest

from mmjax.errors import PassingError, UserError, nearest, not_among, unknown

PACKAGE = Path(__file__).parent.parent / "mmjax"
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

# What nobody is told of: a method that a class leaves to others, and ends of an iterator, a thread and the program.
NO_ERRORS = {"NotImplementedError", "StopIteration", "SystemExit", "KeyboardInterrupt"}
# Python's own errors that our code raises, and why each of them isn't a UserError.
FAULTS = {
    "__init__.py": {"AttributeError": "what a module's __getattr__ is to raise"},
    "data/datasets/stamps/builder.py": {"AssertionError": "how TFDS says that files are downloaded by hand"},
    "data/decoding/mp3.py": {"AssertionError": "a mistake in this file"},
    "data/decoding/videos.py": {"ValueError": "caught there, with FFmpeg's"},
    "data/embedding_files.py": {"ValueError": "caught there, with the errors of json and safetensors"},
    "data/prepare/shard.py": {"OSError": "the system's own, which ArrayRecord told in words: told as such in main.py"},
    "data/segment_records.py": {"ValueError": "caught there, with those of bytes that are no record"},
    "data/shard_names.py": {"IndexError": "how a sequence ends"},
    "data/tokenizers/word_tree.py": {"ValueError": "caught there, with those of safetensors and json"},
    "data/transforms/reserve/streams.py": {"TypeError": "a chain that wasn't prepared: no command makes one"},
    "data/transforms/reserve/web_text.py": {"TypeError": "a chain that wasn't prepared: no command makes one"},
    "data/transforms/text.py": {"TypeError": "a chain that wasn't prepared: no command makes one"},
    "inference/classification.py": {"TypeError": "an attribute of other classifications, asked for in Python"},
    "interop/onnx.py": {"ValueError": "caught there, with numpy's", "TypeError": "caught there, with numpy's"},
    "runtime/files/archives.py": {"ValueError": "caught there, with numpy's and zipfile's"},
    "runtime/files/own_code.py": {"OSError": "what a loader raises, by importlib's contract"},
    "runtime/files/digests.py": {"ValueError": "caught there, with json's"},
    "runtime/files/json_text.py": {"ValueError": "what json.loads raises, for those who catch that"},
    "runtime/hosts.py": {"TypeError": "what json.dumps asks of its `default`"},
    "train/ahead.py": {"RuntimeError": "ends a thread for whose result nobody is left to ask"},
    "train/same_data.py": {"TypeError": "caught there, with the errors of json"},
}
# Classes of our own that nobody is told of: each is caught.
CAUGHT = {"BadExample", "Clash", "OfflineError", "_TooLargeError"}


def made(tree: ast.Module) -> dict[str, int]:
    """Python's own errors that are made or raised in a file, each with a line that does."""
    found = {}
    for node in ast.walk(tree):
        value = node.func if isinstance(node, ast.Call) else node.exc if isinstance(node, ast.Raise) else None
        kind = getattr(builtins, value.id, None) if isinstance(value, ast.Name) else None
        if value is not None and isinstance(kind, type) and issubclass(kind, BaseException):
            found.setdefault(kind.__name__, value.lineno)
    return found


@pytest.mark.parametrize("file", TREES)
def test_what_a_person_can_cause_is_a_user_error(file):
    found = {f"{name}, line {line}" for name, line in made(TREES[file]).items()
             if name not in NO_ERRORS and name not in FAULTS.get(file, {})}  # fmt: skip
    assert not found, "raise UserError, or say in FAULTS why nobody is told of it"


def test_every_exception_has_its_reason():
    there = {file: set(made(tree)) - NO_ERRORS for file, tree in TREES.items()}
    assert {file: set(faults) for file, faults in FAULTS.items()} == {
        file: names for file, names in there.items() if names
    }


@pytest.mark.parametrize("text", ["raise ValueError('x')", "raise KeyError", "def f():\n    return RuntimeError('x')"])
def test_a_new_one_is_found(text):
    assert made(ast.parse(text))


def ends(base: ast.expr) -> str:
    return re.sub(r".*(Error|Exception)$", r"\1", ast.unparse(base))


def errors() -> dict[str, type[BaseException]]:
    """The package's own exceptions, by name."""
    named = {}
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(ends(base) in ("Error", "Exception") for base in node.bases):
                named[node.name] = file
    modules = {name: ".".join(("mmjax", *Path(file).with_suffix("").parts)) for name, file in named.items()}
    return {name: getattr(importlib.import_module(module), name) for name, module in modules.items()}


def test_those_of_our_own_are_told_or_caught():
    found = errors()
    assert {"UserError", "PassingError", "CheckpointError", "DatasetError", "SplitNotFoundError", "StalledError"} <= {
        *found
    }
    assert {name for name, kind in found.items() if not issubclass(kind, UserError | PassingError)} == CAUGHT


def test_they_come_whole_out_of_another_process():
    for name, kind in errors().items():
        if name not in CAUGHT:
            again = pickle.loads(pickle.dumps(kind("a.csv: no such file")))
            assert (type(again), str(again)) == (kind, "a.csv: no such file")


def test_a_value_that_is_none_of_those_allowed_is_told_with_the_nearest():
    assert (
        not_among("remat", "ful", iter(("full", "dots"))) == "remat='ful' is not one of full, dots; did you mean full?"
    )
    assert not_among("remat", None, ("full",)) == "remat=None is not one of full"
    assert unknown("weights", "pari", ("pair",), "objectives") == (
        "weights 'pari', but the objectives are pair; did you mean pair?"
    )
    assert unknown("weights", "pari", (), "objectives") == "weights 'pari', but the objectives are none"
    assert nearest("caption", ("captions", "captain", "image")) == "; did you mean captions or captain?"
    assert nearest("caption", ("image",)) == ""
