import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmjax.cli.main import main, program
from mmjax.runtime import huge_pages
from mmjax.runtime.huge_pages import VARIABLE, tunables

ASKED = "glibc.malloc.hugetlb=1"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch) -> Path:
    """The system's policy, in a file that a test may write anew: on request."""
    file = tmp_path / "enabled"
    file.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "POLICY", file)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.35")
    return file


def test_a_program_asks_where_it_must(policy: Path):
    assert tunables({}) == ASKED
    assert tunables({VARIABLE: ""}) == ASKED
    assert tunables({VARIABLE: "glibc.malloc.check=3"}) == f"glibc.malloc.check=3:{ASKED}"


@pytest.mark.parametrize("word", [ASKED, "glibc.malloc.hugetlb=0", "glibc.malloc.check=3:glibc.malloc.hugetlb=2"])
def test_what_the_user_says_stands(policy: Path, word):
    assert tunables({VARIABLE: word}) is None


@pytest.mark.parametrize("said", ["[always] madvise never", "always madvise [never]"])
def test_nobody_asks_who_has_them_anyway_or_never_will(policy: Path, said):
    policy.write_text(said)
    assert tunables({}) is None


def test_nobody_asks_on_another_system(policy: Path, monkeypatch):
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.34")
    assert tunables({}) is None
    monkeypatch.setattr(os, "confstr", lambda name: None)
    assert tunables({}) is None
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.41")
    assert tunables({}) == ASKED
    policy.unlink()
    assert tunables({}) is None


PROGRAM = """
import os, sys
from pathlib import Path
from mmjax.runtime import huge_pages
huge_pages.POLICY = Path(sys.argv[1])
print(os.getpid(), sys.argv[2:], flush=True)
huge_pages.restart()
print(os.environ["GLIBC_TUNABLES"])
"""


def test_it_starts_anew_once_as_the_same_process_with_the_same_words(tmp_path: Path):
    policy = tmp_path / "enabled"
    policy.write_text("[madvise]")
    without = {name: value for name, value in os.environ.items() if name != VARIABLE}
    words = [sys.executable, "-X", "utf8", "-c", PROGRAM, str(policy), "a b", "--c"]
    said = subprocess.run(words, env=without, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == said[1]
    assert said[0].endswith("['a b', '--c']")
    assert said[2:] == [ASKED]
    again = subprocess.run(words, env=without | {VARIABLE: ASKED}, capture_output=True, text=True, check=True).stdout
    assert len(again.splitlines()) == 2


def huge_kilobytes(value: str, held: str = "bytearray(64 << 20)") -> int:
    """Of a program that holds 64 MB."""
    program = f"import mmap; held = {held}; print(open('/proc/self/smaps_rollup').read())"
    environment = os.environ | {VARIABLE: value}
    words = [sys.executable, "-c", program]
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    return int(next(line for line in said.splitlines() if line.startswith("AnonHugePages")).split()[1])


BY_HAND = (
    "mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE); held.madvise(mmap.MADV_HUGEPAGE); held.write(bytes(len(held)))"
)


def test_the_pages_are_huge():
    value = tunables({})
    if value is None:
        pytest.skip("this system has none on request")
    # No certain number: the system gives as many as it has whole pieces of memory for, and some systems (a container's
    # own kernel among them) have the file that says so and give none.
    if huge_kilobytes("", BY_HAND) == 0:
        pytest.skip("this system gives none to a program that asks by itself either")
    assert huge_kilobytes(value) > huge_kilobytes("")


def test_commands_that_compute_ask_and_nothing_else_does(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(huge_pages, "restart", lambda: asked.append(sys.argv[1]))
    lines = ("train nowhere.py --workdir nowhere", "evaluate nowhere", "show nowhere.py", "checkpoints nowhere")
    for words in map(str.split, lines):
        assert main(words) == 2
        assert not asked  # within another program
    for words in map(str.split, lines):
        monkeypatch.setattr(sys, "argv", ["mmjax", *words])
        before = list(asked)
        assert main() == 2  # what other programs call
        assert asked == before
        assert program() == 2
    assert asked == ["train", "evaluate"]
    capsys.readouterr()
