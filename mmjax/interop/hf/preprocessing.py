"""Reads and writes the preprocessing and tokenizer in a folder of Hugging Face's.

Where a folder doesn't say how its pictures are prepared, that is done as for the published models of its family.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.transforms.audio import CropOrPad, DecodeAudio, PickUtterance
from mmjax.experiment.graph import build
from mmjax.interop.bundle import Bundle
from mmjax.interop.config_keys import Values
from mmjax.interop.hf import audio_spectrogram, lxmert
from mmjax.interop.hf import tokenizer as hf_tokenizer
from mmjax.interop.hf.family import Family
from mmjax.interop.parts import Parts, graph, text_reader
from mmjax.interop.preprocessing import image
from mmjax.interop.preprocessing.image import CLIP, HALVES
from mmjax.runtime.files import json_text

FILE, WITHIN = "preprocessor_config.json", "processor_config.json"  # the second holds the first, by kind
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PUBLISHED = {  # by model_type: the processor, its resampling and its colours
    "clip": ("CLIP", 3, CLIP),
    "clip_vision_model": ("CLIP", 3, CLIP),
    "siglip": ("Siglip", 3, HALVES),
    "siglip_vision_model": ("Siglip", 3, HALVES),
    "vit_mae": ("ViT", 2, IMAGENET),
    "dinov2": ("Bit", 3, IMAGENET),
    "vilt": ("Vilt", 3, HALVES),
    "flava": ("Flava", 3, CLIP),
    "blip": ("Blip", 3, CLIP),
    "llava": ("CLIP", 3, CLIP),
    "git": ("CLIP", 3, CLIP),
    "paligemma": ("Siglip", 3, HALVES),
}


def read(folder: Path, family: Family, config: Values, parts: Parts) -> tuple[dict[str, Any], dict[str, Tokenizer]]:
    """The chains of the experiment, and the tokenizers by modality. The parts (configs) get what the folder says
    of them: the normalisation, the ids of special pieces.

    Raises:
        UserError: a file is broken, or asks for what can't be done here.
    """
    towers, chains = parts.towers, dict[str, Any]()
    tokenizers: dict[str, Tokenizer] = {}
    if "image" in towers:
        chains["image"] = pictures(_said(folder, "image_processor"), family, towers["image"])
    if (reader := text_reader(parts)) is not None:
        chains["text"], tokenizer = hf_tokenizer.read(folder, family, config, reader)
        if tokenizer is not None:
            tokenizers["text"] = tokenizer
            family.told(parts, tokenizer)
        if (entry := family.answers) is not None:
            (objective,) = parts.objectives.values()
            made = hf_tokenizer.read_answers(chains["text"], tokenizer, family, config, objective.decoder)
            chains[entry], own = made
            tokenizers |= {} if own is None else {entry: own}
    if "regions" in towers:
        chains["regions"] = lxmert.chain(parts)
    if "audio" in towers:
        if (said := _said(folder, "feature_extractor")) is not None:
            audio_spectrogram.extract(towers["audio"], said, FILE)
        chains["audio"] = sounds(towers["audio"])
    return chains, tokenizers


def pictures(said: Mapping[str, Any] | None, family: Family, tower: fdl.Config) -> tuple[fdl.Config, ...]:
    """The image's chain; said: a preprocessor_config.json."""
    if said is None:
        kind, resample, (mean, std) = PUBLISHED[family.model_type]
        side = {"height": tower.size, "width": tower.size}
        size = {"shortest_edge": tower.size} if kind in ("CLIP", "Bit") else side
        said = {"image_processor_type": f"{kind}ImageProcessor", "size": size, "crop_size": side, "resample": resample}
        said |= {"image_mean": mean, "image_std": std}
    made = image.from_hugging_face(image.squared(said, tower.size) if family.squared else said)
    tower.mean, tower.std = made.mean, made.std
    return graph(made.transforms)


def sounds(tower: fdl.Config) -> tuple[fdl.Config, ...]:
    """The audio's chain."""
    return graph((PickUtterance(), DecodeAudio(), CropOrPad(tower.samples)))


def write(bundle: Bundle, family: Family, modules: Parts, config: dict[str, Any], folder: Path) -> None:
    """Writes preprocessing and tokenizer, and the ids of special pieces into `config`.

    Raises:
        UserError: theirs can't do the same.
    """
    towers, transforms = modules.towers, bundle.config.data.transforms
    reads = text_reader(modules) is not None
    named = [*towers, *(["text"] if reads and "text" not in towers else [])]
    named += [family.answers] if family.answers is not None else []
    built = {modality: tuple(build(step) for step in transforms[modality]) for modality in named}
    if "image" in towers:
        tower = towers["image"]
        _dump(image.to_hugging_face(built["image"], tower.mean, tower.std), folder / FILE)
    if "audio" in towers:
        _dump(audio_spectrogram.extractor_of(towers["audio"]), folder / FILE)
    if reads:
        hf_tokenizer.write(built["text"], bundle.tokenizers.get("text"), family, config, folder)
    if (entry := family.answers) is not None:
        cut, (own, texts) = built[entry][-1], (bundle.tokenizers.get(name) for name in (entry, "text"))
        hf_tokenizer.write_answers(cut, own, texts, family, config)


def _said(folder: Path, within: str) -> dict[str, Any] | None:
    """A folder's description of its inputs; None where it has none."""
    for name in (FILE, WITHIN):
        if not (folder / name).is_file():
            continue
        said = json_text.read(folder / name)
        said = said if name == FILE or not isinstance(said, dict) else said.get(within)
        if isinstance(said, dict):
            return said
    return None


def _dump(config: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
