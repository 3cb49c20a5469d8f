"""Hugging Face's Dinov2Model (Oquab et al. 2023, arXiv:2304.07193): a vision transformer with LayerScale.

The embedding is the CLS token after the last norm. What stands in the place of masked patches, in DINOv2's own
pretraining, has no place here: it is kept in `Bundle.extras`. Theirs brings its learned positions to the size of the
pictures as it runs; here that is done once, when a folder is read (`positions_at`).
"""

import re
from typing import Any

import fiddle as fdl
import numpy as np
from jaxtyping import Float

from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.vitmae import BLOCK as VIT
from mmjax.interop.parameter_rules import Rule, blocks, leading, norm, patches
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.towers.vit import ViT

DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 224,
    "patch_size": 14,
    "layerscale_value": 1.0,
    "drop_path_rate": 0.0,  # in training alone
    "apply_layernorm": True,  # of a backbone alone, like the three behind it
    "reshape_hidden_states": True,
    **dict.fromkeys(("out_features", "out_indices", "stage_names")),
    "use_mask_token": True,
}
FIXED = {
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
BLOCK = VIT._replace(norm_attention="norm1", norm_mlp="norm2", mlp_in="mlp.fc1", mlp_out="mlp.fc2")
MASK = "embeddings.mask_token"
# What version 5 of transformers calls the parts in memory, and what they are called in files.
NEWER = {
    r"attention\.q_proj\.": "attention.attention.query.",
    r"attention\.k_proj\.": "attention.attention.key.",
    r"attention\.v_proj\.": "attention.attention.value.",
    r"attention\.o_proj\.": "attention.output.dense.",
}
SHARPNESS = -0.75  # of PyTorch's bicubic interpolation (Keys 1981, doi:10.1109/TASSP.1981.1163711, has -0.5)


def image(config: Values) -> fdl.Config:
    """The tower."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    given["intermediate_size"] = int(given["hidden_size"] * given["mlp_ratio"])
    return fdl.Config(
        ViT,
        blocks=config_keys.read_blocks(given, "config.json", layer_scale=float(given["layerscale_value"])),
        patch=config_keys.whole(given["patch_size"], "config.json", "patch_size"),
        size=config_keys.whole(given["image_size"], "config.json", "image_size"),
        drop_rest=given["image_size"] % given["patch_size"] > 0,
        cls=True,
        pooling="cls",
    )


def describe(built: Parts) -> dict[str, Any]:
    """The inverse."""
    tower = built.towers["image"]
    sizes = config_keys.keys_of(tower.sizes)
    ratio = sizes.pop("intermediate_size") // tower.sizes.width
    own = {"image_size": tower.size, "patch_size": tower.patch, "layerscale_value": float(tower.sizes.layer_scale)}
    return sizes | own | {"mlp_ratio": ratio}


def rules(built: Parts) -> list[Rule]:
    """The tower."""
    tower, path = built.towers["image"], "params/towers_image"
    stem, layer = "embeddings.patch_embeddings.projection", "encoder.layer.{layer}"
    scales = {"scale_attention": "layer_scale1", "scale_mlp": "layer_scale2"}
    return [
        leading(f"{path}/cls", "embeddings.cls_token", axes=2),
        leading(f"{path}/position", "embeddings.position_embeddings", axes=1),
        patches(f"{path}/stem", stem, (tower.patch, tower.patch, 3)),
        Rule(f"{path}/stem/bias", (f"{stem}.bias",)),
        *blocks(f"{path}/transformer", layer, BLOCK, tower.sizes),
        *(
            Rule(f"{path}/transformer/blocks/{ours}/scale", (f"{layer}.{theirs}.lambda1",), layers=tower.sizes.depth)
            for ours, theirs in scales.items()
        ),
        *norm(f"{path}/transformer/norm", "layernorm"),
    ]


def renamed(tensors: Arrays) -> Arrays:
    """The names of files, of those that version 5 has in memory; within larger models the tower has a prefix."""

    def name(new: str) -> str:
        for pattern, old in NEWER.items():
            new = re.sub(pattern, old, new)
        return new.removeprefix("dinov2.")

    return {name(new): array for new, array in tensors.items()}


def restored(tensors: Arrays, config: dict[str, Any]) -> Arrays:
    """config.json says whether there is what stands for masked patches: a model that was made here has none."""
    config["use_mask_token"] = MASK in tensors
    return tensors


def positions_at(
    table: Float[np.ndarray, "n d"], old: tuple[int, int], new: tuple[int, int]
) -> Float[np.ndarray, "m d"]:
    """Learned positions of the grid `old`, behind one of the CLS, for the grid `new`, as their model makes them."""
    rows = table[1:].reshape(*old, -1).astype(np.float64)
    down, across = (_bicubic(before, after) for before, after in zip(old, new, strict=True))
    resized = np.einsum("ar,rcd,bc->abd", down, rows, across).reshape(-1, table.shape[1])
    return np.concatenate([table[:1], resized.astype(table.dtype)])


def _bicubic(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """PyTorch's `interpolate(mode="bicubic", align_corners=False)` of one axis, as a matrix."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        t = np.abs(centres - (first + offset))
        near = ((SHARPNESS + 2) * t - (SHARPNESS + 3)) * t**2 + 1
        far = SHARPNESS * (((t - 5) * t + 8) * t - 4)
        np.add.at(matrix, (np.arange(new), np.clip(first + offset, 0, old - 1)), np.where(t <= 1, near, far))
    return matrix


def _family(extras: tuple[str, ...]) -> Family:
    return Family(
        "dinov2",
        "Dinov2Model",
        lambda config: Parts({"image": image(config)}, {}),
        describe,
        rules,
        renamed=renamed,
        restored=restored,
        extras=extras,
        positions_at=positions_at,
    )


FAMILIES = (_family((MASK,)), _family(()))
