"""Hugging Face's LlavaForConditionalGeneration, LLaVA-1.5's layout (Liu et al. 2023, arXiv:2310.03744): CLIP's image
tower, a projector, and a Llama decoder with the picture's tokens within its text.

The tokens are those after one of the tower's blocks, the last but one as published, without its last LayerNorm and
without the CLS. Blocks behind it are left out here, and in what is written: there the tokens are the last block's.
"""

import re
from typing import Any

import fiddle as fdl

from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf import clip, llama
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.language_model import OBJECTIVE, held
from mmjax.interop.parameter_rules import Rule, linear
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.decoders.projectors import MlpProjector

DEFAULTS = {
    "vision_config": None,
    "text_config": None,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": None,  # -2; or of several blocks, which isn't here
    "vision_feature_select_strategy": "default",
    "image_token_index": 32_000,
    "image_token_id": None,  # the same, in newer files
    "image_seq_length": 576,  # for their processor; the tower says it too
}
FIXED = {"multimodal_projector_bias": True}
STRATEGIES = {"default": 1, "full": 0}  # tokens that are left out
TOWER, DECODER, PROJECTOR = "vision_tower.", "language_model.", "multi_modal_projector."
NEWER = (  # where newer versions hold the same in memory, or older ones in files
    (re.compile(r"^model\.(vision_tower|multi_modal_projector)\."), r"\1."),
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^vision_tower\.vision_model\."), TOWER),
)
BEHIND = re.compile(r"vision_tower\.encoder\.layers\.\d+\.")


def model_parts(config: Values) -> Parts:
    """The parts of a config.json."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    inner = {key: config_keys.within(config, key, "config.json") for key in ("vision_config", "text_config")}
    kinds = {"vision_config": "clip_vision_model", "text_config": "llama"}
    for key, kind in kinds.items():
        if (said := inner[key].get("model_type", kind)) != kind:
            raise UserError(f"config.json: {key}.model_type={said!r} can't be expressed here, where it is {kind!r}")
    if (strategy := given["vision_feature_select_strategy"]) not in STRATEGIES:
        raise UserError(
            f"config.json: vision_feature_select_strategy={strategy!r} isn't here; {', '.join(STRATEGIES)} are"
        )
    tower = clip.image(inner["vision_config"], None, "vision_config")
    tower.blocks.depth = _depth(given["vision_feature_layer"], tower.blocks.depth)
    tower.norm_pooled = True  # the tokens are taken before the last LayerNorm
    objectives = llama.decoder_parts(inner["text_config"]).objectives
    activation = config_keys.activation(given["projector_hidden_act"], "config.json", "projector_hidden_act")
    skip = STRATEGIES[strategy]
    objectives[OBJECTIVE].decoder.inserted = {"image": fdl.Config(MlpProjector, activation=activation, skip=skip)}
    objectives[OBJECTIVE].reads, objectives[OBJECTIVE].alone = ("image",), True
    return Parts({"image": tower}, objectives)


def _depth(layer: Any, depth: int) -> int:
    """The number of blocks before the tokens that are taken: `hidden_states[layer]`."""
    layer = -2 if layer is None else layer
    if type(layer) is not int or not -depth <= layer <= depth or layer == 0:
        raise UserError(
            f"config.json: vision_feature_layer={layer!r} is none of the {depth} blocks' outputs: one whole number, "
            f"from {-depth} to -1 or from 1 to {depth}"
        )
    return depth + 1 + layer if layer < 0 else layer


def picture_places(config: Values) -> dict[str, Any]:
    """The fields of the step that cuts texts: where a picture's tokens stand, and which id stands there in theirs."""
    tower = clip.IMAGE | dict(config_keys.within(config, "vision_config", "config.json"))
    strategy = config.get("vision_feature_select_strategy") or DEFAULTS["vision_feature_select_strategy"]
    side = tower["image_size"] // tower["patch_size"]
    said = (config.get(key) for key in ("image_token_index", "image_token_id"))
    placeholder = next((id for id in said if type(id) is int), DEFAULTS["image_token_index"])
    return {
        "template": "vicuna_v1",
        "slots": {"image": side**2 + 1 - STRATEGIES[strategy]},
        "placeholder": placeholder,
    }


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`, but for the id that stands in a picture's places, which the text's chain has."""
    projector, tower = held(built).decoder.inserted["image"], built.towers["image"]
    strategy = next(name for name, skip in STRATEGIES.items() if skip == projector.skip)
    return {
        "vision_config": clip.image_of(tower),
        "text_config": llama.describe(built) | {"model_type": "llama"},
        "projector_hidden_act": config_keys.activation_of(projector.activation),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": strategy,
        "image_seq_length": (tower.size // tower.patch) ** 2 + 1 - projector.skip,
        "tie_word_embeddings": held(built).decoder.tied,
    }


def rules(built: Parts) -> list[Rule]:
    """The table: the tower's, the projector's, and the decoder's."""
    path, ends = "params/towers_image", "params/towers_image/transformer/norm/"
    tower = [
        rule._replace(ours=rule.ours.replace(ends, f"{path}/norm_post/"))
        for rule in clip.image_rules(built.towers["image"], path, TOWER)
    ]
    words = [rule._replace(theirs=tuple(DECODER + name for name in rule.theirs)) for rule in llama.rules(built)]
    ours = f"{held(built).path}/inserted_image"
    return [
        *tower,
        *linear(f"{ours}/in", f"{PROJECTOR}linear_1"),
        *linear(f"{ours}/out", f"{PROJECTOR}linear_2"),
        *words,
    ]


def _renamed(tensors: Arrays) -> Arrays:
    found = {}
    for name, array in tensors.items():
        for pattern, ours in NEWER:
            name = pattern.sub(ours, name)
        found[name] = array
    return found


def _restored(tensors: Arrays, config: dict[str, Any]) -> Arrays:
    """Under the names of the published files, which all versions read."""
    del config
    return {
        f"{TOWER}vision_model.{name.removeprefix(TOWER)}" if name.startswith(TOWER) else name: array
        for name, array in tensors.items()
    }


FAMILIES = (
    Family(
        "llava",
        "LlavaForConditionalGeneration",
        model_parts,
        describe,
        rules,
        renamed=_renamed,
        restored=_restored,
        ignored=lambda name: (
            config_keys.ids_alone(name) or name.endswith("rotary_emb.inv_freq") or bool(BEHIND.match(name))
        ),
        text_config="text_config",
        writes=True,
        placed=picture_places,
    ),
)
