"""Whether an experiment's parts fit together: what the data gives, what the towers take, what the objectives need.

Each part checks its own fields; here stands what only two of them together can get wrong. The worst of it would be
silent: an id beyond the text tower's table gives NaN, and a step whose loss is NaN is skipped.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from mmjax.data.chains import chain_specs, untrained
from mmjax.data.pipeline import Mixture
from mmjax.data.transforms.audio import DecodeAudio
from mmjax.data.transforms.contract import Spec
from mmjax.errors import UserError
from mmjax.experiment.views import check_views, encoded_inputs
from mmjax.models.towers.audio import AudioTransformer
from mmjax.models.towers.resnet import ResNet
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contract import parts
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.objectives.masked import MaskedText
from mmjax.objectives.masking import Corrupt
from mmjax.objectives.next_sentence import NextSentence
from mmjax.objectives.readings import trained_towers

Modules = Mapping[str, Any]


def idle(towers: Modules, objectives: Modules, frozen: Iterable[str]) -> tuple[str, ...]:
    """The modalities whose towers no objective reads, and which are all frozen: evaluation may want them (ImageBind's
    text tower). `frozen`: the optimiser's expressions."""
    read = trained_towers(objectives)
    wholly = [re.compile(expression) for expression in frozen]
    return tuple(m for m in towers if m not in read and any(e.match(f"towers_{m}/") for e in wholly))


def check_fit(
    towers: Modules,
    objectives: Modules,
    data: Mixture,
    idle: Iterable[str] = (),
    fusions: Modules = MappingProxyType({}),
    ema: float | None = None,
) -> None:
    """Raises UserError where parts don't fit; it names both by their paths, with the value of each."""
    specs = chain_specs(data.transforms)
    check_views(towers, fusions, objectives, specs, idle, ema)
    for name, modality in encoded_inputs(towers, objectives, specs):
        path, tower = f"towers.{name}", towers[name]
        if isinstance(tower, ViT | ResNet):
            _check_pictures(path, tower, specs[modality])
        elif isinstance(tower, TextTransformer):
            _check_texts(path, tower, specs[modality], objectives, data, modality)
        elif isinstance(tower, AudioTransformer):
            _check_sounds(path, tower, specs[modality], data.transforms[modality])
    for name, objective in objectives.items():
        if isinstance(objective, Contrastive):
            _check_embeddings(name, objective, towers)
        if isinstance(objective, NextSentence) and "next" not in [label for label, *_ in specs["text"].labels]:
            raise UserError(
                f"objectives.{name} reads whether a segment follows another, and data.transforms doesn't tell: end the "
                "chain of 'text' in SentencePair(...), and wrap its source, Documents(...)"
            )


def _check_pictures(path: str, tower: ViT | ResNet, spec: Spec) -> None:
    try:
        tower.grid(cast(Any, np.broadcast_to(np.uint8(0), (1, *spec.shape))))  # of which it reads the shape
    except ValueError as error:
        size = f"{spec.shape[0]}x{spec.shape[1]}"
        patch = f" and patch={tower.patch}" if isinstance(tower, ViT) else ""
        raise UserError(
            f"data.transforms gives pictures of {size}, {path} has size={tower.size}{patch}: {error}"
        ) from error


def _check_texts(path: str, tower: TextTransformer, spec: Spec, objectives: Modules, data: Mixture, input: str) -> None:
    (length,) = spec.shape
    if length > tower.length:
        raise UserError(
            f"data.transforms gives texts of {length} tokens, longer than the {tower.length} of {path}.length: "
            f"set {path}.length={length}, or the chain's length to {tower.length}"
        )
    tokenizer = untrained(data.transforms).get(input)
    pieces = tokenizer.vocab_size if tokenizer is not None else 0
    if pieces > tower.vocab:
        raise UserError(
            f"the tokenizer has up to {pieces} pieces (vocab_size), and {path}.vocab={tower.vocab} has no room for "
            f"them: set {path}.vocab={pieces}, or vocab_size={tower.vocab}"
        )
    for name, objective in objectives.items():
        if isinstance(objective, MaskedText) and objective.tied and objective.vocab != tower.vocab:
            raise UserError(
                f"objectives.{name} is tied to the table of {path}, which has vocab={tower.vocab}, and has "
                f"vocab={objective.vocab}: set it to {tower.vocab} too"
            )
        for view in (single for whole in objective.views() for single in parts(whole) if single.input == input):
            if isinstance(view.masking, Corrupt) and not pieces <= view.masking.vocab <= tower.vocab:
                raise UserError(
                    f"objectives.{name} names tokens out of vocab={view.masking.vocab}, but the tokenizer has up to "
                    f"{pieces} pieces and {path}.vocab={tower.vocab}: set it to {tower.vocab} too"
                )


def _check_sounds(path: str, tower: AudioTransformer, spec: Spec, chain: Iterable[Any]) -> None:
    (samples,) = spec.shape
    if samples > tower.samples:
        raise UserError(
            f"data.transforms gives sounds of {samples} samples, longer than the {tower.samples} of {path}.samples: "
            f"set {path}.samples={samples}, or the chain's samples to {tower.samples}"
        )
    for transform in chain:
        if isinstance(transform, DecodeAudio) and transform.rate != tower.spectrogram.rate:
            raise UserError(
                f"data.transforms gives sounds at rate={transform.rate} Hz, but {path}.spectrogram.rate="
                f"{tower.spectrogram.rate}: set both to the same"
            )


def _check_embeddings(name: str, objective: Contrastive, towers: Modules) -> None:
    sizes = {}
    for view in objective.views():
        tower = towers[view.by]
        if not hasattr(tower, "embed_dim"):
            return
        sizes[view.by] = tower.width if tower.embed_dim is None else tower.embed_dim
    if len(set(sizes.values())) > 1:
        each = " and ".join(f"towers.{tower} into {size}" for tower, size in sizes.items())
        raise UserError(f"objectives.{name} compares embeddings of one size, but {each}: set the same embed_dim")
