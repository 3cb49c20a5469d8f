"""Models by the names of hubs: fetched once, converted, and kept; pinned to what was first seen under the name.

    hf:google/siglip-base-patch16-224            the Hugging Face hub
    open_clip:ViT-B-32/laion2b_s34b_b79k         the repository of the hub that open_clip has it from
    bv:gs://big_vision/siglip/....npz            a public object of Google's storage

`@revision` may follow: a commit or a branch of the hub, a generation of the object. What lies under
`$XDG_CACHE_HOME/mmjax/models/<kind>/<place>` (~/.cache without it):

    <commit>/         the model as a bundle
    refs/first        the commit that a name without a revision stands for, from its first use on
    refs/<branch>     what a branch stood for when it was last asked for
"""

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mmjax.errors import UserError, closest, meant
from mmjax.interop import bundle as bundles
from mmjax.interop.bundle import Bundle
from mmjax.interop.open_clip import names as open_clip_names
from mmjax.interop.projects import PROJECTS
from mmjax.interop.remote import Object, OfflineError, Remote, Repository
from mmjax.runtime.files import output

KINDS = ("hf", "open_clip", "bv")
FIRST = "first"
LAYOUT = "2"  # of the cache; one more whenever what is converted comes out otherwise, so that it is converted again


@dataclass(frozen=True)
class Name:
    """kind: one of `KINDS`.  place: the repository or address.  revision: None where none is given."""

    kind: str
    place: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" + (f"@{self.revision}" if self.revision else "")


def is_name(text: str) -> bool:
    """True for the name of a hub (a file of that name comes first)."""
    kind, colon, rest = text.partition(":")
    return bool(colon) and kind in KINDS and not rest.startswith("//") and not Path(text).exists()


def parsed(text: str) -> Name:
    """The parts of a name.

    Raises:
        UserError: it isn't written as such a name is.
    """
    kind, _, rest = text.partition(":")
    place, at, revision = rest.partition("@")
    forms = {"hf": r"[\w.-]+/[\w.-]+", "open_clip": r"[\w.-]+/[\w.-]+", "bv": r"gs://[\w.-]+/.+\.npz"}
    examples = {
        "hf": "hf:google/siglip-base-patch16-224",
        "open_clip": "open_clip:ViT-B-32/laion2b_s34b_b79k",
        "bv": "bv:gs://big_vision/siglip/webli_en_b16_224_63724782.npz",
    }
    if not re.fullmatch(forms[kind], place) or (at and not re.fullmatch(r"[\w./-]+", revision)) or ".." in rest:
        raise UserError(f"{text!r} is no name of a model: one is written {examples[kind]}, or with @revision behind it")
    return Name(kind, place, revision or None)


def fetched(text: str, say: Callable[[str], None] = print) -> Bundle:
    """The model of that name, from the cache or from its hub.

    say: is told which revision a name without one stands for, when that is first settled.

    Raises:
        UserError: there is no such model, it can't be read, or the hub can't be reached and the cache lacks it.
    """
    name = parsed(text)
    home = cache() / name.kind / _as_file(name.place)
    pin = home / "refs" / _as_file(name.revision or FIRST)
    remote, commit = _remote(name), None
    if name.revision is not None and remote.is_exact(name.revision):
        commit = name.revision
    elif name.revision is None and pin.exists():
        commit = pin.read_text().strip()
    if commit is None:
        commit = _asked(name, remote, pin, say)
    exact = f"{name.kind}:{name.place}@{commit}"
    folder = home / f"{commit}-{LAYOUT}"
    if bundles.is_bundle(folder):
        try:
            return replace(bundles.read(folder), source=exact)
        except UserError as error:
            say(f"{error}\n{exact} is fetched again")
    with _scratch(home) as scratch:
        try:
            project, path = remote.fetch(commit, Path(scratch))
        except OfflineError as error:
            raise UserError(f"{exact} isn't in {cache()}, and {error}") from error
        try:
            bundle = replace(PROJECTS[project].read(path), source=exact)
        except UserError as error:  # which names the folder that it was fetched to
            raise UserError(str(error).replace(str(path), exact)) from error
        for note in bundle.notes:
            say(note.replace(str(path), exact))
    bundles.save(bundle, folder)
    return bundle


def cache() -> Path:
    """The folder where fetched models are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmjax" / "models"


def near(place: str) -> str:
    """The end of a message about a path where nothing is: the name that it may have been meant as."""
    known = [f"hf:{folder.name.replace('--', '/')}" for folder in (cache() / "hf").glob("*--*")]
    found = closest(f"hf:{place}", known)
    if not found and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", place):
        found = [f"hf:{place}"]
    return meant(found)


def _remote(name: Name) -> Remote:
    if name.kind == "bv":
        return Object(name.place)
    if name.kind == "hf":
        return Repository(name.place)
    return Repository(open_clip_names.repository_of(name.place), "open_clip")


def _asked(name: Name, remote: Remote, pin: Path, say: Callable[[str], None]) -> str:
    """The commit that the name stands for now; where the hub can't be reached, the one it was seen to stand for."""
    try:
        commit = remote.commit(name.revision)
    except OfflineError as error:
        if not pin.exists():
            raise UserError(f"{name} isn't in {cache()}, and {error}") from error
        commit = pin.read_text().strip()
        say(f"{error}; {name} is taken as it was last seen: {commit}")
        return commit
    output.write(pin, commit + "\n")
    say(f"{name} is commit {commit}; {name.kind}:{name.place}@{commit} names it for good")
    return commit


def _scratch(home: Path) -> tempfile.TemporaryDirectory[str]:
    home.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=home, prefix=".")


def _as_file(name: str) -> str:
    return name.removeprefix("gs://").replace("/", "--")
