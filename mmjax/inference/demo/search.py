"""Pictures and sounds that can be searched: files, or a model's own test data -> vectors -> the nearest.

Vectors are kept under `$XDG_CACHE_HOME/mmjax/demo` (~/.cache/mmjax/demo), a folder a model: unchanged files are not
embedded again. Nothing is written where the pictures are.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains, evaluation
from mmjax.data.kinds import USUAL, Kinds, kind_of, kinds_of, ordered, words_of
from mmjax.data.paths import File
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.sources.contents import content_key
from mmjax.data.sources.tfds import Tfds
from mmjax.data.transforms.input import Input
from mmjax.errors import UserError
from mmjax.experiment import record as serialization
from mmjax.experiment.confined import Record, check_confined
from mmjax.inference.embed_dataset import digest_of
from mmjax.inference.model import Model
from mmjax.inference.row_embedder import chunks
from mmjax.interop.bundle import Bundle
from mmjax.runtime.counts import noun, of
from mmjax.runtime.files import json_text, output, regular

SPLIT = "test"  # of a model's own data: what it hasn't been trained on


@dataclass(frozen=True)
class Item:
    """A picture, a sound, or something else that is looked for.

    name: to be shown, a path within the folder or a caption. key: says which one it is. stamp: changes with what it
    holds. path: its file, if it has one. read: gives its bytes (or an array), None where they can't be had.
    """

    modality: str
    name: str
    key: str
    stamp: str
    read: Callable[[], Any]
    path: Path | None = None

    def content(self) -> Any:
        """The input for the model: a path or bytes."""
        return self.path if self.path is not None else self.read()


@dataclass(frozen=True)
class Place:
    """A searchable collection: `name` for people, `key` for the cache."""

    name: str
    key: str
    items: Sequence[Item]


@dataclass
class Index:
    """The items that can be found, with their vectors.

    items, vectors: by modality, row by row; unit vectors `[N, E]`, fp32. bad: names of items that could not be used,
    with the reason. queries: the modalities of queries.
    """

    model: Model
    place: Place
    items: dict[str, list[Item]]
    vectors: dict[str, Float[np.ndarray, "n e"]]
    bad: list[tuple[str, str]]
    queries: list[str] = field(default_factory=list)

    def kind(self, modality: str) -> type[Input]:
        """Returns what a modality is: its kind of input."""
        return kind_of(modality, self.model.kinds)

    def search(self, modality: str, query: Any, count: int) -> dict[str, list[tuple[int, float]]]:
        """Searches by a text, a picture or a sound, whatever `Model.embed` takes; returns as `nearest`.

        Raises:
            UserError: it can't be embedded.
        """
        inputs: dict[str, Any] = {modality: query}
        return self.nearest(self.model.embed(**inputs), count)

    def nearest(self, vector: Float[np.ndarray, "e"], count: int) -> dict[str, list[tuple[int, float]]]:
        """The `count` rows of the largest cosines, with these, by modality, best first; of equal ones the first row.

        Modalities are not mixed: the cosines of a text with pictures and with sounds don't compare.
        """
        found = {}
        for modality, vectors in self.vectors.items():
            if vectors.shape[1:] == vector.shape:  # towers that no objective compares may differ in size
                cosines = vectors @ vector
                best = np.argsort(-cosines, kind="stable")[:count]
                found[modality] = [(int(row), float(cosines[row])) for row in best]
        return found


def checked(path: str | Path) -> Path:
    """A folder. Raises UserError where there is none."""
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no folder {path}" if not root.exists() else f"{path} is no folder")
    return root


def folder(path: str | Path, kinds: Kinds = USUAL) -> Place:
    """The pictures, sounds and the like in a folder and those within it, by their names; hidden ones are left alone.

    kinds: of a model's modalities. What several of them could read goes by the first.

    Raises:
        UserError: there is no such folder, or none of any in it.
    """
    root = checked(path)
    # What is none of a model's kinds is told to be there, by its usual name.
    every = {
        **kinds,
        **{name: kind for name, kind in USUAL.items() if kind not in kinds.values() and name not in kinds},
    }
    endings: dict[str, str] = {}
    for name in ordered(every, every):
        for ending in every[name].endings:
            endings.setdefault(ending, name)
    items, others = [], 0
    for inside, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(inside) / name
            modality = endings.get(file.suffix.lower())
            # Pipes and devices of such names would be waited for.
            if modality is None or name.startswith(".") or (file.exists() and not file.is_file()):
                others += not name.startswith(".")
                continue
            shown = file.relative_to(root).as_posix().encode(errors="replace").decode()  # names need not be UTF-8
            items.append(Item(modality, shown, shown, _stamp(file), partial(_bytes, file), file))
    if not items:
        sought = [f"{noun(n)}s ({' '.join(e for e in endings if endings[e] == n)})" for n in every if every[n].endings]
        raise UserError(
            f"{path} has no {' or '.join(sought)} in it or in the folders within it, but {others} other files"
        )
    return Place(str(path), str(root.resolve()), items)


def own(bundle: Bundle, say: Callable[[str], None] = lambda text: None) -> Place:
    """The pictures and sounds of the test split that the model's experiment names.

    Raises:
        UserError: it names no data, or data that is missing (by now).
    """
    from mmjax.experiment.graph import build

    data = build(bundle.config).data
    if not data.weights:
        raise UserError(f"{bundle.source} brings no data of its own: --folder says where pictures and sounds are")
    kinds = kinds_of(data.transforms)
    looked = {m: chain for m, chain in data.transforms.items() if not kinds[m].words}
    silent = replace(data, transforms=looked)
    check_confined(Record(bundle.source, bundle.tokenizers), silent, bundle.tokenizers, say)
    chains, words = Chains(looked), words_of(kinds) or "text"
    whole = RecordTransforms(data.record_transforms, tuple(data.transforms))
    items = []
    for name in data.weights:
        records = data.sources.get(name, Tfds(name)).open(SPLIT)
        for row in range(len(records)):
            record = whole(records[row], evaluation)
            caption = record.get(words)
            while isinstance(caption, list | tuple | dict):  # of several captions the first
                caption = next(iter(caption.values() if isinstance(caption, dict) else caption), None)
            for modality in chains.transforms:
                value = record.get(modality)
                value = None if isinstance(value, BadExample) else value
                if value is None or (isinstance(value, list | tuple | bytes | np.ndarray) and not len(value)):
                    continue
                path = Path(value.path) if isinstance(value, File) else None
                read = partial(_raw, chains, whole, records, row, modality)
                stamp = _stamp(path) if path else content_key(read()) or ""
                items.append(Item(modality, str(caption or record["id"]), f"{name}/{record['id']}", stamp, read, path))
    if not items:
        raise UserError(f"the {SPLIT} split of {', '.join(data.weights)} has nothing to be searched: name a --folder")
    name = f"{', '.join(data.weights)} ({SPLIT} split)"
    return Place(name, name, items)


def index(bundle: Bundle, place: Place, console: Console | None = None) -> Index:
    """Embeds the items that the cache lacks, with a progress bar.

    Raises:
        UserError: the model embeds none of the items' modalities, or none of the items could be used.
    """
    console = console or Console(highlight=False)
    model = Model(bundle)
    there = list(dict.fromkeys(item.modality for item in place.items))
    wanted = [modality for modality in ordered(there, model.kinds) if modality in model.modalities]
    if not wanted:
        raise UserError(
            f"{place.name} has {' and '.join(f'{noun(m)}s' for m in there)}, and {bundle.source} embeds "
            f"{', '.join(model.modalities)} alone"
        )
    file = _cache_file(bundle, place)
    kept = _kept(file)
    made = Index(model, place, {}, {}, [])
    for modality in wanted:
        items = [item for item in place.items if item.modality == modality]
        known = kept.get(modality, {})
        vectors = {i: known[i.key, i.stamp] for i in items if i.stamp != GONE and (i.key, i.stamp) in known}
        new = [item for item in items if item not in vectors]
        if vectors:
            console.print(f"{many(modality, len(vectors))} embedded before: taken from the cache", soft_wrap=True)
        try:
            _embed(model, modality, new, vectors, made.bad, console)
        finally:  # vectors computed before Ctrl-C are kept
            if new:
                kept[modality] = {(item.key, item.stamp): vector for item, vector in vectors.items()}
                _keep(file, kept, console)
        found = [item for item in items if item in vectors]
        if found:
            made.items[modality] = found
            made.vectors[modality] = np.stack([vectors[item] for item in found])
    if not made.items:
        name, why = made.bad[0]
        raise UserError(f"none of the {len(made.bad)} files in {place.name} can be read; {name}: {why}")
    console.print("preparing the first search: the towers are compiled, or their code is loaded", soft_wrap=True)
    made.queries = [m for m in ordered(model.modalities, model.kinds) if _embeds(model, m, made)]
    return made


def many(modality: str, count: int) -> str:
    """`1,204 pictures`, `1 sound`."""
    return of(count, noun(modality))


def _embed(
    model: Model,
    modality: str,
    items: Sequence[Item],
    vectors: dict[Item, Any],
    bad: list[tuple[str, str]],
    console: Console,
) -> None:
    """Adds the vectors of `items` to `vectors`, batch by batch, and items that can't be used to `bad`."""
    if items and not console.is_terminal:
        console.print(f"embedding {many(modality, len(items))}", soft_wrap=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal or not items) as bar:
        task = bar.add_task(f"embedding {many(modality, len(items))}", total=len(items))
        for chunk in chunks(items, model.batch_size):
            for item, vector in _vectors(model, modality, chunk, bad):
                vectors[item] = vector
            bar.advance(task, len(chunk))


def _vectors(
    model: Model, modality: str, items: list[Item], bad: list[tuple[str, str]]
) -> Iterator[tuple[Item, np.ndarray]]:
    contents = [item.content() for item in items]
    try:
        yield from zip(items, _embed_all(model, modality, contents), strict=True)
        return
    except UserError:  # an item is bad: find all bad ones
        pass
    good = []
    for item, content in zip(items, contents, strict=True):
        try:
            model.preprocess(**{modality: [content]})
            good.append((item, content))
        except UserError as error:
            bad.append((item.name, reason(error)))
    if good:
        found = _embed_all(model, modality, [content for _, content in good])
        yield from zip([item for item, _ in good], found, strict=True)


def reason(error: UserError) -> str:
    """The reason why an input can't be used, without its name ("image 0 (a.png): ...")."""
    return str(error).partition(": ")[2] or str(error)


def _embed_all(model: Model, modality: str, contents: list[Any]) -> np.ndarray:
    inputs: dict[str, Any] = {modality: contents}
    return model.embed(progress=False, **inputs)


def _embeds(model: Model, modality: str, made: Index) -> bool:
    """True if the model has the tower, its tokenizer too, and vectors that compare with those of the items.

    Embeds one input, so that the first query finds the tower compiled."""
    try:
        words = model.kinds[modality].words
        value = "" if words else made.items[modality][0].content() if modality in made.items else None
        inputs: dict[str, Any] = {modality: _any(model, modality) if value is None else value}
        vector = model.embed(**inputs)
    except UserError:
        return False
    return bool(made.nearest(vector, 1))


def _any(model: Model, modality: str) -> Any:
    """Some input."""
    made = model.kinds[modality].made_up()
    return model.blank(modality) if made is None else made[0]


def _raw(chains: Chains, whole: RecordTransforms, records: Any, row: int, modality: str) -> Any:
    return chains.raw(whole(records[row], evaluation), modality)


def _bytes(path: Path) -> bytes | None:
    try:
        return File(str(path)).read()
    except BadExample:
        return None


GONE = "gone"


def _stamp(path: Path) -> str:
    """Size and time of change, which differ once a file's content has changed."""
    try:
        found = path.stat()
    except OSError:
        return GONE
    return f"{found.st_size} {found.st_mtime_ns}"


# --- the cache ---

Kept = dict[str, dict[tuple[str, str], np.ndarray]]  # by modality: (key, stamp) -> vector


def cache_folder() -> Path:
    """The folder of cached vectors; it may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmjax" / "demo"


def _cache_file(bundle: Bundle, place: Place) -> Path:
    """The cache file, named by all that a vector depends on except the files: numbers, architecture, preprocessing,
    mmjax's version.
    """
    model = hashlib.blake2b(serialization.dumps(bundle.config).encode(), digest_size=8)
    model.update(digest_of(bundle.variables).encode())
    where = hashlib.blake2b(place.key.encode(errors="surrogateescape"), digest_size=8)
    return cache_folder() / model.hexdigest() / f"{where.hexdigest()}.safetensors"


def _kept(file: Path) -> Kept:
    try:
        regular.check(file)
        with safe_open(file, framework="numpy") as opened:
            kept: Kept = {}
            for modality, names in json_text.parse(opened.metadata()["items"]).items():
                vectors = opened.get_tensor(modality)
                kept[modality] = {(key, stamp): v for (key, stamp), v in zip(names, vectors, strict=True)}
            return kept
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError):  # missing or damaged
        return {}


def _keep(file: Path, kept: Mapping[str, Mapping[tuple[str, str], np.ndarray]], console: Console) -> None:
    full = {modality: vectors for modality, vectors in kept.items() if vectors}
    names = json.dumps({modality: list(vectors) for modality, vectors in full.items()})
    content = save({m: np.stack(list(vectors.values())) for m, vectors in full.items()}, {"items": names})
    try:
        output.write(file, content)
    except OSError as error:
        console.print(f"the vectors can't be kept in {file.parent}: {error.strerror}", soft_wrap=True)
