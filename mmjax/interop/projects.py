"""The projects whose models can be read and written: how their files look, and who reads and writes them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mmjax.errors import UserError
from mmjax.interop.bundle import Bundle


@dataclass(frozen=True)
class Project:
    """
    module: of this folder, with `read(path) -> Bundle` and, but for what is read alone, `near(bundle) -> Twin` and
        `write(bundle, path, exact)`; imported when it is needed.
    owns: whether a file or folder is in the project's layout.
    title: how it is called.
    folder: whether a model is a folder there, or a file.
    """

    module: str
    owns: Callable[[Path], bool]
    title: str
    folder: bool = True

    def read(self, path: Path) -> Bundle:
        """The model there. Raises UserError, which names the path, where it can't be read."""
        try:
            return import_module(f"mmjax.interop.{self.module}").read(path)
        except UserError as error:
            if str(path) in str(error):
                raise
            raise UserError(f"{path}: {error}") from error

    def write(self, bundle: Bundle, path: Path, exact: bool = True) -> None:
        """Writes a model to where nothing is."""
        import_module(f"mmjax.interop.{self.module}").write(bundle, path, exact)

    def near(self, bundle: Bundle) -> Any:
        """Its `Twin` there, or nearly that. Raises UserError where there is none."""
        return import_module(f"mmjax.interop.{self.module}").near(bundle)


def _holds(name: str) -> Callable[[Path], bool]:
    return lambda path: (path / name).is_file()


# In this order: a folder of open_clip's on the hub may have a config.json besides, for another library, and one of
# sentence-transformers' has that of the BERT within.
PROJECTS: dict[str, Project] = {
    "open_clip": Project("open_clip.layout", _holds("open_clip_config.json"), "open_clip"),
    "sentence_transformers": Project("sentence_transformers.layout", _holds("modules.json"), "sentence-transformers"),
    "hf": Project("hf.layout", _holds("config.json"), "Hugging Face"),
    "bv": Project(
        "big_vision.layout", lambda path: path.suffix == ".npz" and path.is_file(), "big_vision", folder=False
    ),
    "onnx": Project(
        "onnx", lambda path: path.suffix == ".onnx" and path.is_file(), "ONNX", folder=False
    ),  # is read alone
}
