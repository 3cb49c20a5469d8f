"""The package as a shell, an editor and pip see it."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import mmjax

ROOT = Path(__file__).parent.parent
PUBLIC = ["Experiment", "Load", "Model", "UserError", "__version__", "embeddings", "load"]


def test_completion_lists_the_public_names_and_no_others():
    assert dir(mmjax) == PUBLIC == mmjax.__all__
    assert all(getattr(mmjax, name) is not None for name in dir(mmjax))


def test_looking_imports_nothing():
    program = """
import sys, time
start = time.process_time()
import mmjax
dir(mmjax), mmjax.__doc__
took = time.process_time() - start
assert not {"jax", "numpy", "flax", "mmjax.inference.model"} & set(sys.modules)
mmjax.embeddings.read, mmjax.UserError  # which need no model, and so no jax
assert not {"jax", "flax"} & set(sys.modules)
print(took)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.5  # CPU-seconds: 5 ms or so; jax alone takes one


def test_every_file_that_is_no_code_goes_along(monkeypatch):
    """`pip install` takes what setup.py names: the marker of types among them (PEP 561)."""
    monkeypatch.chdir(ROOT)
    told: dict[str, Any] = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: told.update(arguments))
    runpy.run_path("setup.py")
    taken = {
        file
        for package, patterns in told["package_data"].items()
        for pattern in patterns
        for file in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    there = {
        path
        for path in (ROOT / "mmjax").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    }
    assert ROOT / "mmjax" / "py.typed" in there
    assert there - taken == set()
