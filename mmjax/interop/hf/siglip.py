"""Hugging Face's SiglipModel (Zhai et al. 2023, arXiv:2303.15343), and its towers alone.

Siglip2's models of one picture size (Tschannen et al. 2025, arXiv:2502.14786) are of this class too. Texts are padded
to their full length, padding counts as text, and the last position's state is the embedding.
"""

from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values, ids_alone, prefixed
from mmjax.interop.hf.clip import BLOCK
from mmjax.interop.hf.family import Family
from mmjax.interop.parameter_rules import Rule, blocks, heads_in, heads_out, leading, linear, norm, patches
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive

OBJECTIVE = "contrastive"
COMMON = {
    "hidden_size": 768,
    "intermediate_size": 3_072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
TEXT = COMMON | {"vocab_size": 32_000, "max_position_embeddings": 64, "projection_size": None}
IMAGE = COMMON | {"image_size": 224, "patch_size": 16}
FIXED_IMAGE = {"attention_dropout": 0.0, "num_channels": 3, "vision_use_head": True}
NESTED = ("text_config", "vision_config")
POOL = "vision_model.head.attention"
PARTS = ("q_proj", "k_proj", "v_proj")  # what their pooling's one matrix of query, key and value is cut into


# --- config.json ---


def image(config: Values, where: str) -> fdl.Config:
    """The image tower of a `vision_config`."""
    given = config_keys.settings(config, where, IMAGE, FIXED_IMAGE)
    patch, size = (config_keys.whole(given[key], where, key) for key in ("patch_size", "image_size"))
    return fdl.Config(
        ViT,
        blocks=config_keys.read_blocks(given, where),
        patch=patch,
        size=size,
        pooling="map",
        drop_rest=size % patch > 0,
    )


def image_of(tower: Any) -> dict[str, Any]:
    """The inverse of `image`."""
    extra = {"image_size": tower.size, "patch_size": tower.patch, "model_type": "siglip_vision_model"}
    return config_keys.keys_of(tower.sizes) | extra


def text(config: Values, where: str) -> fdl.Config:
    """The text tower of a `text_config`."""
    given = config_keys.settings(config, where, TEXT, {"attention_dropout": 0.0})
    return fdl.Config(
        TextTransformer,
        blocks=config_keys.read_blocks(given, where),
        vocab=given["vocab_size"],
        length=given["max_position_embeddings"],
        embed_dim=given["projection_size"] or given["hidden_size"],
        projection_bias=True,
        attend_padding=True,
        pooling="last",
    )


def text_of(tower: Any) -> dict[str, Any]:
    """The inverse of `text`."""
    extra = {"vocab_size": tower.vocab, "max_position_embeddings": tower.length, "projection_size": tower.embed_dim}
    return config_keys.keys_of(tower.sizes) | extra | {"model_type": "siglip_text_model"}


def model_parts(config: Values) -> Parts:
    """The parts of a `SiglipModel`."""
    config_keys.settings(config, "config.json", dict.fromkeys(NESTED), {})
    towers = {
        "image": image(config_keys.within(config, "vision_config", "config.json"), "vision_config"),
        "text": text(config_keys.within(config, "text_config", "config.json"), "text_config"),
    }
    return Parts(towers, {OBJECTIVE: fdl.Config(Contrastive, ("image", "text"), loss="sigmoid")})


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`."""
    return {"vision_config": image_of(built.towers["image"]), "text_config": text_of(built.towers["text"])}


# --- parameters ---


def image_rules(tower: Any, path: str = "params/towers_image", prefix: str = "vision_model.") -> list[Rule]:
    """The image tower with its pooling."""
    pool, head, heads = f"{path}/attention_pool", f"{prefix}head", tower.sizes.heads
    query, key, value = (f"{POOL}.{part}" for part in PARTS)
    return [
        *token_rules(tower, path, prefix),
        leading(f"{pool}/probe", f"{head}.probe", axes=2),
        *heads_in(f"{pool}/attention/query", (query,), heads),
        *heads_in(f"{pool}/attention/key_value", (key, value), heads),
        *heads_out(f"{pool}/attention/out", f"{POOL}.out_proj", heads),
        *norm(f"{pool}/norm", f"{head}.layernorm"),
        *linear(f"{pool}/mlp/in", f"{head}.mlp.fc1"),
        *linear(f"{pool}/mlp/out", f"{head}.mlp.fc2"),
    ]


def token_rules(tower: Any, path: str, prefix: str) -> list[Rule]:
    """The image tower without its pooling."""
    return [
        Rule(f"{path}/position", (f"{prefix}embeddings.position_embedding.weight",)),
        patches(f"{path}/stem", f"{prefix}embeddings.patch_embedding", (tower.patch, tower.patch, 3)),
        Rule(f"{path}/stem/bias", (f"{prefix}embeddings.patch_embedding.bias",)),
        *blocks(f"{path}/transformer", f"{prefix}encoder.layers.{{layer}}", BLOCK, tower.sizes),
        *norm(f"{path}/transformer/norm", f"{prefix}post_layernorm"),
    ]


def text_rules(tower: Any, path: str = "params/towers_text", prefix: str = "text_model.") -> list[Rule]:
    """The text tower with its head."""
    return [
        Rule(f"{path}/token/embedding", (f"{prefix}embeddings.token_embedding.weight",)),
        Rule(f"{path}/position", (f"{prefix}embeddings.position_embedding.weight",)),
        *blocks(f"{path}/transformer", f"{prefix}encoder.layers.{{layer}}", BLOCK, tower.sizes),
        *norm(f"{path}/transformer/norm", f"{prefix}final_layer_norm"),
        *linear(f"{path}/projection", f"{prefix}head"),
    ]


def rules(built: Parts) -> list[Rule]:
    """The table of a `SiglipModel`."""
    (objective,) = built.objectives
    return [
        leading(f"params/objectives_{objective}/log_scale", "logit_scale", axes=1),
        leading(f"params/objectives_{objective}/bias", "logit_bias", axes=1),
        *image_rules(built.towers["image"]),
        *text_rules(built.towers["text"]),
    ]


def _cut(tensors: Arrays) -> Arrays:
    """Query, key and value of their pooling apart: ours keeps the query by itself."""
    made: Arrays = {}
    for name, array in tensors.items():
        if name.startswith(f"{POOL}.in_proj_"):
            kind = name.removeprefix(f"{POOL}.in_proj_")
            made |= {f"{POOL}.{part}.{kind}": third for part, third in zip(PARTS, np.split(array, 3), strict=True)}
        else:
            made[name] = array
    return made


def _joined(tensors: Arrays, config: dict[str, Any]) -> Arrays:
    """The inverse of `cut`."""
    del config
    cut_names = {f"{POOL}.{part}.{kind}" for part in PARTS for kind in ("weight", "bias")}
    made = {name: array for name, array in tensors.items() if name not in cut_names}
    if len(made) < len(tensors):
        for kind in ("weight", "bias"):
            made[f"{POOL}.in_proj_{kind}"] = np.concatenate([tensors[f"{POOL}.{part}.{kind}"] for part in PARTS])
    return made


FAMILIES = (
    Family(
        "siglip",
        "SiglipModel",
        model_parts,
        describe,
        rules,
        renamed=_cut,
        restored=_joined,
        ignored=ids_alone,
        text_config="text_config",
    ),
    Family(
        "siglip_vision_model",
        "SiglipVisionModel",
        lambda config: Parts({"image": image(config, "config.json")}, {}),
        lambda built: image_of(built.towers["image"]),
        lambda built: image_rules(built.towers["image"]),
        renamed=lambda tensors: _cut(prefixed("vision_model.")(tensors)),
        restored=_joined,
        ignored=ids_alone,
    ),
    Family(
        "siglip_text_model",
        "SiglipTextModel",
        lambda config: Parts({"text": text(config, "config.json")}, {}),
        lambda built: text_of(built.towers["text"]),
        lambda built: text_rules(built.towers["text"]),
        renamed=prefixed("text_model."),
        ignored=ids_alone,
        text_config="",
    ),
)
