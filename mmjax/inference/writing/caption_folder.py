"""`mmjax caption`: a caption of each picture in a folder, in a file of JSON lines; what was stopped goes on."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from mmjax.errors import UserError
from mmjax.evaluate.writing.beams import Beams
from mmjax.evaluate.writing.sampling import Sampling
from mmjax.inference.model import load
from mmjax.inference.writing.generation import MOST, Beginning, Order
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.runtime.files import json_text, output

NAMED = 10  # bad files that are named; the others are counted


def caption_folder(
    source: str,
    folder: str | Path,
    out: str | Path,
    *,
    prompt: str = "",
    max_new_tokens: int = MOST,
    temperature: float = 0.0,
    top_p: float | None = None,
    beams: int | None = None,
    seed: int = 0,
    objective: str | None = None,
    step: int | None = None,
    code: Any = None,
    batch_size: int = 64,
    console: Console | None = None,
) -> Path:
    """Writes a line `{"file": ..., "text": ...}` of each picture of a folder and of those within it, in their names'
    order.

    source: whatever `mmjax.load` takes. prompt: what each begins with; of a model that reads a question beside its
    picture, the question. out: lines are added behind those that it has, of whose files none is captioned
    again; a line that a kill cut off is left out. The other options are those of `Model.generate`. A file that can't be
    read gets no line: it is named, and counted at the end.

    Raises UserError where the model doesn't caption pictures, a setting can't be had, or the folder has none.
    """
    out, root = output.local(out, "--out"), Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder} is no folder: name one with pictures in it")
    output.check_writable(out)
    use_compilation_cache()
    console = console or Console(stderr=True, highlight=False)
    model = load(source, step=step, code=code, batch_size=batch_size)
    generation = model.generation(objective, "caption")
    asks = "text" in generation.views.objective.reads  # the prompt is a question, which the decoder reads as an input
    asked, begun = ({"text": prompt}, "") if asks else ({}, prompt)
    if asks and not prompt.strip():
        raise UserError(f"{source}: {generation.views.name!r} answers a question on each picture: give it by --prompt")
    read = [name for name in generation.views.objective.reads if model.kinds[name].draws]
    if len(read) != 1:
        raise UserError(
            f"{source}: {generation.views.name!r} reads {', '.join(generation.views.objective.reads) or 'text alone'}, "
            "and captions are of one kind of pictures"
        )
    files = [file for file in pictures_in(root) if file.suffix.lower() in model.kinds[read[0]].endings]
    if not files:
        raise UserError(f"{folder} has no pictures in it or in the folders within it")
    search = None if beams is None else Beams(beams)
    order = Order(max_new_tokens, Sampling(temperature, top_p=top_p), search, seed=seed)
    names = [file.relative_to(root).as_posix() for file in files]
    there = kept_lines(out)
    bad: list[str] = []

    def beginnings() -> Iterator[Beginning]:
        for place, (name, file) in enumerate(zip(names, files, strict=True)):
            if name in there:
                continue
            try:
                row = generation.views.row({read[0]: file, **asked}, None)
            except UserError as reason:
                bad.append(name)
                if len(bad) <= NAMED:
                    console.print(f"left out: {reason}", soft_wrap=True, markup=False)
                continue
            yield Beginning(begun, row, place)

    done = 0
    with out.open("a", encoding="utf-8") as lines:
        for place, texts in generation.placed(beginnings(), order):
            lines.write(json.dumps({"file": names[place], "text": texts[0].text}, ensure_ascii=False) + "\n")
            lines.flush()
            done += 1
            if done % batch_size == 0:
                console.print(f"{done + len(there):,} of {len(files):,} pictures", soft_wrap=True)
    told = f"; {len(bad):,} could not be read" if bad else ""
    console.print(f"{done + len(there):,} captions of {len(files):,} pictures in {out}{told}", soft_wrap=True)
    return out


def pictures_in(root: Path) -> list[Path]:
    """The files of a folder and of those within it that aren't hidden, in their order."""
    found = []
    for inside, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(inside) / name for name in sorted(names) if not name.startswith(".")]
    return [file for file in found if file.is_file()]


def kept_lines(out: Path) -> set[str]:
    """The files of which captions are there already. A last line that isn't whole is cut off."""
    if not out.exists():
        return set()
    lines, names = out.read_text(encoding="utf-8").splitlines(keepends=True), set()
    whole = []
    for place, line in enumerate(lines):
        try:
            found = json_text.parse(line.encode())
            names.add(found["file"])
        except (ValueError, KeyError, TypeError) as error:
            if place < len(lines) - 1:
                raise UserError(f"{out}, line {place + 1}, is no caption: name a new file for --out") from error
            break
        if not line.endswith("\n"):
            names.discard(found["file"])
            break
        whole.append(line)
    if len(whole) < len(lines):
        output.write(out, "".join(whole))
    return names
