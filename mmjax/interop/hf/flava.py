"""Hugging Face's FlavaModel (Singh et al. 2021, arXiv:2112.04482): two towers, and a fusion of their tokens.

Embeddings are the projections of each tower's [CLS] after its last norm, as their contrastive head reads them; the
fusion reads tokens before that norm, its embedding is their multimodal pooler's. Their model has no losses, so what is
read has no objectives: the logit scale, and the poolers of the towers alone, are kept in `Bundle.extras`. A model
without them goes out with poolers of zeros and the logit scale that theirs starts at, which no output reads that ours
has too.
"""

from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values, ids_alone
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.vitmae import BLOCK
from mmjax.interop.parameter_rules import Rule, blocks, leading, linear, norm, patches
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.fusion.merged import Merged
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT

FUSION = "multimodal"
SIZES = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3_072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
IMAGE = SIZES | {"image_size": 224, "patch_size": 16, "mask_token": True, "vocab_size": 8_192}  # of heads: codes
TEXT = SIZES | {"vocab_size": 30_522, "type_vocab_size": 2, "max_position_embeddings": 512}
MULTIMODAL = SIZES | {"num_hidden_layers": 6}
NESTED = ("image", "text", "multimodal", "image_codebook")
LOSSES = ("mim", "mlm", "global_contrastive", "itm", "mmm_image", "mmm_text")
DEFAULTS = {
    "projection_dim": 768,
    "hidden_size": 768,  # of heads that come after, like the rest
    "layer_norm_eps": 1e-12,
    "init_codebook": True,
    "ce_ignore_index": None,
    "global_backprop_contrastive": True,
    "skip_unmasked_multimodal_encoder": True,
    "return_loss": True,
    **{f"{loss}_weight": 1.0 for loss in LOSSES},
    **dict.fromkeys(f"{part}_config{ending}" for part in NESTED for ending in ("", "_dict")),
}
SCALE, SCALE_START = "logit_scale", 2.6592
POOLERS = ("image_model", "text_model")
EXTRAS = (SCALE, *(f"{part}.pooler.dense.{array}" for part in POOLERS for array in ("weight", "bias")))


# --- config.json ---


def model_parts(config: Values) -> Parts:
    """Both towers and the fusion."""
    given = config_keys.settings(config, "config.json", DEFAULTS, {})
    image, text, fused = (config_keys.within(config, f"{part}_config", "config.json") for part in NESTED[:3])
    seen = config_keys.settings(image, "image_config", IMAGE, {"num_channels": 3, "qkv_bias": True})
    read = config_keys.settings(text, "text_config", TEXT, {"qkv_bias": True})
    both = config_keys.settings(fused, "multimodal_config", MULTIMODAL, {"qkv_bias": True, "use_cls_token": True})
    pooled: dict[str, Any] = {"pooling": "cls", "norm_pooled": True}
    projected: dict[str, Any] = {"embed_dim": given["projection_dim"], "projection_bias": True}
    towers = {
        "image": fdl.Config(
            ViT,
            blocks=_blocks(seen, "image_config"),
            patch=config_keys.whole(seen["patch_size"], "image_config", "patch_size"),
            size=config_keys.whole(seen["image_size"], "image_config", "image_size"),
            cls=True,
            mask_token=seen["mask_token"],
            **pooled,
            **projected,
        ),
        "text": fdl.Config(
            TextTransformer,
            blocks=_blocks(read, "text_config"),
            vocab=read["vocab_size"],
            length=read["max_position_embeddings"],
            types=read["type_vocab_size"],
            pre_norm=True,
            **pooled,
            **projected,
        ),
    }
    fusion = fdl.Config(
        Merged,
        blocks=_blocks(both, "multimodal_config"),
        project=True,
        kinds=False,
        embed_dim=both["hidden_size"],
        projection_tanh=True,
    )
    return Parts(towers, {}, {FUSION: fusion})


def _blocks(given: Values, where: str) -> fdl.Config:
    return config_keys.read_blocks(given, where, dropout=given["hidden_dropout_prob"])


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`."""
    image, text = built.towers["image"], built.towers["text"]
    (fusion,) = built.fusions.values()
    return {
        "projection_dim": image.embed_dim,
        "image_config": _keys(image.sizes, "image")
        | {"image_size": image.size, "patch_size": image.patch, "mask_token": image.mask_token},
        "text_config": _keys(text.sizes, "text")
        | {"vocab_size": text.vocab, "type_vocab_size": text.types, "max_position_embeddings": text.length},
        "multimodal_config": _keys(fusion.blocks, "multimodal"),
    }


def _keys(sizes: Any, part: str) -> dict[str, Any]:
    dropout = {"hidden_dropout_prob": sizes.dropout, "attention_probs_dropout_prob": 0.0}
    return config_keys.keys_of(sizes) | dropout | {"model_type": f"flava_{part}_model"}


# --- parameters ---


def rules(built: Parts) -> list[Rule]:
    """Both towers with their projections, and the fusion with its own."""
    image, text = built.towers["image"], built.towers["text"]
    ((name, fusion),) = built.fusions.items()
    seen, words, fused = "params/towers_image", "params/towers_text", f"params/fusions_{name}"
    stem, table = "image_model.embeddings.patch_embeddings.projection", "text_model.embeddings"
    hidden = [leading(f"{seen}/mask", "image_model.embeddings.mask_token", axes=2)] if image.mask_token else []
    return [
        leading(f"{seen}/cls", "image_model.embeddings.cls_token", axes=2),
        leading(f"{seen}/position", "image_model.embeddings.position_embeddings", axes=1),
        *hidden,
        patches(f"{seen}/stem", stem, (image.patch, image.patch, 3)),
        Rule(f"{seen}/stem/bias", (f"{stem}.bias",)),
        *blocks(f"{seen}/transformer", "image_model.encoder.layer.{layer}", BLOCK, image.sizes),
        *norm(f"{seen}/norm_post", "image_model.layernorm"),
        *linear(f"{seen}/projection", "image_projection"),
        Rule(f"{words}/token/embedding", (f"{table}.word_embeddings.weight",)),
        Rule(f"{words}/position", (f"{table}.position_embeddings.weight",)),
        Rule(f"{words}/type", (f"{table}.token_type_embeddings.weight",)),
        *norm(f"{words}/norm_pre", f"{table}.LayerNorm"),
        *blocks(f"{words}/transformer", "text_model.encoder.layer.{layer}", BLOCK, text.sizes),
        *norm(f"{words}/norm_post", "text_model.layernorm"),
        *linear(f"{words}/projection", "text_projection"),
        *linear(f"{fused}/project_image", "image_to_mm_projection"),
        *linear(f"{fused}/project_text", "text_to_mm_projection"),
        leading(f"{fused}/cls", "multimodal_model.cls_token", axes=2),
        *blocks(f"{fused}/transformer", "multimodal_model.encoder.layer.{layer}", BLOCK, fusion.blocks),
        *norm(f"{fused}/transformer/norm", "multimodal_model.layernorm"),
        *linear(f"{fused}/projection", "multimodal_model.pooler.dense"),
    ]


def renamed(tensors: Arrays) -> Arrays:
    """Within their class with heads the model has a prefix."""
    return {name.removeprefix("flava."): array for name, array in tensors.items()}


def restored(tensors: Arrays, config: dict[str, Any]) -> Arrays:
    """Adds the arrays that a model made here lacks: no output of theirs that ours has too reads them."""
    made = dict(tensors)
    made.setdefault(SCALE, np.asarray(SCALE_START, np.float32))
    for part in POOLERS:
        width = config[f"{part.removesuffix('_model')}_config"]["hidden_size"]
        made.setdefault(f"{part}.pooler.dense.weight", np.zeros((width, width), np.float32))
        made.setdefault(f"{part}.pooler.dense.bias", np.zeros(width, np.float32))
    return made


def _family(extras: tuple[str, ...]) -> Family:
    return Family(
        "flava",
        "FlavaModel",
        model_parts,
        describe,
        rules,
        renamed=renamed,
        restored=restored,
        ignored=ids_alone,
        extras=extras,
        text_config="text_config",
        squared=True,
    )


FAMILIES = (_family(EXTRAS), _family(()))
