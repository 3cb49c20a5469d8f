"""The projects whose models can be read and written: how their files look, and who reads and writes them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmjax.errors import UserError

if TYPE_CHECKING:  # `mmjax export --help` lists them, without what takes seconds to import
    from mmjax.interop.bundle import Bundle


@dataclass(frozen=True)
class Project:
    """
    module: of this folder, with `read(path) -> Bundle` and, of what is `exported`, `near(bundle) -> Twin` and
        `write(bundle, path, exact)`; imported when it is needed.
    owns: whether a file or folder is in the project's layout.
    title: how it is called.
    what: a model there, to name in a sentence: "a folder of Hugging Face's (config.json)"; "": by its title.
    suffix: ".npz", where a model is a file of such a name; "": it is a folder, which gets a card.
    exported: whether `mmjax export` writes it.
    encoders: whether a model of one tower goes there without the objectives that it was trained by.
    usage: a module of this folder that says how the project's own library opens what was written (`twins/usage.py`);
        "": nothing is known of one, and the card tells how mmjax opens it.
    """

    module: str
    owns: Callable[[Path], bool]
    title: str
    what: str = ""
    suffix: str = ""
    exported: bool = True
    encoders: bool = False
    usage: str = ""

    @property
    def folder(self) -> bool:
        """True if a model is a folder there, and not a file."""
        return not self.suffix

    def used_by(self) -> ModuleType | None:
        """Its module `usage`."""
        return import_module(f"{__package__}.{self.usage}") if self.usage else None

    def read(self, path: Path) -> "Bundle":
        """The model there. Raises UserError, which names the path, where it can't be read."""
        try:
            return import_module(f"{__package__}.{self.module}").read(path)
        except UserError as error:
            if str(path) in str(error):
                raise
            raise UserError(f"{path}: {error}") from error

    def write(self, bundle: "Bundle", path: Path, exact: bool = True) -> None:
        """Writes a model to where nothing is."""
        import_module(f"{__package__}.{self.module}").write(bundle, path, exact)

    def near(self, bundle: "Bundle") -> Any:
        """Its `Twin` there, or nearly that. Raises UserError where there is none."""
        return import_module(f"{__package__}.{self.module}").near(bundle)


def _holds(name: str) -> Callable[[Path], bool]:
    return lambda path: (path / name).is_file()


def _file(suffix: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix == suffix and path.is_file()


def _flax_state(path: Path) -> bool:
    """True for a file that begins as flax's msgpack of a training's state does: a map, and a name of its fields."""
    if path.suffix in (".npz", ".onnx") or not path.is_file():
        return False
    with path.open("rb") as file:
        begin = file.read(16)
    return begin[:1] > b"\x80" and begin[:1] < b"\x90" and begin[2:].startswith((b"step", b"params", b"opt_state"))


# In this order: a folder of open_clip's on the hub may have a config.json besides, for another library, and one of
# sentence-transformers' has that of the BERT within.
PROJECTS: dict[str, Project] = {
    "open_clip": Project(
        "open_clip.layout",
        _holds("open_clip_config.json"),
        "open_clip",
        "a folder of open_clip's (open_clip_config.json)",
        usage="open_clip.usage",
    ),
    "sentence_transformers": Project(
        "sentence_transformers.layout",
        _holds("modules.json"),
        "sentence-transformers",
        "a folder of sentence-transformers' (modules.json)",
        usage="sentence_transformers.usage",
    ),
    "hf": Project(
        "hf.layout",
        _holds("config.json"),
        "Hugging Face",
        "a folder of Hugging Face's (config.json)",
        usage="hf.usage",
    ),
    "bv": Project("big_vision.layout", _file(".npz"), "big_vision", "big_vision's .npz", suffix=".npz", encoders=True),
    "onnx": Project("onnx", _file(".onnx"), "ONNX", "a DINOv2 tower's .onnx", suffix=".onnx", exported=False),
    "merlot_reserve": Project(
        "merlot_reserve.layout", _flax_state, "MERLOT Reserve", "MERLOT Reserve's checkpoint (a file)", exported=False
    ),
}


def layouts() -> tuple[str, ...]:
    """Those that a model can be written in, mmjax's own first."""
    return ("mmjax", *(name for name, project in PROJECTS.items() if project.exported))


def foreign_forms() -> str:
    """Lists the forms that a model of another project may have, as words of a sentence."""
    return ", ".join(project.what or f"{project.title}'s" for project in PROJECTS.values())


def suffixes() -> str:
    """Lists the endings of models that are files, as words of a sentence."""
    return " or ".join(project.suffix for project in PROJECTS.values() if project.suffix)
