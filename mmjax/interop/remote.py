"""Fetches models: from repositories of the Hugging Face hub, and from public objects of Google's storage.

Both say which revision something is, and bring the files of one revision, checked against what they were to be.
"""

import base64
import hashlib
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from mmjax import __version__
from mmjax.errors import UserError
from mmjax.interop.sentence_transformers import modules as sentence_modules
from mmjax.interop.sentence_transformers.modules import Module

TIMEOUT = 30  # seconds without an answer
STORAGE = "https://storage.googleapis.com"

CONFIGS = (".json", ".txt", ".model")  # beside the weights: configuration, tokenizer, preprocessing
# The weights of a layout, the first that there is: never PyTorch's where safetensors are. In a repository of
# open_clip's, `model.safetensors` may be in Hugging Face's layout, and counts only where nothing else is.
WEIGHTS: dict[str, tuple[str, ...]] = {
    "hf": ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    "open_clip": (
        *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
        *("model.safetensors", "pytorch_model.bin"),
    ),
}
MARKS = {"hf": "config.json", "open_clip": "open_clip_config.json"}
MODULES, SENTENCES = "modules.json", "sentence_transformers"  # a folder for each module lies beside that file


class OfflineError(Exception):
    """A hub can't be reached now: only the cache is available."""


class Remote(Protocol):
    """Something that is fetched by revision."""

    def is_exact(self, revision: str) -> bool:
        """True if the revision can never mean anything else."""
        ...

    def commit(self, revision: str | None) -> str:
        """The exact revision. Raises UserError where there is none, OfflineError where that can't be asked."""
        ...

    def fetch(self, commit: str, folder: Path) -> tuple[str, Path]:
        """Brings the files into `folder`: whose layout it is (a key of `projects.PROJECTS`), and where it is."""
        ...


class Repository:
    """A model's repository of the Hugging Face hub, or of what HF_ENDPOINT names.

    layout: whose files are wanted; None: Hugging Face's own, or open_clip's where those aren't there.
    """

    def __init__(self, name: str, layout: str | None = None):
        self._name, self._layout = name, layout
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise UserError(f'{name} is fetched by huggingface_hub: pip install "mmjax[interop]"') from error
        endpoint = os.environ.get("HF_ENDPOINT") or None  # as it is now, not when the library was imported
        self._api = HfApi(endpoint=endpoint, library_name="mmjax", library_version=__version__)

    def is_exact(self, revision: str) -> bool:
        return len(revision) == 40 and set(revision) <= set("0123456789abcdef")

    def commit(self, revision: str | None) -> str:
        with self._asking(revision):
            found = self._api.model_info(self._name, revision=revision, timeout=TIMEOUT).sha
        if found is None:
            raise UserError(f"the hub names no commit of {self._name}")
        return found

    def fetch(self, commit: str, folder: Path) -> tuple[str, Path]:
        with self._asking(commit):
            siblings = self._api.model_info(self._name, revision=commit, timeout=TIMEOUT).siblings or []
        there = [sibling.rfilename for sibling in siblings]
        if self._layout is None and MODULES in there:
            self._bring([MODULES], commit, folder)
            self._bring(_of_modules(there, sentence_modules.listed_modules(folder), folder), commit, folder)
            return SENTENCES, folder
        there = [name for name in there if "/" not in name]
        layout, weights = self._chosen(there)
        self._bring(_with_configs(there, weights), commit, folder)
        return layout, folder

    def _bring(self, names: Iterable[str], commit: str, folder: Path) -> None:
        for name in names:
            with self._asking(commit):
                self._api.hf_hub_download(self._name, name, revision=commit, local_dir=folder, etag_timeout=TIMEOUT)

    def _chosen(self, there: Iterable[str]) -> tuple[str, str]:
        """The layout, and the file of its weights."""
        there = set(there)
        for layout in (self._layout,) if self._layout else MARKS:
            for weights in WEIGHTS[layout]:
                if MARKS[layout] in there and weights in there:
                    return layout, weights
        layouts = (self._layout,) if self._layout else tuple(MARKS)
        wanted = " or ".join(f"{MARKS[layout]} with {', '.join(WEIGHTS[layout])}" for layout in layouts)
        raise UserError(f"{self._name} on the hub holds no model that can be read: that takes {wanted}")

    def _asking(self, revision: str | None) -> AbstractContextManager[None]:
        return _Asking(self._name, revision)


def _with_configs(there: Iterable[str], weights: str | None) -> list[str]:
    """The files wanted of a folder: all configuration, and the weights with their shards."""
    there = list(there)
    wanted = [name for name in there if name.endswith(CONFIGS) and not name.endswith(".index.json")]
    if weights is not None:
        wanted.append(weights)
        if weights.endswith(".index.json"):  # the shards, by their names' beginning
            stem, ending = weights.removesuffix(".index.json").rsplit(".", 1)
            wanted += [name for name in there if name.startswith(f"{stem}-") and name.endswith(f".{ending}")]
    return wanted


def _of_modules(there: Iterable[str], modules: Iterable[Module], folder: Path) -> list[str]:
    """The files wanted of a repository of sentence-transformers: its own configuration, and that and the weights of
    each module, which has a folder of its own or shares the repository's.
    """
    there, wanted = list(there), dict[str, None]()
    for place in {"": None} | {module.folder.relative_to(folder).as_posix(): None for module in modules}:
        place = "" if place in ("", ".") else f"{place}/"
        inside = [name.removeprefix(place) for name in there if name.startswith(place)]
        inside = [name for name in inside if "/" not in name]
        weights = next((name for name in WEIGHTS["hf"] if name in inside), None)
        wanted |= {place + name: None for name in _with_configs(inside, weights)}
    return list(wanted)


class _Asking(AbstractContextManager[None]):
    """Raises the errors of the hub's library as messages."""

    def __init__(self, name: str, revision: str | None):
        self._name, self._revision = name, revision

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from huggingface_hub import errors

        if error is None or not isinstance(error, Exception):
            return
        if isinstance(error, errors.GatedRepoError):
            raise UserError(
                f"{self._name} asks for agreement to its terms: give it on its page of the hub, then `hf auth login`"
            ) from error
        if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
            raise UserError(
                f"there is no model {self._name!r} on the hub, or it is private (`hf auth login` then)"
            ) from error
        if isinstance(error, errors.RevisionNotFoundError):
            raise UserError(f"{self._name} on the hub has no revision {self._revision!r}") from error
        if isinstance(error, UserError):
            return
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OfflineError(f"the hub can't be reached ({type(error).__name__}: {reason})") from error


class Object:
    """A public object of Google's storage, `gs://bucket/name`; a revision is its generation.

    STORAGE_EMULATOR_HOST puts another server in the storage's place, as it does for Google's own libraries.
    """

    def __init__(self, address: str):
        self._address = address
        bucket, _, name = address.removeprefix("gs://").partition("/")
        host = os.environ.get("STORAGE_EMULATOR_HOST") or STORAGE
        host = host if "://" in host else f"http://{host}"
        self._url = f"{host.rstrip('/')}/{bucket}/{urllib.parse.quote(name)}"

    def is_exact(self, revision: str) -> bool:
        return revision.isdecimal()

    def commit(self, revision: str | None) -> str:
        if revision is not None:
            raise UserError(f"{self._address}@{revision}: a revision of an object is its generation, a number")
        with self._open("HEAD", None) as answer:
            found = answer.headers.get("x-goog-generation")
        if not found:
            raise UserError(f"{self._address}: the storage names no generation of it")
        return found

    def fetch(self, commit: str, folder: Path) -> tuple[str, Path]:
        path = folder / self._address.rpartition("/")[2]
        with self._open("GET", commit) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
            hashes = ",".join(answer.headers.get_all("x-goog-hash") or [])
        stated = {key.strip(): value for key, _, value in (part.partition("=") for part in hashes.split(","))}
        with path.open("rb") as file:
            digest = base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
        if stated.get("md5", digest) != digest:
            raise UserError(f"{self._address} didn't arrive whole: its MD5 is {digest}, and {stated['md5']} was stated")
        return "bv", path

    def _open(self, method: str, generation: str | None) -> Any:
        query = f"?generation={generation}" if generation else ""
        try:
            return urllib.request.urlopen(urllib.request.Request(self._url + query, method=method), timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code in (401, 403, 404):
                which = f" of generation {generation}" if generation else ""
                raise UserError(
                    f"there is no public object {self._address}{which}; one that needs an account is loaded by its "
                    "address alone, gs://..., through gcsfs"
                ) from error
            raise OfflineError(f"the storage answers {error.code} ({error.reason})") from error
        except OSError as error:
            raise OfflineError(f"the storage can't be reached ({getattr(error, 'reason', error)})") from error
