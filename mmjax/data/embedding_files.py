"""Embeddings of a dataset in a folder: shards, and a manifest with their model and data. Reading them needs no model.

embeddings.json                         the data, the model, and the digest of each shard
embeddings-00000-of-00010.safetensors   by modality `[n, e]` unit vectors, fp32, and `<modality>_valid` `[n]` bool
embeddings-00000-of-00010.jsonl         the same examples' id, caption and labels, an object a line; `image#` is
                                        the same in rows that hold the same picture
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from mmjax.errors import UserError, nearest
from mmjax.runtime.files import json_text, output, regular

MANIFEST = "embeddings.json"
VALID = "_valid"
LARGEST = 2**34  # bytes of the columns of a shard
CONTENT = "#"  # the suffix of the columns that identify a modality's pictures or sounds


@dataclass(frozen=True)
class Embeddings:
    """Rows of embeddings, in the order of the data.

    embeddings: unit vectors `[n, e]` by modality, fp32.
    valid: by modality, whether the example has it; other rows of `embeddings` are undefined.
    columns: `id`, `text` and labels, n values each.
    split: of the data.
    contents: by modality, a key a row that is the same where rows hold the same picture or sound.
    words: the modalities that are texts.
    """

    embeddings: dict[str, Float[np.ndarray, "n _"]]
    valid: dict[str, Bool[np.ndarray, " n"]]
    columns: dict[str, list[Any]]
    split: str = ""
    contents: dict[str, list[Any]] = field(default_factory=dict)
    words: tuple[str, ...] = ("text",)

    def __len__(self) -> int:
        return len(next(iter(self.embeddings.values()), ()))


def shard_name(index: int, count: int) -> str:
    """`embeddings-00000-of-00010`, without its ending."""
    return f"embeddings-{index:05d}-of-{count:05d}"


def manifest(folder: str | Path) -> dict[str, Any]:
    """The content of `embeddings.json`. Raises UserError where there is none, or none that can be read."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} holds no embeddings: it has no {MANIFEST}")
    try:
        found = json_text.read(path)
        if not (isinstance(found["count"], int) and isinstance(found["shards"], int) and "digests" in found):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read: it is no list of embeddings") from error
    return found


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Writes the manifest atomically."""
    output.write(folder / MANIFEST, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_shard(folder: Path, name: str, found: Embeddings) -> None:
    """Writes one shard: its columns first, so that a shard whose vectors are there is whole."""
    columns = {**found.columns, **{modality + CONTENT: keys for modality, keys in found.contents.items()}}
    rows = [{column: values[i] for column, values in columns.items()} for i in range(len(found))]
    text = "".join(json.dumps(row, ensure_ascii=False, default=_plain) + "\n" for row in rows)
    output.write(folder / f"{name}.jsonl", text)
    arrays = {m: np.ascontiguousarray(v, np.float32) for m, v in found.embeddings.items()}
    arrays |= {f"{m}{VALID}": np.ascontiguousarray(v) for m, v in found.valid.items()}
    output.write(folder / f"{name}.safetensors", save(arrays))


def digest(folder: Path, name: str) -> str:
    """The digest of a shard's two files."""
    found = hashlib.blake2b(digest_size=16)
    for ending in ("jsonl", "safetensors"):
        regular.check(folder / f"{name}.{ending}")
        with (folder / f"{name}.{ending}").open("rb") as file:
            while piece := file.read(2**24):
                found.update(piece)
    return found.hexdigest()


def byte_sizes(folder: Path, name: str, modalities: Iterable[str]) -> dict[str, int]:
    """The number of dimensions of each modality's embeddings, by one shard."""
    arrays = load_file(folder / f"{name}.safetensors")
    return {modality: arrays[modality].shape[1] for modality in modalities}


def shards(folder: str | Path, modalities: Sequence[str] | None = None) -> Iterator[Embeddings]:
    """Iterates over the shards, in the order of the data.

    Raises:
        UserError: there are no embeddings, some are missing, a modality is missing, or a file is broken.
    """
    folder = Path(folder)
    told = manifest(folder)
    known = list(told["modalities"])
    for modality in modalities or ():
        if modality not in known:
            raise UserError(
                f"{folder} has embeddings of {', '.join(known)}, not {modality!r}{nearest(modality, known)}"
            )
    if told["digests"] is None:
        raise UserError(f"{folder} is not complete: the command that began it goes on with it")
    for index in range(told["shards"]):
        name = shard_name(index, told["shards"])
        try:
            regular.check(folder / f"{name}.safetensors")
            if told["digests"][name] != digest(folder, name):
                raise ValueError("it holds something else than was written")
            arrays = load_file(folder / f"{name}.safetensors")
            text = regular.content(folder / f"{name}.jsonl", LARGEST).decode("utf-8")
            rows = [json_text.parse(line) for line in text.split("\n")[:-1]]
            columns = {column: [row[column] for row in rows] for column in (rows[0] if rows else {})}
            chosen = [m for m in known if modalities is None or m in modalities]
            contents = {m: keys for m in known if (keys := columns.pop(m + CONTENT, None)) is not None}
            contents = {m: keys for m, keys in contents.items() if m in chosen}
            vectors, valid = {m: arrays[m] for m in chosen}, {m: arrays[f"{m}{VALID}"] for m in chosen}
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(f"{folder / name} can't be read ({error}): delete its files, and embed again") from error
        yield Embeddings(vectors, valid, columns, told["data"]["split"], contents, words(told))


def words(told: dict[str, Any]) -> tuple[str, ...]:
    """Returns the modalities of a manifest that are texts; of one that doesn't say so, those of the usual name."""
    return tuple(told.get("words", ("text",)))


def read(folder: str | Path, modalities: Sequence[str] | None = None) -> Embeddings:
    """All embeddings of a folder: `.embeddings["image"]` is `[N, E]`, `.valid["image"]` `[N]`, `.columns["id"]` a list.

    modalities: only these. Raises UserError as `shards`, or where the folder holds other rows than it says.
    """
    parts = list(shards(folder, modalities))
    found = Embeddings(
        {m: np.concatenate([part.embeddings[m] for part in parts]) for m in parts[0].embeddings},
        {m: np.concatenate([part.valid[m] for part in parts]) for m in parts[0].valid},
        {name: [value for part in parts for value in part.columns[name]] for name in parts[0].columns},
        split=parts[0].split,
        words=parts[0].words,
        contents={
            m: [key for part in parts for key in part.contents[m]]
            for m in parts[0].contents
            if all(m in part.contents for part in parts)  # a folder may have been begun by an older mmjax
        },
    )
    if len(found) != (told := manifest(folder)["count"]):
        raise UserError(f"{folder} has {len(found):,} embeddings, and its {MANIFEST} says {told:,}: embed again")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None  # bytes: a table can't hold them
