"""Nothing stands in the package for the tests alone: each of its functions, classes and constants is used by it, or by
whom it is made for."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "mmjax").rglob("*.py"))
# Found by name when they are wanted: how, and by whom.
BY_NAME = {
    r"mmjax\.cli\.\w+:(add|run|HELP|EPILOG)": "cli.main has the commands' modules",
    r"mmjax\.interop\.(\w+\.layout|onnx):(read|write)": "interop.projects has the modules' names",
    r"mmjax\.interop\.\w+\.usage:(LIBRARY|NEEDS|how_to_load|ids)": "interop.projects has the modules' names",
    r"mmjax\.data\.datasets\.(asked_emoji\.builder:AskedEmoji|tagged_emoji\.builder:TaggedEmoji)": "TFDS",
    r"mmjax\.data\.datasets\.(described_emoji\.builder:DescribedEmoji|emoji_stories\.builder:EmojiStories)": "TFDS",
    r"mmjax\.data\.datasets\.(esc50:Esc50|spoken_emoji\.builder:SpokenEmoji|stamps\.builder:Stamps)": "TFDS",
    r"mmjax\.interop\.preprocessing\.piece_json:BYTE": "the last of a row of numbers",
    r"mmjax(\.\w+)*:__\w+__": "Python",
}


def module(path: Path) -> str:
    names = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def defined(tree: ast.Module) -> Iterator[str]:
    """The names that a module gives: of functions, classes and constants."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def used(path: Path, modules: Iterable[str]) -> Iterator[str]:
    """`module:name` of all that a file uses, of its own and of others."""
    tree, here = ast.parse(path.read_text()), module(path)
    known, named = set(modules), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}:{alias.name}"
                if (whole := f"{node.module}.{alias.name}") in known:
                    named[alias.asname or alias.name] = whole
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            whole = ast.unparse(node.value)
            yield f"{named.get(whole, whole)}:{node.attr}"
    for statement in tree.body:  # what names itself alone isn't used
        names = set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                names.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 100:
                names.update(re.findall(r"\w+", node.value))  # a quoted annotation, or a name for getattr
        yield from (f"{here}:{name}" for name in names - {getattr(statement, "name", None)})


def test_no_name_is_used_by_tests_alone():
    modules = [module(path) for path in PACKAGE]
    made = {f"{module(path)}:{name}" for path in PACKAGE for name in defined(ast.parse(path.read_text()))}
    users = [*PACKAGE, *sorted((ROOT / "experiments").rglob("*.py"))]
    left = made - {name for path in users for name in used(path, modules)}
    shown = " ".join(path.read_text() for path in (*(ROOT / "notebooks").glob("*.ipynb"), ROOT / "README.md"))
    left = {name for name in left if not re.search(rf"\bmmjax\.[\w.]*{name.partition(':')[2]}\b", shown)}
    assert {name for name in left if not any(re.fullmatch(pattern, name) for pattern in BY_NAME)} == set()


def test_a_name_that_nobody_uses_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a.py").write_text(
        "LEFT = 1\nTAKEN = 2\ndef f(x):\n    return f(TAKEN)\ndef g() -> 'Kind': ...\nclass Kind: ..."
    )
    (tmp_path / "b.py").write_text("import a\nfrom a import g\n")
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    made = {f"a:{name}" for name in defined(ast.parse(files[0].read_text()))}
    assert made - {name for path in files for name in used(path, ["a", "b"])} == {"a:LEFT", "a:f"}
