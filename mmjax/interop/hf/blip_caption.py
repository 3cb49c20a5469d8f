"""Hugging Face's BlipForConditionalGeneration (Li et al. 2022, arXiv:2201.12086): BLIP's captioner.

BERT's layers, causal, each with an attention to the picture's tokens between self-attention and MLP, and BERT's head
before the table of words. Texts begin with [DEC] in the place of [CLS] (`text_config.bos_token_id`), which the released
tokenizers don't have, and end with [SEP] (`sep_token_id`): what is read has a tokenizer that puts these around a text.
"""

from typing import Any

import fiddle as fdl

from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf import bert, blip
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.language_model import held
from mmjax.interop.parameter_rules import Rule, block, linear, norm
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.decoders.text import TextDecoder
from mmjax.models.layers.decoder_blocks import DecoderBlocks
from mmjax.objectives.caption import Caption

OBJECTIVE = "caption"
TEXT, HEAD = "text_decoder.bert", "text_decoder.cls.predictions"


# --- config.json ---


def model_parts(config: Values) -> Parts:
    """The picture's tower, and the objective that holds the decoder."""
    config_keys.settings(config, "config.json", blip.DEFAULTS, {"tie_word_embeddings": True})
    seen, read = blip.inner_settings(config)
    return Parts({"image": blip.picture_tower(seen, pooling="cls")}, {OBJECTIVE: objective(read, "image", ("image",))})


def objective(read: Values, context: str, reads: tuple[str, ...], **more: Any) -> fdl.Config:
    """The objective that holds the decoder, whose layers attend to the tokens of `context`.

    read: the values of `text_config`. reads, more: fields of the objective.
    """
    dropout, smoothing = read["hidden_dropout_prob"], read["label_smoothing"]
    decoder = fdl.Config(
        TextDecoder,
        vocab=read["vocab_size"],
        length=read["max_position_embeddings"],
        blocks=config_keys.read_blocks(read, "text_config", DecoderBlocks, norm="post", dropout=dropout),
        cross="within",
        context={context: None},
        head_bias=True,
        head_layer=True,
        norm_embedded=True,
    )
    return fdl.Config(Caption, decoder, reads=reads, **({"label_smoothing": smoothing} if smoothing else {}), **more)


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`."""
    decoder, image = held(built).decoder, built.towers["image"]
    (objective,) = built.objectives.values()
    text = blip.text_of(decoder.blocks, decoder.vocab, decoder.length, image)
    return {
        "vision_config": blip.image_of(image),
        "text_config": text | {"label_smoothing": objective.label_smoothing},
    }


# --- parameters ---


def rules(built: Parts) -> list[Rule]:
    """The tower and the decoder."""
    return [*blip.image_rules(built.towers["image"]), *writer_rules(*held(built))]


def writer_rules(decoder: Any, path: str) -> list[Rule]:
    """The decoder, whose last matrix is the table; path: of its parameters."""
    layer, ours = f"{TEXT}.encoder.layer.{{layer}}", f"{path}/layers/upper/layer_0"
    return [
        Rule(f"{path}/token/embedding", (f"{TEXT}.embeddings.word_embeddings.weight",)),
        Rule(f"{path}/position", (f"{TEXT}.embeddings.position_embeddings.weight",)),
        *norm(f"{path}/norm_first", f"{TEXT}.embeddings.LayerNorm"),
        *block(ours, layer, bert.BLOCK, decoder.blocks),
        *blip.cross_rules(ours, f"{layer}.crossattention", bert.BLOCK, decoder.blocks),
        *linear(f"{path}/head_dense", f"{HEAD}.transform.dense"),
        *norm(f"{path}/head_norm", f"{HEAD}.transform.LayerNorm"),
        Rule(f"{path}/bias", (f"{HEAD}.bias",)),
    ]


def renamed(tensors: Arrays) -> Arrays:
    """The head's bias has two names, of which a file may have either."""
    if f"{HEAD}.bias" in tensors or f"{HEAD}.decoder.bias" not in tensors:
        return tensors
    return {**tensors, f"{HEAD}.bias": tensors[f"{HEAD}.decoder.bias"]}


def unread(name: str) -> bool:
    """Buffers of older files, and what is tied."""
    return config_keys.ids_alone(name) or name in (f"{HEAD}.decoder.bias", f"{HEAD}.decoder.weight")


FAMILIES = (
    Family(
        "blip",
        "BlipForConditionalGeneration",
        model_parts,
        describe,
        rules,
        renamed=renamed,
        ignored=unread,
        text_config="text_config",
        writes=True,
        frame=("bos_token_id", "sep_token_id"),
    ),
)
