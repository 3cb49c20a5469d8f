"""Hugging Face's CLIPModel (Radford et al. 2021, arXiv:2103.00020), and its towers alone.

A text ends at its end token, whose state is the embedding. Theirs looks for it among the ids: the first that is
`eos_token_id`, or, where that is 2 (the files of 2022 say so, though the tokenizer's is 49407), the highest id. Ours
takes the last word of the mask, and that is the tokenizer's end token.
"""

from typing import Any

import fiddle as fdl

from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values, ids_alone, prefixed
from mmjax.interop.hf.family import Family
from mmjax.interop.parameter_rules import BlockNames, Rule, blocks, linear, norm, patches
from mmjax.interop.parts import Parts
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive

OBJECTIVE = "contrastive"
PROJECTION = 512  # where the config doesn't say
COMMON = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": PROJECTION}
TEXT = COMMON | {
    "vocab_size": 49_408,
    "hidden_size": 512,
    "intermediate_size": 2_048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
}
IMAGE = COMMON | {
    "hidden_size": 768,
    "intermediate_size": 3_072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
NESTED = ("text_config", "vision_config", "text_config_dict", "vision_config_dict")
BLOCK = BlockNames(
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.out_proj",
    norm_attention="layer_norm1",
    norm_mlp="layer_norm2",
    mlp_in="mlp.fc1",
    mlp_out="mlp.fc2",
)


# --- config.json ---


def image(config: Values, projection: int | None, where: str) -> fdl.Config:
    """The image tower of a `vision_config`; projection: the size of the embedding, None for the pooled state itself."""
    given = config_keys.settings(config, where, IMAGE, {"attention_dropout": 0.0, "num_channels": 3})
    return fdl.Config(
        ViT,
        blocks=config_keys.read_blocks(given, where),
        patch=config_keys.whole(given["patch_size"], where, "patch_size"),
        size=config_keys.whole(given["image_size"], where, "image_size"),
        embed_dim=projection,
        cls=True,
        pooling="cls",
        pre_norm=True,
        stem_bias=False,
    )


def image_of(tower: Any) -> dict[str, Any]:
    """The inverse of `image`."""
    extra = {"projection_dim": tower.embed_dim or PROJECTION, "image_size": tower.size, "patch_size": tower.patch}
    return config_keys.keys_of(tower.sizes) | extra | {"model_type": "clip_vision_model"}


def text(config: Values, projection: int | None, where: str) -> fdl.Config:
    """The text tower of a `text_config`."""
    given = config_keys.settings(config, where, TEXT, {"attention_dropout": 0.0, "dropout": 0.0})
    return fdl.Config(
        TextTransformer,
        blocks=config_keys.read_blocks(given, where, inits="clip"),
        vocab=given["vocab_size"],
        length=given["max_position_embeddings"],
        embed_dim=projection,
        causal=True,
        pooling="last",
    )


def text_of(tower: Any) -> dict[str, Any]:
    """The inverse of `text`; the ids of special tokens come from the tokenizer."""
    extra = {"projection_dim": tower.embed_dim or PROJECTION, "vocab_size": tower.vocab}
    return (
        config_keys.keys_of(tower.sizes)
        | extra
        | {"max_position_embeddings": tower.length, "model_type": "clip_text_model"}
    )


def model_parts(config: Values) -> Parts:
    """The parts of a `CLIPModel`."""
    given = config_keys.settings(config, "config.json", {"projection_dim": PROJECTION, **dict.fromkeys(NESTED)}, {})
    inner = {key: config_keys.within(config, key, "config.json") for key in ("vision_config", "text_config")}
    towers = {
        "image": image(inner["vision_config"], given["projection_dim"], "vision_config"),
        "text": text(inner["text_config"], given["projection_dim"], "text_config"),
    }
    return Parts(towers, {OBJECTIVE: fdl.Config(Contrastive, ("image", "text"), loss="softmax")})


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`."""
    towers = built.towers
    return {
        "projection_dim": towers["image"].embed_dim,
        "vision_config": image_of(towers["image"]),
        "text_config": text_of(towers["text"]),
    }


# --- parameters ---


def image_rules(tower: Any, path: str = "params/towers_image", prefix: str = "vision_model.") -> list[Rule]:
    """The image tower, without its projection."""
    return [
        Rule(f"{path}/cls", (f"{prefix}embeddings.class_embedding",)),
        Rule(f"{path}/position", (f"{prefix}embeddings.position_embedding.weight",)),
        patches(f"{path}/stem", f"{prefix}embeddings.patch_embedding", (tower.patch, tower.patch, 3)),
        *norm(f"{path}/norm_pre", f"{prefix}pre_layrnorm"),
        *blocks(f"{path}/transformer", f"{prefix}encoder.layers.{{layer}}", BLOCK, tower.sizes),
        *norm(f"{path}/transformer/norm", f"{prefix}post_layernorm"),
    ]


def text_rules(tower: Any, path: str = "params/towers_text", prefix: str = "text_model.") -> list[Rule]:
    """The text tower, without its projection."""
    return [
        Rule(f"{path}/token/embedding", (f"{prefix}embeddings.token_embedding.weight",)),
        Rule(f"{path}/position", (f"{prefix}embeddings.position_embedding.weight",)),
        *blocks(f"{path}/transformer", f"{prefix}encoder.layers.{{layer}}", BLOCK, tower.sizes),
        *norm(f"{path}/transformer/norm", f"{prefix}final_layer_norm"),
    ]


def image_projection() -> list[Rule]:
    """The rules of the map from the pooled state to the embedding."""
    return linear("params/towers_image/projection", "visual_projection", bias=False)


def text_projection() -> list[Rule]:
    """The rules of the map from the pooled state to the embedding."""
    return linear("params/towers_text/projection", "text_projection", bias=False)


def rules(built: Parts) -> list[Rule]:
    """The table of a `CLIPModel`."""
    (objective,) = built.objectives
    return [
        Rule(f"params/objectives_{objective}/log_scale", ("logit_scale",)),
        *image_rules(built.towers["image"]),
        *image_projection(),
        *text_rules(built.towers["text"]),
        *text_projection(),
    ]


FAMILIES = (
    Family(
        "clip", "CLIPModel", model_parts, describe, rules, ignored=ids_alone, text_config="text_config", finds_end=True
    ),
    Family(
        "clip_vision_model",
        "CLIPVisionModelWithProjection",
        lambda config: Parts({"image": image(config, config.get("projection_dim") or PROJECTION, "config.json")}, {}),
        lambda built: image_of(built.towers["image"]),
        lambda built: [*image_rules(built.towers["image"]), *image_projection()],
        ignored=ids_alone,
    ),
    Family(
        "clip_vision_model",
        "CLIPVisionModel",
        lambda config: Parts({"image": image(config, None, "config.json")}, {}),
        lambda built: image_of(built.towers["image"]),
        lambda built: image_rules(built.towers["image"]),
        renamed=prefixed("vision_model."),
        ignored=ids_alone,
    ),
    Family(
        "clip_text_model",
        "CLIPTextModelWithProjection",
        lambda config: Parts({"text": text(config, config.get("projection_dim") or PROJECTION, "config.json")}, {}),
        lambda built: text_of(built.towers["text"]),
        lambda built: [*text_rules(built.towers["text"]), *text_projection()],
        ignored=ids_alone,
        text_config="",
        finds_end=True,
    ),
    Family(
        "clip_text_model",
        "CLIPTextModel",
        lambda config: Parts({"text": text(config, None, "config.json")}, {}),
        lambda built: text_of(built.towers["text"]),
        lambda built: text_rules(built.towers["text"]),
        renamed=prefixed("text_model."),
        ignored=ids_alone,
        text_config="",
        finds_end=True,
    ),
)
