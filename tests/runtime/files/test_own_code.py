"""Files of Python that a user names: what is run, what it is called, and what counts as defined there."""

import pickle
import sys
from pathlib import Path

import pytest

from mmjax.errors import UserError
from mmjax.runtime.files import own_code
from mmjax.runtime.files.own_code import class_of, importable, load_own, named, of_class, of_parts, read_own

OWN = """
import json
from dataclasses import dataclass
from os import system
from helping_one import Base, scale

@dataclass(frozen=True)
class Mine(Base):
    factor: int = 2

    @dataclass
    class Inner:
        pass

    def later(self):
        import helping_one
        return helping_one.scale(self.factor)

Other = Mine
"""
HELPING = """
from dataclasses import dataclass
from helping_two import TIMES

@dataclass(frozen=True)
class Base:
    pass

def scale(x):
    return TIMES * x
"""


def folder(path: Path, times: int) -> Path:
    path.mkdir(exist_ok=True)
    (path / "own.py").write_text(OWN)
    (path / "helping_one.py").write_text(HELPING)
    (path / "helping_two.py").write_text(f"import helping_one\nTIMES = {times}\n")
    (path / "unread.py").write_text("raise SystemExit")
    return path


def test_a_file_is_read_with_the_neighbours_that_it_imports_and_no_others(tmp_path):
    own = read_own(folder(tmp_path / "a", 3) / "own.py")
    assert [name for name, _ in own.beside] == ["helping_one.py", "helping_two.py"]
    assert [file.name for file in own.neighbours()] == ["helping_one.py", "helping_two.py"]
    assert [name for name, _ in own.neighbours()[1].beside] == ["helping_one.py", "helping_two.py"]  # a circle
    assert own.text == OWN.encode()


def test_it_runs_once_and_an_edit_or_another_folder_is_another_module(tmp_path):
    first = load_own(read_own(folder(tmp_path / "a", 3) / "own.py"))
    assert load_own(read_own(tmp_path / "a" / "own.py")) is first
    assert load_own(read_own(folder(tmp_path / "b", 5) / "own.py")).Mine().later() == 10
    assert (first.scale(1), load_own(read_own(tmp_path / "a" / "own.py")).scale(1)) == (3, 3)
    (tmp_path / "a" / "helping_two.py").write_text("TIMES = 7\n")  # which own.py imports through another
    second = load_own(read_own(tmp_path / "a" / "own.py"))
    assert second is not first
    assert (first.scale(1), second.scale(1)) == (3, 7)
    assert not list(tmp_path.rglob("__pycache__"))
    assert str(tmp_path / "a") not in sys.path


def test_what_runs_is_what_was_read(tmp_path):
    own = read_own(folder(tmp_path / "a", 3) / "own.py")
    (tmp_path / "a" / "own.py").write_text("raise SystemExit")
    assert load_own(own).Mine().factor == 2


def test_a_module_that_is_there_already_stays_and_an_installed_package_is_not_hidden(tmp_path, monkeypatch):
    theirs = type(sys)("helping_one")
    monkeypatch.setitem(sys.modules, "helping_one", theirs)
    (folder(tmp_path / "a", 3) / "json.py").write_text("raise SystemExit")
    own = read_own(tmp_path / "a" / "own.py")
    assert "json.py" not in dict(own.beside)
    module = load_own(own)
    assert module.scale(1) == 3
    assert module.json.dumps({}) == "{}"
    assert sys.modules["helping_one"] is theirs
    with importable(own):
        assert __import__("helping_one") is load_own(own.neighbours()[0])


def test_only_classes_that_the_file_defines_under_their_own_names_are_its_own(tmp_path):
    own = read_own(folder(tmp_path / "a", 3) / "own.py")
    module = load_own(own)
    assert class_of(own, "Mine") is module.Mine
    assert of_class(module.Mine) == own
    others = "system json Base Other Inner Mine.Inner dataclass scale __loader__ nothing"
    for name in others.split():
        assert class_of(own, name) is None
    assert of_class(module.Base) == own.neighbours()[0]
    assert of_class(module.Mine.Inner) is None
    liar = type("Mine", (), {"__module__": module.__name__})
    assert of_class(liar) is None
    assert of_class(dict) is None
    assert of_class(print) is None


def test_another_process_is_told_of_the_files_whose_classes_it_reads_with(tmp_path):
    own = read_own(folder(tmp_path / "a", 3) / "own.py")
    mine = load_own(own).Mine()
    assert of_parts({"image": (1, [mine, mine])}) == (own,)
    assert of_parts({"image": 1}) == ()
    assert pickle.loads(pickle.dumps(own)) == own
    assert pickle.loads(pickle.dumps(mine)) == mine


def test_a_fault_of_the_file_is_its_own_and_it_can_be_mended(tmp_path):
    path = tmp_path / "own.py"
    for text in ("1 / 0", "class"):
        path.write_text(text)
        with pytest.raises(ZeroDivisionError if "/" in text else SyntaxError):
            load_own(read_own(path))
    assert not [name for name in sys.modules if name == read_own(path).module]


def test_what_can_not_be_named_says_why(tmp_path):
    (tmp_path / "own.py").write_text("")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "own.py").write_text("A = 1")
    (tmp_path / "c.py").mkdir()
    for code, message in (
        ("own.txt", r"code='own.txt' is no file of Python: name one, own\.py say"),
        (tmp_path / "gone.py", r"code='.*gone\.py': there is no such file"),
        (tmp_path / "c.py", r"c\.py is a folder and no file"),
        ([tmp_path / "own.py", tmp_path / "b" / "own.py"], r"own\.py is two files, .*/own\.py and .*/b/own\.py: a rec"),
    ):
        with pytest.raises(UserError, match=message):
            named(code)
    assert named(None) == ()
    assert named(named(tmp_path / "own.py")) == named([tmp_path / "own.py", str(tmp_path / "own.py")])
    assert own_code.ENDING == ".py"
