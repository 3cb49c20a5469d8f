"""Every file, public class, function and method is documented; the docstring begins by saying what it is or does."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "mmjax").rglob("*.py"))

# A sentence that starts with one of these is a clause that lacks its verb, or hides the subject behind it.
CLAUSE = re.compile(r"(What|How|Which|Whether|Where|That|Of|With|From|By|As)\b")
# Methods that a framework calls and documents: Linen's.
FRAMEWORKS = ("setup",)

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Thing(NamedTuple):
    """A class or a function of the package: the path of its names, and the class that it is a method of, if any."""

    name: str
    node: ast.ClassDef | Function
    owner: ast.ClassDef | None


def things(body: list[ast.stmt], owner: ast.ClassDef | None = None, path: str = "") -> Iterator[Thing]:
    """The public classes, functions and methods; what is defined within a function is that function's own affair."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield Thing(path + node.name, node, owner)
            if isinstance(node, ast.ClassDef):
                yield from things(node.body, node, f"{path}{node.name}.")


def read(sources: Mapping[str, str]) -> list[tuple[str, Thing]]:
    """The public things of files, by the files' texts."""
    return [(file, thing) for file, text in sources.items() for thing in things(ast.parse(text).body)]


def undocumented(found: Sequence[tuple[str, Thing]]) -> list[str]:
    """`file: name` of all that lacks a docstring.

    A method has its base's, or its contract's (a Protocol's): by its name, be it a method there or a field. A stub
    (`...`, or one of several overloads) is documented with its class, or with the function itself.
    """
    classes: dict[str, list[ast.ClassDef]] = defaultdict(list)
    for _, thing in found:
        if isinstance(thing.node, ast.ClassDef):
            classes[thing.node.name].append(thing.node)
    contracts = {
        name for each in classes.values() for one in each if "Protocol" in names_of(one) for name in told_by(one)
    }
    return [
        f"{file}: {thing.name}"
        for file, thing in found
        if ast.get_docstring(thing.node) is None
        and not is_stub(thing.node)
        and not (thing.owner is not None and thing.node.name in {*inherited(thing.owner, classes), *contracts})
        and thing.node.name not in FRAMEWORKS
    ]


def inherited(node: ast.ClassDef, classes: Mapping[str, list[ast.ClassDef]]) -> set[str]:
    """The names that the classes above a class document."""
    above = [base for name in names_of(node) for base in classes.get(name, ()) if base is not node]
    return {name for base in above for name in {*told_by(base), *inherited(base, classes)}}


def names_of(node: ast.ClassDef) -> set[str]:
    """The names of a class's bases, without their modules and parameters."""
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return {ast.unparse(base).rpartition(".")[2] for base in bases}


def told_by(node: ast.ClassDef) -> set[str]:
    """The names that a class documents: methods by their own docstrings, fields by that of the class."""
    methods = {each.name for each in node.body if isinstance(each, Function) and ast.get_docstring(each) is not None}
    fields = {
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    return methods | fields


def is_stub(node: ast.ClassDef | Function) -> bool:
    last = node.body[-1]
    empty = isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...
    return len(node.body) == 1 and empty


def clauses(found: Sequence[tuple[str, Thing]]) -> list[str]:
    """`file: name: first line` of docstrings that begin with a clause."""
    return [
        f"{file}: {thing.name}: {text.splitlines()[0]}"
        for file, thing in found
        if (text := ast.get_docstring(thing.node)) is not None and CLAUSE.match(text)
    ]


@pytest.fixture(scope="module")
def package() -> list[tuple[str, Thing]]:
    return read({str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in FILES})


def test_what_is_public_has_a_docstring(package):
    assert undocumented(package) == []


def test_a_docstring_begins_with_what_a_thing_is_or_does(package):
    assert clauses(package) == []


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.name != "__main__.py"], ids=lambda file: str(file.relative_to(ROOT))
)
def test_a_file_says_first_what_it_holds_or_does(file):
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert text is not None
    assert not CLAUSE.match(text), text.splitlines()[0]


def test_what_lacks_a_docstring_is_found():
    contract = (
        'class Contract(Protocol):\n    """A contract."""\n    def kept(self):\n        """Kept."""\n        ...\n'
    )
    base = 'class Base:\n    """A base."""\n    field: int = 0\n    def told(self):\n        """Told."""\n'
    own = (
        'class Own(mmjax.Base[int]):\n    """Of its own."""\n'
        "    def told(self): return 1\n    def field(self): return 2\n    def kept(self): return 3\n"
        "    def untold(self): return 4\n    def stub(self): ...\n    def _private(self): return 5\n"
    )
    assert undocumented(read({"a.py": contract + base + own, "b.py": "def loose():\n    def inner(): return 1\n"})) == [
        "a.py: Own.untold",
        "b.py: loose",
    ]


@pytest.mark.parametrize("word", ["What", "How", "Which", "Whether", "Where", "That", "Of"])
def test_a_clause_is_found(word):
    assert clauses(read({"a.py": f'def f():\n    """{word} it is."""\n'})) == [f"a.py: f: {word} it is."]
    assert clauses(read({"a.py": f'def f():\n    """{word}ever it is."""\ndef _g():\n    """{word} it is."""\n'})) == []
