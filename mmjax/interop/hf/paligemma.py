"""Hugging Face's PaliGemmaForConditionalGeneration on Gemma (Beyer et al. 2024, arXiv:2407.07726).

SigLIP's tower without its pooling, a linear map of its tokens, and Gemma, which is laid out as Llama is: its norms
multiply by 1 + scale, the vectors of words alone are multiplied by the root of the width, and a head's size is its own.
There a placeholder of each of the picture's tokens stands among the ids (`image_token_index`), here the tokens stand
before them. What Gemma 2 has besides (PaliGemma 2) has no place here.
"""

from typing import Any

import fiddle as fdl

from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf import siglip
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.language_model import held, whole_number
from mmjax.interop.hf.llama import layer_rules, wavelength_of
from mmjax.interop.parameter_rules import Rule, linear
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.decoders.projectors import LinearProjector
from mmjax.models.decoders.text import TextDecoder
from mmjax.models.layers.decoder_blocks import DecoderBlocks
from mmjax.models.towers.vit import ViT
from mmjax.objectives.caption import Caption

OBJECTIVE = "caption"
DEFAULTS = {"text_config": None, "vision_config": None, "projection_dim": 2_048, "image_token_index": None} | {
    # which the configs within say again, and the id that no loss is of
    "vocab_size": None, "hidden_size": None, "ignore_index": -100, "num_image_tokens": None,
}  # fmt: skip
GEMMA = {
    "vocab_size": 256_000,
    "hidden_size": 3_072,
    "intermediate_size": 24_576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": None,  # of older files, before the other
    "max_position_embeddings": 8_192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
    "rope_parameters": None,
    "attention_dropout": 0.0,
    "num_image_tokens": None,
    "use_bidirectional_attention": None,  # PaliGemma's prefix is, whatever it says
}
SEEN = {"projection_dim": None, "projector_hidden_act": None, "num_image_tokens": None, "vocab_size": None}  # unread
WORDS, IMAGE, PROJECTOR = "language_model.model", "vision_tower", "multi_modal_projector.linear"
RENAMED = (  # what a name begins with in a model's own, or an older file, and in the table
    ("model.language_model.", f"{WORDS}."),
    ("model.vision_tower.", f"{IMAGE}."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)


# --- config.json ---


def model_parts(config: Values) -> Parts:
    """The picture's tower, and the objective that holds the decoder."""
    config_keys.settings(config, "config.json", DEFAULTS, {"tie_word_embeddings": True})
    seen, text = (config_keys.within(config, f"{part}_config", "config.json") for part in ("vision", "text"))
    if text.get("model_type", "gemma") != "gemma":
        raise UserError(f"config.json: text_config.model_type={text['model_type']!r} can't be read; 'gemma' can")
    given = config_keys.settings(text, "text_config", GEMMA, {"attention_bias": False})
    image = config_keys.settings(
        seen, "vision_config", siglip.IMAGE | SEEN, siglip.FIXED_IMAGE | {"vision_use_head": False}
    )
    patch, size = (config_keys.whole(image[key], "vision_config", key) for key in ("patch_size", "image_size"))
    heads, key_heads = given["num_attention_heads"], whole_number(given["num_key_value_heads"], "num_key_value_heads")
    name = given["hidden_activation"] or given["hidden_act"]
    blocks = fdl.Config(
        DecoderBlocks,
        width=given["hidden_size"],
        depth=given["num_hidden_layers"],
        heads=heads,
        head_dim=whole_number(given["head_dim"], "head_dim"),
        mlp_dim=given["intermediate_size"],
        # Gemma's first files say "gelu" and mean the tanh's approximation.
        activation="gelu_tanh" if name == "gelu" else config_keys.activation(name, "text_config"),
        norm_eps=given["rms_norm_eps"],
        norms="rms_offset",
        gated=True,
        bias=False,
        kv_heads=None if key_heads == heads else key_heads,
    )
    decoder = fdl.Config(
        TextDecoder,
        vocab=given["vocab_size"],
        length=given["max_position_embeddings"],
        blocks=blocks,
        positions="rotary",
        wavelength=wavelength_of(given),
        prefix={"image": fdl.Config(LinearProjector, zeros=True)},
        scaled=True,
    )
    tower = fdl.Config(
        ViT,
        blocks=config_keys.read_blocks(image, "vision_config"),
        patch=patch,
        size=size,
        pooling="mean",
        drop_rest=size % patch > 0,
    )
    return Parts({"image": tower}, {OBJECTIVE: fdl.Config(Caption, decoder, reads=("image",), mean="texts")})


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`. The picture's placeholder is the id behind the last of the words."""
    decoder, image = held(built).decoder, built.towers["image"]
    blocks = decoder.blocks
    return {
        "projection_dim": blocks.width,
        "hidden_size": blocks.width,
        "image_token_index": decoder.vocab,
        "tie_word_embeddings": True,
        "vision_config": siglip.image_of(image) | {"vision_use_head": False, "projection_dim": blocks.width},
        "text_config": {
            "model_type": "gemma",
            "vocab_size": decoder.vocab,
            "hidden_size": blocks.width,
            "intermediate_size": blocks.hidden,
            "num_hidden_layers": blocks.depth,
            "num_attention_heads": blocks.heads,
            "num_key_value_heads": blocks.key_heads,
            "head_dim": blocks.head_size,
            "hidden_act": config_keys.activation_of(blocks.activation),
            "max_position_embeddings": decoder.length,
            "rms_norm_eps": blocks.norm_eps,
            "rope_parameters": {"rope_theta": decoder.wavelength, "rope_type": "default"},
            "use_bidirectional_attention": True,
            **dict.fromkeys(("bos_token_id", "eos_token_id")),  # what it starts and ends texts by, its tokenizer says
        },
    }


# --- parameters ---


def rules(built: Parts) -> list[Rule]:
    """The tower, the map of its tokens, and the decoder."""
    decoder, path = held(built)
    return [
        *siglip.token_rules(built.towers["image"], "params/towers_image", f"{IMAGE}."),
        *linear(f"{path}/prefix_image/dense", PROJECTOR),
        Rule(f"{path}/token/embedding", (f"{WORDS}.embed_tokens.weight",)),
        *layer_rules(held(built).layers, f"{WORDS}.layers.{{layer}}", decoder.blocks),
        Rule(f"{path}/layers/norm/scale", (f"{WORDS}.norm.weight",)),
    ]


def _renamed(tensors: Arrays) -> Arrays:
    made = {}
    for name, array in tensors.items():
        for theirs, ours in RENAMED:
            name = name.replace(theirs, ours, 1) if name.startswith(theirs) else name
        made[name.replace(f"{IMAGE}.vision_model.", f"{IMAGE}.", 1)] = array
    return made


def _unread(name: str) -> bool:
    """Buffers of older files; and the last matrix, which is the table."""
    return config_keys.ids_alone(name) or name.endswith("rotary_emb.inv_freq") or name.endswith("lm_head.weight")


FAMILIES = (
    Family(
        "paligemma",
        "PaliGemmaForConditionalGeneration",
        model_parts,
        describe,
        rules,
        renamed=_renamed,
        ignored=_unread,
        text_config="text_config",
        writes=True,
        prefixed=True,
    ),
)
