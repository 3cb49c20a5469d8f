"""Hugging Face's ViLT (Kim et al. 2021, arXiv:2102.03334): ViltModel, ViltForMaskedLM, ViltForImageAndTextRetrieval.

The towers are embeddings alone, and all blocks are a `Merged` fusion's, whose embedding is their pooler's. Their
masked-language head is `MaskedText`'s, tied to the table of words, as theirs always is. Their retrieval head gives one
number, which is the logit of `Matching` for belonging together beside a 0 for not; on the way out it is the difference
of both logits, of which the probability is a function. Their pictures keep their shape, and positions are stretched to
it; here a picture is scaled to a square, for which positions are as they are kept.
"""

from collections.abc import Callable
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf import bert
from mmjax.interop.hf.bert import MASK
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.vitmae import BLOCK
from mmjax.interop.parameter_rules import Rule, blocks, leading, linear, norm, patches
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.fusion.merged import Merged
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.masked import MaskedText
from mmjax.objectives.matching import Matching

STREAM, INPUTS = "stream", ("text", "image")  # in the order of the sequence
DEFAULTS = {
    "vocab_size": 30_522,
    "type_vocab_size": 2,
    "max_position_embeddings": 40,
    "hidden_size": 768,
    "intermediate_size": 3_072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "image_size": 384,
    "patch_size": 32,
}
FIXED = {"num_channels": 3, "qkv_bias": True, "modality_type_vocab_size": 2, "max_image_length": -1, "num_images": -1}
KINDS, HEAD = "embeddings.token_type_embeddings.weight", "mlm_score"
NOTE = "pictures: scaled to squares here, whatever their shape; there it stays, in multiples of a patch"


# --- config.json ---


def model_parts(config: Values, objectives: dict[str, Any]) -> Parts:
    """Both towers and the fusion."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    dropout = given["hidden_dropout_prob"]

    def none() -> fdl.Config:
        return config_keys.read_blocks(given | {"num_hidden_layers": 0}, "config.json", dropout=dropout)

    text = fdl.Config(
        TextTransformer,
        blocks=none(),
        vocab=given["vocab_size"],
        length=given["max_position_embeddings"],
        types=given["type_vocab_size"],
        pre_norm=True,
        pooling="mean",
    )
    image = fdl.Config(
        ViT,
        blocks=none(),
        patch=config_keys.whole(given["patch_size"], "config.json", "patch_size"),
        size=config_keys.whole(given["image_size"], "config.json", "image_size"),
        cls=True,
        pooling="mean",
    )
    stream = fdl.Config(
        Merged,
        blocks=config_keys.read_blocks(given, "config.json", dropout=dropout),
        pooling="first",
        embed_dim=given["hidden_size"],
        projection_tanh=True,
    )
    return Parts({"text": text, "image": image}, objectives, {STREAM: stream})


def _masked(config: Values) -> fdl.Config:
    """The objective that holds the masked-language head."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    if given["hidden_act"] != "gelu":  # of the blocks any will do
        raise UserError(f"config.json: hidden_act={given['hidden_act']!r} can't be in the head here, which has 'gelu'")
    return fdl.Config(
        MaskedText,
        vocab=given["vocab_size"],
        mask_id=MASK,
        first_id=MASK + 1,
        norm_eps=given["layer_norm_eps"],
        tied=True,
        fusion=STREAM,
        beside=("image",),
    )


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`."""
    text, image = (built.towers[name] for name in INPUTS)
    (stream,) = built.fusions.values()
    return config_keys.keys_of(stream.blocks) | {
        "vocab_size": text.vocab,
        "max_position_embeddings": text.length,
        "type_vocab_size": text.types,
        "hidden_dropout_prob": stream.blocks.dropout,
        "attention_probs_dropout_prob": 0.0,
        "image_size": image.size,
        "patch_size": image.patch,
    }


def _described_pair(built: Parts) -> dict[str, Any]:
    (objective,) = built.objectives.values()
    if objective.pair != INPUTS:
        raise UserError(f"the first token of the sequence is the text's there, and here pair={objective.pair}")
    return describe(built)


# --- parameters ---


def model_rules(built: Parts, prefix: str) -> list[Rule]:
    """Both towers and the fusion."""
    text, image = (built.towers[name] for name in INPUTS)
    ((name, stream),) = built.fusions.items()
    fusion, embeddings = f"params/fusions_{name}", f"{prefix}embeddings"
    words, stem = f"{embeddings}.text_embeddings", f"{embeddings}.patch_embeddings.projection"
    return [
        Rule("params/towers_text/token/embedding", (f"{words}.word_embeddings.weight",)),
        Rule("params/towers_text/position", (f"{words}.position_embeddings.weight",)),
        *([Rule("params/towers_text/type", (f"{words}.token_type_embeddings.weight",))] if text.types else []),
        *norm("params/towers_text/norm_pre", f"{words}.LayerNorm"),
        leading("params/towers_image/cls", f"{embeddings}.cls_token", axes=2),
        leading("params/towers_image/position", f"{embeddings}.position_embeddings", axes=1),
        patches("params/towers_image/stem", stem, (image.patch, image.patch, 3)),
        Rule("params/towers_image/stem/bias", (f"{stem}.bias",)),
        *(Rule(f"{fusion}/kind_{input}", (f"{prefix}{KINDS}.{row}",)) for row, input in enumerate(INPUTS)),
        *blocks(f"{fusion}/transformer", f"{prefix}encoder.layer.{{layer}}", BLOCK, stream.blocks),
        *norm(f"{fusion}/transformer/norm", f"{prefix}layernorm"),
        *linear(f"{fusion}/projection", f"{prefix}pooler.dense"),
    ]


def _masked_rules(built: Parts) -> list[Rule]:
    (name,) = built.objectives
    path = f"params/objectives_{name}"
    return [
        *model_rules(built, "vilt."),
        *linear(f"{path}/dense", f"{HEAD}.transform.dense"),
        *norm(f"{path}/norm", f"{HEAD}.transform.LayerNorm"),
        Rule(f"{path}/bias", (f"{HEAD}.decoder.bias",)),
    ]


def _matching_rules(built: Parts) -> list[Rule]:
    (name,) = built.objectives
    path, head = f"params/objectives_{name}/match", "rank_output"

    def take(array: np.ndarray) -> np.ndarray:
        """Weights [1, D] to a kernel [D, 2], or the bias [1] to [2]: the first logit is 0."""
        return np.stack([np.zeros_like(array[0]), array[0]], axis=-1)

    def give(array: np.ndarray) -> tuple[np.ndarray, ...]:
        return ((array[..., 1] - array[..., 0])[None],)

    return [
        *model_rules(built, "vilt."),
        Rule(f"{path}/kernel", (f"{head}.weight",), take, give),
        Rule(f"{path}/bias", (f"{head}.bias",), take, give),
    ]


def renamed(tensors: Arrays) -> Arrays:
    """The vectors of the two inputs each by itself, and the head's bias where version 5 of transformers has it."""
    made: Arrays = {}
    for name, array in tensors.items():
        if name.endswith(KINDS) and not name.endswith(f"text_{KINDS}"):
            made |= {f"{name}.{row}": vector for row, vector in enumerate(array)}
        else:
            made[name] = array
    if f"{HEAD}.decoder.bias" not in made and f"{HEAD}.bias" in made:
        made[f"{HEAD}.decoder.bias"] = made[f"{HEAD}.bias"]
    return made


def restored(prefix: str) -> Callable[[Arrays, dict[str, Any]], Arrays]:
    """The inverse: the vectors of both inputs as one table; and the head's bias where older versions look for it."""

    def joined(tensors: Arrays, config: dict[str, Any]) -> Arrays:
        del config
        rows = [f"{prefix}{KINDS}.{row}" for row in range(len(INPUTS))]
        made = {name: array for name, array in tensors.items() if name not in rows}
        made[f"{prefix}{KINDS}"] = np.stack([tensors[row] for row in rows])
        return made

    return joined


def ignored(name: str) -> bool:
    """Places of older files, and the head's matrix and bias again: the matrix is the table of words."""
    return config_keys.ids_alone(name) or name in (f"{HEAD}.bias", f"{HEAD}.decoder.weight")


def _told(parts: Parts, tokenizer: Tokenizer) -> None:
    masked = {name: one for name, one in parts.objectives.items() if name == bert.OBJECTIVE}
    bert.tell_ids(Parts({}, masked), tokenizer)


def _family(
    architecture: str,
    objectives: Callable[[Values], dict[str, Any]],
    rules: Callable[[Parts], list[Rule]],
    prefix: str = "vilt.",
    described: Callable[[Parts], dict[str, Any]] = describe,
) -> Family:
    return Family(
        "vilt",
        architecture,
        lambda config: model_parts(config, objectives(config)),
        described,
        rules,
        renamed=renamed,
        restored=restored(prefix),
        ignored=ignored,
        told=_told,
        text_config="",
        notes=(NOTE,),
        squared=True,
    )


FAMILIES = (
    _family("ViltModel", lambda config: {}, lambda built: model_rules(built, ""), prefix=""),
    _family("ViltForMaskedLM", lambda config: {bert.OBJECTIVE: _masked(config)}, _masked_rules),
    _family(
        "ViltForImageAndTextRetrieval",
        lambda config: {"matching": fdl.Config(Matching, STREAM, INPUTS)},
        _matching_rules,
        described=_described_pair,
    ),
)
