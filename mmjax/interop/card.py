"""The card of an exported model: a README.md that says what it is, how it is loaded, where it is from, how good it is.

Its head is the metadata that model hubs read. What isn't known isn't said.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from mmjax import __version__
from mmjax.experiment import own_parts
from mmjax.experiment import record as records
from mmjax.experiment.graph import callable_name
from mmjax.experiment.record import RECORD
from mmjax.interop import hub
from mmjax.interop.bundle import Bundle
from mmjax.interop.projects import PROJECTS
from mmjax.interop.twins import usage
from mmjax.interop.twins.twin import Twin
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.runtime import copies, metrics
from mmjax.runtime.counts import is_whole
from mmjax.runtime.files import json_text, output

FILE = "README.md"
TASKS = {
    **dict.fromkeys(("CLIPModel", "SiglipModel", "CLIP", "CustomTextCLIP"), usage.ZERO_SHOT),
    **dict.fromkeys(("BertForMaskedLM", "BertForPreTraining"), "fill-mask"),
    "BertForTokenClassification": "token-classification",
    "SentenceTransformer": "sentence-similarity",
    **dict.fromkeys(("GPT2LMHeadModel", "OpenAIGPTLMHeadModel", "LlamaForCausalLM"), "text-generation"),
    "ASTForAudioClassification": "audio-classification",
}
FEATURES = {"image": "image-feature-extraction", "text": "feature-extraction", "audio": "feature-extraction"}


@dataclass(frozen=True)
class Origin:
    """The run that a model comes from, as far as that is known.

    name: of the experiment, as it was trained: "experiments/clip.py:tiny"; empty where that isn't known.
    step: of its checkpoint.
    figures: the last evaluation of each split, `{"step": ..., "split": ..., "retrieval/image->text/R@1": ...}`.
    towers: those that the run had.
    """

    name: str = ""
    step: int | None = None
    figures: tuple[Mapping[str, Any], ...] = ()
    towers: tuple[str, ...] = ()


def origin(source: str | os.PathLike[str], bundle: Bundle) -> Origin:
    """The origin of a model, from its workdir, which may be in a bucket; empty for any other source."""
    if bundle.step is None:
        return Origin()
    workdir: Any = epath.Path(source).expanduser() if "://" not in str(source) else epath.Path(source)
    workdir = workdir.parent if workdir.name == RECORD else workdir
    text = json_text.text(copies.whole(workdir, RECORD))
    latest: dict[str, dict[str, Any]] = {}
    for line in metrics.read(workdir):
        if "split" in line and line["step"] <= bundle.step:
            latest[line["split"]] = line
    towers = tuple(json.loads(text)["experiment"]["towers"])
    return Origin(records.name_of(text), bundle.step, tuple(latest.values()), towers)


def write(folder: Path, layout: str, twin: Twin, made: Origin, license: str | None) -> None:
    """Puts the card into an exported folder. license: as its giver says; None: nothing was said."""
    output.write(folder / FILE, card(folder, layout, twin, made, license))


def card(folder: Path, layout: str, twin: Twin, made: Origin, license: str | None) -> str:
    """The text."""
    bundle = twin.bundle
    sections = [
        _head(layout, twin, license),
        f"# {folder.name}",
        _about(layout, twin),
        "## How to load it\n\n" + _loading(folder, layout, twin),
        _listed("## What is not the same\n\nBeside the model in mmjax:", twin.differs),
        _listed("## What is to be known", twin.notes),
        "## Where it is from\n\n" + _from(bundle, made),
        _figures(bundle, made),
        "" if license else "## Licence\n\nNone was chosen by whoever exported it: ask before you use it.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(layout: str, twin: Twin, license: str | None) -> str:
    config = twin.bundle.config
    lines = [f"library_name: {_library(layout)}"]
    if task := task_of(twin):
        lines.append(f"pipeline_tag: {task}")
    kinds = [callable_name(config.towers[name]) for name in config.towers]
    lines += ["tags:", *(f"- {tag}" for tag in dict.fromkeys(["mmjax", *config.towers, *kinds]))]
    lines.append(f"license: {json.dumps(license)}" if license else "# license: none was chosen")
    if config.data.weights:
        lines += ["datasets:", *(f"- {json.dumps(name)}" for name in config.data.weights)]
    return "\n".join(["---", *lines, "---"])


def task_of(twin: Twin) -> str | None:
    """The hubs' name of what a model is for."""
    towers, objectives = twin.bundle.config.towers, twin.bundle.config.objectives
    if twin.kind in TASKS:
        return TASKS[twin.kind]
    if {"image", "text"} <= set(towers) and any(callable_name(o) == Contrastive.__name__ for o in objectives.values()):
        return usage.ZERO_SHOT
    return FEATURES.get(next(iter(towers), "")) if len(towers) == 1 else None


def _about(layout: str, twin: Twin) -> str:
    config = twin.bundle.config
    count = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(twin.bundle.variables.get("params", {})))
    towers = ", ".join(f"{name} (`{callable_name(tower)}`)" for name, tower in config.towers.items())
    as_what = f"`{twin.kind}` of {_library(layout)}" if layout != "mmjax" else "mmjax's own layout"
    objectives = ", ".join(f"`{callable_name(objective)}`" for objective in config.objectives.values())
    trained = f", trained by {objectives}" if objectives else ""
    return f"{count:,} parameters in {as_what}. Towers: {towers or 'none'}{trained}. Written by mmjax {__version__}."


def _from(bundle: Bundle, made: Origin) -> str:
    config = bundle.config
    if not made.name and made.step is None:
        name = bundle.source if hub.is_name(bundle.source) else Path(bundle.source).name
        return f"From `{name or 'a model without a name'}`."
    data = ", ".join(config.data.weights) or "unknown data"
    return (
        f"Experiment `{made.name}`, step {made.step:,} of {config.steps:,}, batches of {config.batch_size:,} examples "
        f"of {data}, `{callable_name(config.optimizer)}`."
    )


def _figures(bundle: Bundle, made: Origin) -> str:
    """Of what is still there: a tower that stayed behind takes its figures along."""
    gone = set(made.towers) - set(bundle.config.towers)
    tables = []
    for line in made.figures:
        rows = {
            name: value
            for name, value in line.items()
            if isinstance(value, float) and not gone & set(name.replace("->", "/").replace("_", "/").split("/"))
        }
        if rows:
            head = [f"| {line['split']}, step {line['step']:,} | |", "|---|---|"]
            body = [f"| {name} | {_figure(name, value)} |" for name, value in rows.items()]
            tables.append("\n".join([*head, *body]))
    return "\n\n".join(["## Figures", "As the run itself measured them, by mmjax.", *tables]) if tables else ""


def _figure(name: str, value: float) -> str:
    """A count as a whole number, a score with four digits."""
    return f"{value:,.0f}" if is_whole(name) else f"{value:.4f}"


def _listed(title: str, lines: Sequence[str]) -> str:
    return f"{title}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


# --- how it is loaded: code that runs as it stands ---


def _library(layout: str) -> str:
    """What opens it, as the hubs call it."""
    if layout == "mmjax":
        return layout
    known = PROJECTS[layout].used_by()
    return PROJECTS[layout].title if known is None else known.LIBRARY


def _loading(folder: Path, layout: str, twin: Twin) -> str:
    """By the project's own library, or where nothing is known of one by mmjax."""
    known = PROJECTS[layout].used_by() if layout != "mmjax" else None
    return _mmjax(folder, twin) if known is None else known.how_to_load(folder, twin)


def _mmjax(folder: Path, twin: Twin) -> str:
    towers = twin.bundle.config.towers
    files = [f"{folder.name}/{own_parts.CODE}/{file.name}" for file in own_parts.defining(twin.bundle.config)]
    own = f", code={files!r}" if files else ""
    code = [f"model = mmjax.load({folder.name!r}{own})  # where this folder is"]
    imports = ["import mmjax"]
    if "image" in towers:
        imports += ["from PIL import Image"]
        size = usage.side(twin.bundle)
        code += [f'print(model.embed(image=Image.new("RGB", ({size}, {size}), "red")).shape)  # or a file: "cat.jpg"']
    if "text" in towers and "text" in twin.bundle.tokenizers:
        code += ['print(model.embed(text=["a cat", "a dog"]).shape)']
    if "audio" in towers:
        imports += ["import numpy as np"]
        code += ['print(model.embed(audio=(np.zeros(16_000, np.float32), 16_000)).shape)  # or a file: "bell.ogg"']
    return usage.python(twin, "mmjax", *imports, "", *code)
