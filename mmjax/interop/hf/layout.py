"""Folders in the layout of the Hugging Face hub, read and written: config.json, parameters, preprocessing, tokenizer.

What can be read is what our towers compute exactly; any other class, or a key of config.json with a value that would
change the result, is an error.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.data.chains import chain_specs
from mmjax.errors import UserError
from mmjax.experiment.diff import Difference
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import not_here, parameter_rules, weight_files
from mmjax.interop.bundle import Bundle
from mmjax.interop.hf import (
    audio_spectrogram,
    bert,
    blip,
    blip_caption,
    blip_vqa,
    clip,
    dinov2,
    flava,
    git,
    gpt,
    llama,
    llava,
    lxmert,
    paligemma,
    siglip,
    vilt,
    vitmae,
)
from mmjax.interop.hf import near as hf_near
from mmjax.interop.hf import preprocessing as hf_preprocessing
from mmjax.interop.hf.family import Family
from mmjax.interop.parts import Parts
from mmjax.interop.twins import equivalence
from mmjax.interop.twins.twin import Twin, listed_differences, refused
from mmjax.interop.wrappers import unwrapped
from mmjax.objectives.masking import Keep
from mmjax.runtime.files import json_text

CONFIG = "config.json"
FAMILIES: tuple[Family, ...] = (
    *clip.FAMILIES,
    *siglip.FAMILIES,
    *bert.FAMILIES,
    *vitmae.FAMILIES,
    *dinov2.FAMILIES,
    *audio_spectrogram.FAMILIES,
    *vilt.FAMILIES,
    *flava.FAMILIES,
    *blip.FAMILIES,
    *blip_caption.FAMILIES,
    *blip_vqa.FAMILIES,
    *lxmert.FAMILIES,
    *gpt.FAMILIES,
    *git.FAMILIES,
    *llama.FAMILIES,
    *llava.FAMILIES,
    *paligemma.FAMILIES,
)


def read(folder: str | Path) -> Bundle:
    """The model of a folder.

    Raises:
        UserError: a file is missing or broken; a class, or a value in config.json, that can't be expressed here.
    """
    folder = Path(folder)
    config = _json(folder / CONFIG)
    family = family_of(config, str(folder))
    parts = family.parts(config)
    table = family.rules(built(parts))
    found = weight_files.read(folder)
    found, notes = unwrapped(found, lambda named: parameter_rules.lacking(table, family.renamed(named)), str(folder))
    arrays = family.renamed(found)
    family.check(arrays, str(folder))
    extras = {name: arrays.pop(name) for name in family.extras if name in arrays}
    variables = parameter_rules.take(table, arrays, str(folder), family.ignored)
    equivalence.unclip(parts, variables)
    transforms, tokenizers = hf_preprocessing.read(folder, family, config, parts)
    if family.positions_at is not None:
        fit(parts.towers["image"], variables["params"]["towers_image"], transforms["image"], family.positions_at)
    config = bundles.stand_in(parts.towers, parts.objectives, transforms, parts.fusions)
    bundle = Bundle(config, variables, tokenizers, str(folder), extras, notes=(*notes, *family.notes))
    bundles.check_bundle(bundle)
    return bundle


def fit(
    tower: fdl.Config, params: dict[str, Any], chain: Sequence[fdl.Config], positions_at: Callable[..., Any]
) -> None:
    """Brings a tower and its positions to the size of the pictures that its preprocessing gives."""
    size, _, _ = chain_specs({"image": [build(step) for step in chain]})["image"].shape
    old, tower.size = build(tower).capacity(), size
    if old != (new := build(tower).capacity()):
        params["position"] = positions_at(params["position"], old, new)


def family_of(config: dict[str, Any], where: str) -> Family:
    """Whose config.json it is."""
    model_type, architectures = config.get("model_type"), config.get("architectures") or []
    if not isinstance(architectures, list):
        raise UserError(f"{where}: architectures={architectures!r:.60} is no list of names of classes")
    fitting = [family for family in FAMILIES if family.model_type == model_type]
    if not fitting:
        known = ", ".join(dict.fromkeys(family.model_type for family in FAMILIES))
        raise UserError(f"{where}: {not_here.hugging_face(str(model_type))}; what can be read is {known}")
    for family in fitting:
        if not architectures or family.architecture in architectures:
            return family
    raise UserError(
        f"{where}: architectures={architectures!r} can't be read; of model_type={model_type!r} "
        f"{', '.join(family.architecture for family in fitting)} can"
    )


def built(parts: Parts) -> Parts:
    """The parts, constructed."""
    return Parts(*({name: build(config) for name, config in group.items()} for group in parts))


def _parts(config: fdl.Config) -> Parts:
    return Parts(dict(config.towers), dict(config.objectives), dict(config.__arguments__.get("fusions") or {}))


def write(bundle: Bundle, folder: str | Path, exact: bool = True) -> Path:
    """Writes a folder that `transformers` opens as the class that computes the same, and gives its path.

    exact: whether pictures must be theirs to the pixel, and texts to the id; else what is written is `near`'s.

    A logit scale above our objective's clip is written as what it is clipped to.

    Raises:
        UserError: none of their classes computes the same (says what differs from the nearest); the folder is taken.
    """
    folder, where = Path(folder), bundle.source or "the model"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: give another folder")
    twin = near(bundle)
    refused(twin, exact, "transformers")
    bundle = twin.bundle
    parts = _parts(bundle.config)
    family, described = _choose(parts, where, bundle.extras)
    modules = built(parts)
    arrays = parameter_rules.give(family.rules(modules), equivalence.clip(modules, bundle.variables), where)
    arrays |= _extras(family, bundle, where)
    with bundles.fresh_folder(folder) as part:
        weight_files.write(family.restored(arrays, described), part)
        hf_preprocessing.write(bundle, family, modules, described, part)
        (part / CONFIG).write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def near(bundle: Bundle) -> Twin:
    """The model as one of their classes, in pictures and texts the same or nearly.

    Raises:
        UserError: none of their classes computes the same (says what differs from the nearest); they have no way to
            say what happens to pictures or texts before.
    """
    twin = hf_near.heads(bundle)
    parts = _parts(twin.bundle.config)
    family, _ = _choose(parts, bundle.source or "the model", twin.bundle.extras)
    return hf_near.inputs(twin, family)


def _extras(family: Family, bundle: Bundle, where: str) -> dict[str, np.ndarray]:
    if missing := [name for name in family.extras if name not in bundle.extras]:
        raise UserError(
            f"{where} would be a {family.architecture}, which holds {', '.join(missing)} too, and there is no such "
            "thing here: only a model that was read from one has it"
        )
    return {name: bundle.extras[name] for name in family.extras}


def _choose(parts: Parts, where: str, extras: Iterable[str] = ()) -> tuple[Family, dict[str, Any]]:
    """The class that computes what the parts do, and its config.json.

    Each candidate's config.json is read again: what comes back must be the parts, but for what is `SILENT`. Of several,
    that which takes the most of the `extras`.
    """
    nearby: list[tuple[str, list[Difference]]] = []
    unsaid: list[str] = []
    fitting: list[tuple[Family, dict[str, Any]]] = []
    modules = built(parts)
    for family in FAMILIES:
        described = {"model_type": family.model_type, "architectures": [family.architecture]}
        try:
            described |= family.describe(modules)
            again = family.parts(described)
        except UserError as error:  # a value that its config.json can't have
            unsaid.append(f"{family.architecture}: {error}")
            continue
        except (AttributeError, KeyError, TypeError, ValueError):  # other modalities, or another kind of objective
            continue
        differences = [d for d in equivalence.differences(again, parts) if not _as_many(d, parts)]
        if not differences:
            fitting.append((family, described))
        nearby.append((family.architecture, differences))
    if fitting:
        lacking = [len(set(family.extras) - set(extras)) for family, _ in fitting]
        best = [pair for pair, count in zip(fitting, lacking, strict=True) if count == min(lacking)]
        return max(best, key=lambda pair: len(pair[0].extras))
    if not nearby:
        kinds = [type(module).__name__ for group in modules for module in group.values()]
        why = f": {unsaid[0]}" if unsaid else ""
        raise UserError(f"{where}: no class of transformers that is known here is made of {', '.join(kinds)}{why}")
    architecture, differences = min(nearby, key=lambda pair: equivalence.distance(pair[1]))
    most = f"{architecture} is nearest, but has\n{listed_differences(differences)}"
    raise UserError(f"{where}: no class of transformers computes the same; {most}")


def _as_many(difference: Difference, parts: Parts) -> bool:
    """True if two shares of kept patches are the same number of patches."""
    if not difference.path.endswith(".keep") or "image" not in parts.towers:
        return False
    count = math.prod(build(parts.towers["image"]).capacity())
    return Keep(difference.left).count(count) == Keep(difference.right).count(count)


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file.parent} is no folder of a Hugging Face model: it has no {file.name}")
    values = json_text.read(file)
    if not isinstance(values, dict):
        raise UserError(f"{file} holds no object but {values!r:.80}")
    return values
