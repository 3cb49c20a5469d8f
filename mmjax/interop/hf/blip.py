"""Hugging Face's BlipForImageTextRetrieval (Li et al. 2022, arXiv:2201.12086); the captioner is in blip_caption.py,
what answers questions in blip_vqa.py.

Their text encoder is a `Trunk` of our text tower, by which it reads texts alone, and of a `Cross` fusion, which reads
them with their pictures. Both of their heads are here: the projections are the towers' embeddings, whose cosines are
their scores without `use_itm_head`; the other head is `Matching`'s. Either head of theirs reads the ids that it is
given; who trained with [Encode] in the place of a matched text's first id puts it there himself.
"""

from typing import Any

import fiddle as fdl

from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values, ids_alone
from mmjax.interop.hf.bert import BLOCK
from mmjax.interop.hf.family import Family
from mmjax.interop.parameter_rules import (
    BlockNames,
    Rule,
    blocks,
    heads_in,
    heads_in_joined,
    heads_out,
    leading,
    linear,
    norm,
    patches,
)
from mmjax.interop.parts import Parts
from mmjax.models.fusion.cross import Cross
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.shared_trunk import Trunk
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.matching import Matching

FUSION = "grounded"
SIZES = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3_072,
    "hidden_act": "gelu",
}
UNREAD = {"projection_dim": 512, "label_smoothing": 0.0}  # of their other classes, and of the captioner's loss
IMAGE = SIZES | UNREAD | {
    "num_attention_heads": 12,
    "image_size": 384,
    "patch_size": 16,
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
}  # fmt: skip
TEXT = SIZES | UNREAD | {
    "num_attention_heads": 8,
    "vocab_size": 30_524,
    "encoder_hidden_size": 768,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
DEFAULTS = UNREAD | {"image_text_hidden_size": 256} | dict.fromkeys(
    f"{part}_config{ending}" for part in ("text", "vision") for ending in ("", "_dict")
)  # fmt: skip


# --- config.json ---


def model_parts(config: Values) -> Parts:
    """Both towers, the fusion by the text's trunk, and the objective that holds the matching head."""
    given = config_keys.settings(config, "config.json", DEFAULTS, {})
    seen, read = inner_settings(config)
    projected = {"pooling": "cls", "embed_dim": given["image_text_hidden_size"], "projection_bias": True}
    towers, fusion = encoders(seen, read, **projected)
    return Parts(towers, {"matching": fdl.Config(Matching, FUSION)}, {FUSION: fusion})


def encoders(seen: Values, read: Values, **pooled: Any) -> tuple[dict[str, fdl.Config], fdl.Config]:
    """Both towers, and the fusion by the text's trunk. pooled: as `picture_tower` has them, for both."""
    if seen["hidden_size"] != read["hidden_size"]:
        raise UserError(
            f"config.json: pictures' tokens of vision_config.hidden_size={seen['hidden_size']} can't be read by a text "
            f"of text_config.hidden_size={read['hidden_size']} here: only equally wide ones can"
        )
    dropout = read["hidden_dropout_prob"]
    trunk = fdl.Config(
        Trunk,
        blocks=config_keys.read_blocks(read, "text_config", norm="post", dropout=dropout),
        cls=False,
        kinds=False,
        cross=True,
    )
    text = fdl.Config(
        TextTransformer,
        trunk=trunk,
        vocab=read["vocab_size"],
        length=read["max_position_embeddings"],
        pre_norm=True,
        **pooled,
    )
    return {"image": picture_tower(seen, **pooled), "text": text}, fdl.Config(Cross, reader="text", trunk=trunk)


def inner_settings(config: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of `vision_config` and of `text_config`."""
    image, text = (config_keys.within(config, f"{part}_config", "config.json") for part in ("vision", "text"))
    seen = config_keys.settings(image, "vision_config", IMAGE, {"num_channels": 3})
    return seen, config_keys.settings(text, "text_config", TEXT, {"is_decoder": True})


def picture_tower(seen: Values, **pooled: Any) -> fdl.Config:
    """The picture's tower. pooled: its fields that make an embedding of the tokens."""
    return fdl.Config(
        ViT,
        blocks=config_keys.read_blocks(seen, "vision_config"),
        patch=config_keys.whole(seen["patch_size"], "vision_config", "patch_size"),
        size=config_keys.whole(seen["image_size"], "vision_config", "image_size"),
        cls=True,
        **pooled,
    )


def image_of(tower: Any) -> dict[str, Any]:
    """The inverse of `picture_tower`."""
    extra = {"image_size": tower.size, "patch_size": tower.patch, "model_type": "blip_vision_model"}
    return config_keys.keys_of(tower.sizes) | extra


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`."""
    image, text = built.towers["image"], built.towers["text"]
    if not text.trunk.cross:
        raise UserError("its text encoder attends to pictures, and towers.text.trunk.cross=False: set cross=True")
    return {
        "image_text_hidden_size": image.embed_dim,
        "vision_config": image_of(image),
        "text_config": text_of(text.trunk.blocks, text.vocab, text.length, image),
    }


def text_of(blocks: Any, vocab: int, length: int, image: Any) -> dict[str, Any]:
    """The `text_config` of texts that attend to what the image's tower gives."""
    return config_keys.keys_of(blocks) | {
        "vocab_size": vocab,
        "max_position_embeddings": length,
        "encoder_hidden_size": image.sizes.width,
        "hidden_dropout_prob": blocks.dropout,
        "attention_probs_dropout_prob": 0.0,
        "is_decoder": True,
        "model_type": "blip_text_model",
    }


# --- parameters ---


def rules(built: Parts) -> list[Rule]:
    """Both towers with their projections, and the matching head; the fusion has no parameters of its own."""
    image, text = built.towers["image"], built.towers["text"]
    (objective,) = built.objectives
    return [
        *image_rules(image),
        *linear("params/towers_image/projection", "vision_proj"),
        *text_rules(text),
        *linear("params/towers_text/projection", "text_proj"),
        *linear(f"params/objectives_{objective}/match", "itm_head"),
    ]


def text_rules(tower: Any) -> list[Rule]:
    """The text's tower with what its trunk attends to a picture by, without its projection."""
    words, table, layer = "params/towers_text", "text_encoder.embeddings", "text_encoder.encoder.layer.{layer}"
    return [
        Rule(f"{words}/token/embedding", (f"{table}.word_embeddings.weight",)),
        Rule(f"{words}/position", (f"{table}.position_embeddings.weight",)),
        *norm(f"{words}/norm_pre", f"{table}.LayerNorm"),
        *blocks(f"{words}/trunk/transformer", layer, BLOCK, tower.sizes),
        *cross_rules(f"{words}/trunk/transformer/blocks", f"{layer}.crossattention", BLOCK, tower.sizes),
    ]


def image_rules(tower: Any) -> list[Rule]:
    """The picture's tower, without its projection."""
    path, embeddings = "params/towers_image", "vision_model.embeddings"
    return [
        leading(f"{path}/cls", f"{embeddings}.class_embedding", axes=2),
        leading(f"{path}/position", f"{embeddings}.position_embedding", axes=1),
        patches(f"{path}/stem", f"{embeddings}.patch_embedding", (tower.patch, tower.patch, 3)),
        Rule(f"{path}/stem/bias", (f"{embeddings}.patch_embedding.bias",)),
        *_image_blocks(f"{path}/transformer/blocks", "vision_model.encoder.layers.{layer}", tower.sizes),
        *norm(f"{path}/transformer/norm", "vision_model.post_layernorm"),
    ]


def _image_blocks(ours: str, theirs: str, sizes: Blocks) -> list[Rule]:
    """The blocks of the image tower, whose query, key and value are one matrix there."""
    heads, layers = sizes.heads, sizes.depth
    return [
        *heads_in_joined(f"{ours}/attention/qkv", f"{theirs}.self_attn.qkv", heads, layers),
        *heads_out(f"{ours}/attention/out", f"{theirs}.self_attn.projection", heads, layers),
        *norm(f"{ours}/norm_attention", f"{theirs}.layer_norm1", layers),
        *norm(f"{ours}/norm_mlp", f"{theirs}.layer_norm2", layers),
        *linear(f"{ours}/mlp/in", f"{theirs}.mlp.fc1", layers),
        *linear(f"{ours}/mlp/out", f"{theirs}.mlp.fc2", layers),
    ]


def cross_rules(ours: str, theirs: str, names: BlockNames, sizes: Blocks) -> list[Rule]:
    """The attention to the picture of each block; its parts are named as those of the block's own attention."""
    at = {part: f"{theirs}.{name.removeprefix('attention.')}" for part, name in names._asdict().items()}
    return [
        *heads_in(f"{ours}/cross/query", (at["query"],), sizes.heads, sizes.depth),
        *heads_in(f"{ours}/cross/key_value", (at["key"], at["value"]), sizes.heads, sizes.depth),
        *heads_out(f"{ours}/cross/out", at["out"], sizes.heads, sizes.depth),
        *norm(f"{ours}/norm_cross", at["norm_attention"], sizes.depth),
    ]


FAMILIES = (
    Family(
        "blip",
        "BlipForImageTextRetrieval",
        model_parts,
        describe,
        rules,
        ignored=ids_alone,
        text_config="text_config",
    ),
)
