"""The record of the slow tests holds how each of them ended."""

import subprocess
import sys

from tests import slow

TESTS = """
import pytest


def test_well():
    pass


def test_badly():
    assert False


@pytest.fixture
def broken():
    raise ValueError


def test_not_at_all(broken):
    pass


@pytest.mark.parametrize("part", ["a"])
def test_elsewhere(part):
    pytest.skip("needs a GPU")
"""


def test_each_end_is_told_by_the_test_s_name(tmp_path):
    (tmp_path / "test_four.py").write_text(TESTS)
    junit = tmp_path / "junit.xml"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", str(tmp_path)]
    subprocess.run(words, cwd=tmp_path, capture_output=True, check=False)
    found = slow.ended(junit)
    assert {name: each["end"] for name, each in found.items()} == {
        "test_four.py::test_well": "passed",
        "test_four.py::test_badly": "failed",
        "test_four.py::test_not_at_all": "error",
        "test_four.py::test_elsewhere[a]": "skipped",
    }
    assert found["test_four.py::test_elsewhere[a]"]["why"] == "needs a GPU"
    assert all(each["seconds"] >= 0 for each in found.values())
