"""Hugging Face's ViTMAEForPreTraining and ViTMAEModel (He et al. 2021, arXiv:2111.06377).

The encoder is a `ViT` with fixed positions, the decoder and its prediction are `MaskedImage`'s. Theirs keep the fixed
positions among the parameters: here they are computed, and those of a file must be the same.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf.family import Family
from mmjax.interop.parameter_rules import BlockNames, Rule, blocks, leading, linear, norm, patches
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.decoders.patches import Decoder
from mmjax.models.layers.positions import sincos
from mmjax.models.towers.vit import ViT
from mmjax.objectives.masked import MaskedImage
from mmjax.objectives.masking import Keep

OBJECTIVE = "masked"
FP32_SINES = 1e-5  # how far a table may be off whose frequencies were rounded to float32
DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3_072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "decoder_hidden_size": 512,
    "decoder_intermediate_size": 2_048,
    "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16,
    "mask_ratio": 0.75,
    "norm_pix_loss": False,
}
FIXED = {"num_channels": 3, "qkv_bias": True, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BLOCK = BlockNames(
    query="attention.attention.query",
    key="attention.attention.key",
    value="attention.attention.value",
    out="attention.output.dense",
    norm_attention="layernorm_before",
    norm_mlp="layernorm_after",
    mlp_in="intermediate.dense",
    mlp_out="output.dense",
)
POSITIONS, DECODER_POSITIONS = "embeddings.position_embeddings", "decoder.decoder_pos_embed"
# What version 5 of transformers calls the parts in memory, and what they are called in files.
NEWER = {
    r"(^|\.)layers\.": r"\1encoder.layer.",
    r"decoder_encoder\.layer\.": "decoder_layers.",
    r"attention\.q_proj\.": "attention.attention.query.",
    r"attention\.k_proj\.": "attention.attention.key.",
    r"attention\.v_proj\.": "attention.attention.value.",
    r"attention\.o_proj\.": "attention.output.dense.",
    r"mlp\.fc1\.": "intermediate.dense.",
    r"mlp\.fc2\.": "output.dense.",
}


# --- config.json ---


def image(config: Values) -> fdl.Config:
    """The encoder."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    return fdl.Config(
        ViT,
        blocks=config_keys.read_blocks(given, "config.json"),
        patch=config_keys.whole(given["patch_size"], "config.json", "patch_size"),
        size=config_keys.whole(given["image_size"], "config.json", "image_size"),
        positions="sincos",
        cls=True,
        pooling="cls",
    )


def _masked(config: Values) -> fdl.Config:
    """The decoder and the loss."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    inner = given | {name: given[f"decoder_{name}"] for name in names}
    count = (given["image_size"] // given["patch_size"]) ** 2
    keep, kept = 1 - given["mask_ratio"], int(count * (1 - given["mask_ratio"]))
    return fdl.Config(
        MaskedImage,
        decoder=fdl.Config(Decoder, blocks=config_keys.read_blocks(inner, "config.json")),
        keep=keep if Keep(keep).count(count) == kept else kept / count,  # theirs rounds down, ours up
        normalise=given["norm_pix_loss"],
    )


def image_of(built: Parts) -> dict[str, Any]:
    """The inverse of `image`."""
    tower = built.towers["image"]
    return config_keys.keys_of(tower.sizes) | {"image_size": tower.size, "patch_size": tower.patch}


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of both."""
    (objective,) = built.objectives.values()
    count = math.prod(built.towers["image"].capacity())
    ratio, kept = 1 - objective.keep, Keep(objective.keep).count(count)
    if int(count * (1 - ratio)) != kept:
        ratio = 1 - (kept + 0.5) / count
    inner = config_keys.keys_of(objective.decoder.blocks)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    decoder = {f"decoder_{name}": inner[name] for name in names}
    return image_of(built) | decoder | {"mask_ratio": ratio, "norm_pix_loss": objective.normalise}


# --- parameters ---


def image_rules(tower: Any, prefix: str, path: str = "params/towers_image") -> list[Rule]:
    """The encoder."""
    stem = f"{prefix}embeddings.patch_embeddings.projection"
    return [
        leading(f"{path}/cls", f"{prefix}embeddings.cls_token", axes=2),
        patches(f"{path}/stem", stem, (tower.patch, tower.patch, 3)),
        Rule(f"{path}/stem/bias", (f"{stem}.bias",)),
        *blocks(f"{path}/transformer", f"{prefix}encoder.layer.{{layer}}", BLOCK, tower.sizes),
        *norm(f"{path}/transformer/norm", f"{prefix}layernorm"),
    ]


def rules(built: Parts) -> list[Rule]:
    """Encoder, decoder and prediction."""
    ((name, objective),) = built.objectives.items()
    decoder, path = objective.decoder, f"params/objectives_{name}"
    layer = "decoder.decoder_layers.{layer}"
    return [
        *image_rules(built.towers["image"], "vit."),
        leading(f"{path}/decoder/mask", "decoder.mask_token", axes=2),
        *linear(f"{path}/decoder/stem", "decoder.decoder_embed"),
        *blocks(f"{path}/decoder/transformer", layer, BLOCK, decoder.blocks),
        *norm(f"{path}/decoder/transformer/norm", "decoder.decoder_norm"),
        *linear(f"{path}/predict", "decoder.decoder_pred"),
    ]


def renamed(tensors: Arrays) -> Arrays:
    """The names of files, of those that version 5 has in memory."""

    def name(new: str) -> str:
        for pattern, old in NEWER.items():
            new = re.sub(pattern, old, new)
        return new

    return {name(new): array for new, array in tensors.items()}


def fixed(name: str) -> bool:
    """The tables of positions."""
    return name.endswith((POSITIONS, DECODER_POSITIONS))


def _check(tensors: Arrays, where: str) -> None:
    """Raises UserError where positions aren't the fixed ones."""
    for name, table in tensors.items():
        if fixed(name) and np.abs(table - positions(table.shape[1] - 1, table.shape[2])).max() > FP32_SINES:
            raise UserError(f"{where}: {name} isn't the table of sines and cosines, which are the positions here")


def positions(count: int, width: int) -> np.ndarray:
    """The table `[1, 1 + count, width]` of a square grid, with zeros for the CLS."""
    side = math.isqrt(count)
    return np.concatenate([np.zeros((1, width), np.float32), sincos((side, side), width)])[None]


def restored(prefix: str) -> Callable[[Arrays, dict[str, Any]], Arrays]:
    """Adds the tables of positions."""

    def add(tensors: Arrays, config: dict[str, Any]) -> Arrays:
        count = (config["image_size"] // config["patch_size"]) ** 2
        made = tensors | {f"{prefix}{POSITIONS}": positions(count, config["hidden_size"])}
        if "decoder_hidden_size" in config:
            made[DECODER_POSITIONS] = positions(count, config["decoder_hidden_size"])
        return made

    return add


FAMILIES = (
    Family(
        "vit_mae",
        "ViTMAEModel",
        lambda config: Parts({"image": image(config)}, {}),
        image_of,
        lambda built: image_rules(built.towers["image"], ""),
        renamed=renamed,
        restored=restored(""),
        ignored=fixed,
        check=_check,
    ),
    Family(
        "vit_mae",
        "ViTMAEForPreTraining",
        lambda config: Parts({"image": image(config)}, {OBJECTIVE: _masked(config)}),
        describe,
        rules,
        renamed=renamed,
        restored=restored("vit."),
        ignored=fixed,
        check=_check,
    ),
)
