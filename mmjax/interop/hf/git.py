"""Hugging Face's GitForCausalLM (Wang et al. 2022, arXiv:2205.14100): a decoder that reads a picture's tokens as the
beginning of its text.

The picture's tower is CLIP's; its tokens, the CLS among them, go through a linear map and a LayerNorm, stand before the
words and see each other alone. They have no places: the first word has the first one. The layers are BERT's, causal.
Videos, whose frames have vectors of their own (`num_image_with_embedding`), have no place here.
"""

from typing import Any

import fiddle as fdl

from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf import bert, clip
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.language_model import held, tied
from mmjax.interop.parameter_rules import Rule, block, linear, norm
from mmjax.interop.parts import Parts
from mmjax.models.decoders.projectors import LinearProjector
from mmjax.models.decoders.text import TextDecoder
from mmjax.models.layers.decoder_blocks import DecoderBlocks
from mmjax.objectives.caption import Caption

OBJECTIVE = "caption"
DEFAULTS = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 3_072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 1_024,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "vision_config": None,
}
FIXED = {"num_image_with_embedding": None, "position_embedding_type": "absolute"}
PATCH = {"patch_size": 16}  # where a vision_config doesn't say; CLIP's is 32
PREFIX, HEAD = "git.", "output"


# --- config.json ---


def model_parts(config: Values) -> Parts:
    """The picture's tower, and the objective that holds the decoder."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    image = clip.image(PATCH | dict(config_keys.within(config, "vision_config", "config.json")), None, "vision_config")
    dropout = given["hidden_dropout_prob"]
    decoder = fdl.Config(
        TextDecoder,
        vocab=given["vocab_size"],
        length=given["max_position_embeddings"],
        blocks=config_keys.read_blocks(given, "config.json", DecoderBlocks, norm="post", dropout=dropout),
        prefix={"image": fdl.Config(LinearProjector, norm_eps=image.blocks.norm_eps)},
        prefix_places=False,
        tied=tied(config, False),
        head_bias=True,
        norm_embedded=True,
    )
    return Parts({"image": image}, {OBJECTIVE: fdl.Config(Caption, decoder, reads=("image",))})


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`."""
    decoder, image = held(built).decoder, clip.image_of(built.towers["image"])
    del image["projection_dim"]
    return config_keys.keys_of(decoder.blocks) | {
        "vocab_size": decoder.vocab,
        "max_position_embeddings": decoder.length,
        "hidden_dropout_prob": decoder.blocks.dropout,
        "attention_probs_dropout_prob": 0.0,
        "tie_word_embeddings": decoder.tied,
        "vision_config": image | {"model_type": "git_vision_model"},
    }


# --- parameters ---


def rules(built: Parts) -> list[Rule]:
    """The tower, the map of its tokens, and the decoder."""
    decoder, path = held(built)
    embeddings, projection = f"{PREFIX}embeddings", f"{PREFIX}visual_projection.visual_projection"
    last = [] if decoder.tied else [Rule(f"{path}/head", (f"{HEAD}.weight",))]
    return [
        *clip.image_rules(built.towers["image"], prefix=f"{PREFIX}image_encoder.vision_model."),
        *linear(f"{path}/prefix_image/dense", f"{projection}.0"),
        *norm(f"{path}/prefix_image/norm", f"{projection}.1"),
        Rule(f"{path}/token/embedding", (f"{embeddings}.word_embeddings.weight",)),
        Rule(f"{path}/position", (f"{embeddings}.position_embeddings.weight",)),
        *norm(f"{path}/norm_first", f"{embeddings}.LayerNorm"),
        *block(held(built).layers, f"{PREFIX}encoder.layer.{{layer}}", bert.BLOCK, decoder.blocks),
        *last,
        Rule(f"{path}/bias", (f"{HEAD}.bias",)),
    ]


def _unread(name: str) -> bool:
    """Buffers of older files; and the last matrix, where it is the table."""
    return config_keys.ids_alone(name) or name == f"{HEAD}.weight"


FAMILIES = (
    Family(
        "git", "GitForCausalLM", model_parts, describe, rules, ignored=_unread, text_config="", writes=True
    ),
)  # fmt: skip
