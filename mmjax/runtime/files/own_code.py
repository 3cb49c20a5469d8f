"""Code of one's own: files of Python that the user named, run as modules, with their texts remembered.

What runs is the text that was read, and nothing is written beside it. A file may import its neighbours (`from losses
import Mine`), as a script may, but hides no installed package. Neighbours are `.py` files: a package beside it can be
imported, but is neither kept nor compared. The module is called by a digest of its text and of its neighbours' texts: a
file that was edited is another module, one that wasn't is the same, also in a process that reads for it.
"""

import ast
import contextlib
import hashlib
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mmjax.errors import UserError
from mmjax.runtime.files import digests, regular
from mmjax.runtime.files.names import plain

ENDING = ".py"
LARGEST = 2**24  # bytes of such a file


@dataclass(frozen=True)
class OwnFile:
    """A file of code as it was read. beside: name and text of each neighbour that it imports, directly or through
    another.
    """

    folder: str
    name: str
    text: bytes
    beside: tuple[tuple[str, bytes], ...] = ()

    @property
    def path(self) -> str:
        """The path of the file."""
        return os.path.join(self.folder, self.name)

    @property
    def digest(self) -> str:
        """The digest of the text, as an experiment's record has it."""
        return digests.of_content(self.text)

    @property
    def module(self) -> str:
        """The name of its module; it differs where a text differs."""
        whole = hashlib.blake2b(repr((self.folder, self.text, self.beside)).encode(), digest_size=4)
        return f"experiment_{self.name.removesuffix(ENDING)}_{whole.hexdigest()}"

    def neighbours(self) -> list["OwnFile"]:
        """The files beside it, each with its own imports."""
        texts = dict(self.beside)
        return [OwnFile(self.folder, name, text, _beside(text, texts)) for name, text in self.beside]


Code = tuple[OwnFile, ...]


def named(code: Any) -> Code:
    """Reads the files that a user named: a path, several, or files that were read already; None: none.

    Raises:
        UserError: there is no such file, it is no file of Python, or two of them have one name.
    """
    each = () if code is None else (code,) if isinstance(code, str | os.PathLike | OwnFile) else code
    return joined(one if isinstance(one, OwnFile) else read_own(one) for one in each)


def joined(files: Iterable[OwnFile]) -> Code:
    """Each of the files once. Raises UserError where two of one name hold different texts."""
    found: dict[str, OwnFile] = {}
    for file in files:
        if (other := found.setdefault(file.name, file)).text != file.text:
            raise UserError(
                f"{file.name} is two files, {other.path} and {file.path}: a record tells files by their names: call "
                "one of them otherwise"
            )
    return tuple(found.values())


def read_own(path: str | os.PathLike[str]) -> OwnFile:
    """Reads a file of code, with the neighbours that it imports.

    Raises:
        UserError: there is no such file, or none whose name ends in .py.
    """
    place = Path(os.path.abspath(os.path.expanduser(path)))
    if place.suffix != ENDING:
        raise UserError(f"code={os.fspath(path)!r} is no file of Python: name one, own.py say")
    if not place.exists():
        raise UserError(f"code={os.fspath(path)!r}: there is no such file")
    text = regular.content(place, LARGEST)
    texts: dict[str, bytes] = {}
    _gather(place.parent, text, texts)
    return OwnFile(str(place.parent), plain(place.name, "a file of code"), text, _beside(text, texts))


def _gather(folder: Path, text: bytes, texts: dict[str, bytes]) -> None:
    """Collects into `texts`, by name, the files in `folder` that a text imports."""
    for stem in _imported(text):
        path = folder / f"{stem}{ENDING}"
        if path.name not in texts and path.is_file() and not _elsewhere(stem, path):
            texts[path.name] = regular.content(path, LARGEST)
            _gather(folder, texts[path.name], texts)


def _beside(text: bytes, texts: Mapping[str, bytes]) -> tuple[tuple[str, bytes], ...]:
    """The texts that another imports, directly or not, sorted by name."""
    found: set[str] = set()
    waiting = [text]
    while waiting:
        names = {f"{stem}{ENDING}" for stem in _imported(waiting.pop())} & texts.keys()
        waiting += [texts[name] for name in names - found]
        found |= names
    return tuple((name, texts[name]) for name in sorted(found))


def _imported(text: bytes) -> set[str]:
    """The modules that a text imports, anywhere in it; none where it doesn't parse: running it will report that."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError):
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


def _elsewhere(stem: str, path: Path) -> bool:
    """True if Python finds a module of that name without the folder: an installed package, say."""
    for finder in sys.meta_path:
        spec = finder.find_spec(stem, None) if hasattr(finder, "find_spec") else None
        if spec is not None and spec.origin is not None:  # a plain folder of that name has no origin
            return os.path.realpath(spec.origin) != os.path.realpath(path)
    return False


class _Loader(importlib.abc.SourceLoader):
    """Runs the text that was read, whatever the file holds by now; keeps no compiled file."""

    def __init__(self, own: OwnFile):
        self.own = own

    def get_filename(self, fullname: str) -> str:
        """The path of the file."""
        return self.own.path

    def get_data(self, path: str | bytes) -> bytes:
        """The text that was read."""
        if path != self.own.path:
            raise OSError(path)
        return self.own.text


class _Neighbours(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds neighbours under the names by which they are imported."""

    def __init__(self, files: Mapping[str, OwnFile]):
        self._files = files

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """The spec of a neighbour; None for every other module."""
        if path is not None or fullname not in self._files:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec: Any) -> ModuleType:
        """Loads the neighbour's own module."""
        module = load_own(self._files[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restores the module's own spec: it ran when it was created."""
        if module.__spec__ is not None and module.__spec__.loader_state is not None:
            module.__spec__ = module.__spec__.loader_state


def load_own(own: OwnFile) -> ModuleType:
    """Returns the file's module; runs it on the first call.

    Raises:
        Exception: the file's code raised it.
    """
    name = own.module
    if name in sys.modules:
        return sys.modules[name]
    spec: Any = importlib.util.spec_from_loader(name, _Loader(own))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, type hints and pickle look their module up
    try:
        with importable(own):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def importable(own: OwnFile) -> Iterator[None]:
    """Makes the file's neighbours importable within the `with`; installed packages take precedence."""
    files = {file.name.removesuffix(ENDING): file for file in own.neighbours()}
    hidden = {}
    for stem, file in files.items():
        if stem in sys.modules and sys.modules[stem] is not sys.modules.get(file.module):
            hidden[stem] = sys.modules.pop(stem)  # of another folder, or as it was before an edit
    finder = _Neighbours(files)
    sys.meta_path.insert(0, finder)
    sys.path.append(own.folder)  # makes other modules there importable, such as packages
    try:
        yield
    finally:
        sys.path.remove(own.folder)
        sys.meta_path.remove(finder)
        sys.modules.update({stem: module for stem, module in hidden.items() if _own(module) is None})


def of_parts(value: Any) -> Code:
    """The files that define the classes of a value and of its fields; a worker process needs them to unpickle it."""
    found: dict[str, OwnFile] = {}
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if (own := of_class(type(value))) is not None:
            found[own.module] = own
        if is_dataclass(value):
            waiting += [getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)]
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return tuple(found.values())


def of_class(part: Any) -> OwnFile | None:
    """The file that defines a class, at its top level and under its own name; None for any other class."""
    if not isinstance(part, type):
        return None
    module = sys.modules.get(part.__module__)
    own = _own(module)
    if own is None or part.__qualname__ != part.__name__ or vars(module).get(part.__name__) is not part:
        return None
    return own


def class_of(own: OwnFile, name: str) -> type | None:
    """The class of that name that the file defines; None for one that it imports or calls otherwise."""
    part = vars(load_own(own)).get(name)
    return part if isinstance(part, type) and part.__name__ == name and of_class(part) == own else None


def _own(module: Any) -> OwnFile | None:
    loader = getattr(module, "__loader__", None)
    return loader.own if isinstance(loader, _Loader) else None
