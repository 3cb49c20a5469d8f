"""The `model_cfg` of open_clip's open_clip_config.json, as our towers and objective, and back.

No key passes unseen: what has no twin here is an error that names the key.
"""

import re
from typing import Any

import fiddle as fdl

from mmjax.errors import UserError
from mmjax.interop import config_keys, not_here
from mmjax.interop.config_keys import Values
from mmjax.interop.open_clip import coca
from mmjax.interop.parts import Parts
from mmjax.models.layers.activations import ActivationName
from mmjax.models.layers.blocks import Blocks
from mmjax.models.towers.pooled import PooledViT
from mmjax.models.towers.resnet import STRIDE, ResNet
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive

OBJECTIVE = "contrastive"
HEAD_WIDTH, RATIO, EPS = 64, 4.0, 1e-5  # open_clip's defaults

# What is of training alone, or is read elsewhere (tokenizers), or has no effect on what is computed.
UNREAD = (
    *("init_logit_scale", "nonscalar_logit_scale", "output_dict", "cast_dtype", "output_tokens", "patch_dropout"),
    *("attn_pooler_queries", "attn_pooler_heads", "timm_model_pretrained", "timm_drop", "timm_drop_path", "pad_id"),
    *("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs", "hf_model_pretrained", "hf_proj_type"),
    *("hf_pooler_type", "eos_id"),
)
POOLED = ("attentional_pool", *coca.POOLER)  # of CoCa
POOLINGS = {"tok": "cls", "avg": "patches"}  # of open_clip's own vision transformer: theirs, ours
BLOCKS = {"ls_init_value": None, "act_kwargs": None, "norm_kwargs": None, "mlp_ratio": RATIO}
IMAGE = BLOCKS | {"layers": 12, "width": 768, "head_width": HEAD_WIDTH, "patch_size": 16, "image_size": 224}
IMAGE |= {"no_ln_pre": False, "pool_type": "tok", "final_ln_after_pool": False}
TEXT = BLOCKS | {"layers": 12, "width": 512, "heads": 8, "context_length": 77, "vocab_size": 49_408}
TEXT |= {"no_causal_mask": False, "pool_type": "argmax", "proj_bias": False, "proj_type": "linear"}
TEXT |= {"final_ln_after_pool": False}  # which open_clip's text tower doesn't read

# timm's vision transformers of SigLIP by name: width, depth, heads, width of the MLP, activation.
TIMM: dict[str, tuple[int, int, int, int, ActivationName]] = {
    "base": (768, 12, 12, 3_072, "gelu"),
    "large": (1_024, 24, 16, 4_096, "gelu"),
    "so400m": (1_152, 27, 16, 4_304, "gelu"),
    "giantopt": (1_536, 40, 16, 6_144, "gelu_tanh"),
}
TIMM_NAME = re.compile(r"vit_([a-z0-9]+)_patch(\d+)_siglip_(\d+)")
TIMM_FIXED = {"timm_pool": "map", "timm_proj": "none"}


def model_parts(config: Values, mean: Any = (0.5,) * 3, std: Any = (0.5,) * 3) -> Parts:
    """Towers and objective of a `model_cfg`; mean, std: of its preprocessing.

    Raises:
        UserError: names the key and its value.
    """
    known = {"embed_dim": None, "vision_cfg": None, "text_cfg": None, "quick_gelu": False, "custom_text": False}
    known |= {"multimodal_cfg": None}
    given = _settings(config, "model_cfg", known | {"init_logit_bias": None}, {})
    for key in ("embed_dim", "vision_cfg", "text_cfg"):
        if not given[key]:
            raise UserError(f"model_cfg lacks {key}, without which there is no model")
    vision, quick, decoder = given["vision_cfg"], bool(given["quick_gelu"]), given["multimodal_cfg"]
    if decoder and (vision.get("timm_model_name") or not isinstance(vision.get("layers", 12), int)):
        raise UserError(
            "model_cfg: multimodal_cfg={...} beside an image tower that isn't open_clip's own ViT isn't here"
        )
    if vision.get("timm_model_name"):
        image = _timm(vision, given["embed_dim"])
    elif isinstance(vision.get("layers"), list | tuple):
        image = _resnet(vision, given["embed_dim"])
    else:
        pooled = POOLED if decoder else ()
        image = _vit({key: value for key, value in vision.items() if key not in pooled}, given["embed_dim"], quick)
        image = coca.pictures(image, vision) if decoder else image
    image.mean, image.std = tuple(mean), tuple(std)
    text = _text(given["text_cfg"], given["embed_dim"], quick, bool(decoder))
    loss = "softmax" if given["init_logit_bias"] is None else "sigmoid"
    objectives = {OBJECTIVE: fdl.Config(Contrastive, ("image", "text"), loss=loss)}
    objectives |= {coca.OBJECTIVE: coca.caption(decoder, text)} if decoder else {}
    return Parts({"image": image, "text": text}, objectives)


def _settings(values: Values, where: str, defaults: Values, fixed: Values) -> dict[str, Any]:
    values = {key: value for key, value in values.items() if key not in UNREAD}
    return config_keys.settings(values, where, defaults, fixed)


def _vit(config: Values, embed_dim: int, quick_gelu: bool) -> fdl.Config:
    fixed = {"pos_embed_type": "learnable", "attentional_pool": False, "block_type": "default"}
    if config.get("block_type", "default") is None:
        fixed["block_type"] = None
    given = _settings(config, "vision_cfg", IMAGE, fixed)
    size, head = given["image_size"], given["head_width"]
    if given["pool_type"] not in POOLINGS:
        raise UserError(f"vision_cfg: pool_type={given['pool_type']!r} can't be expressed here; tok and avg can")
    pooling = POOLINGS[given["pool_type"]]
    return fdl.Config(
        ViT,
        blocks=_blocks(given, "vision_cfg", quick_gelu, heads=given["width"] // head),
        **_sides(tuple(size) if isinstance(size, list | tuple) else size, given["patch_size"]),
        embed_dim=embed_dim,
        cls=True,
        pooling=pooling,
        norm_pooled=bool(given["final_ln_after_pool"]) and pooling == "patches",  # of one token it is the same
        pre_norm=not given["no_ln_pre"],
        stem_bias=False,
    )


def _resnet(config: Values, embed_dim: int) -> fdl.Config:
    defaults = {"layers": None, "width": 768, "head_width": HEAD_WIDTH, "image_size": 224}
    given = _settings(config, "vision_cfg", defaults | {"patch_size": None, "mlp_ratio": None}, {})
    return fdl.Config(
        ResNet,
        layers=tuple(given["layers"]),
        width=given["width"],
        heads=given["width"] * STRIDE // given["head_width"],
        size=config_keys.whole(given["image_size"], "vision_cfg", "image_size"),
        embed_dim=embed_dim,
    )


def _timm(config: Values, embed_dim: int) -> fdl.Config:
    name = config["timm_model_name"]
    found = TIMM_NAME.fullmatch(name)
    if found is None or found[1] not in TIMM:
        raise UserError(
            f"vision_cfg: timm_model_name={name!r}: the image tower, {not_here.image_tower(name)}, isn't here; of "
            f"timm's vit_<{'|'.join(TIMM)}>_patch<n>_siglip_<size> are"
        )
    given = _settings(config, "vision_cfg", {"timm_model_name": None, "image_size": 224}, TIMM_FIXED)
    for key, value in TIMM_FIXED.items():  # there is no default that would do
        if config.get(key) != value:
            raise UserError(f"vision_cfg: {key}={config.get(key)!r} can't be expressed here, where it is {value!r}")
    width, depth, heads, mlp_dim, activation = TIMM[found[1]]
    patch, size = int(found[2]), int(found[3])
    if config_keys.whole(given["image_size"], "vision_cfg", "image_size") != size:
        raise UserError(f"vision_cfg: image_size={given['image_size']} isn't the {size} of timm_model_name={name!r}")
    if width != embed_dim:
        raise UserError(f"model_cfg: embed_dim={embed_dim} isn't the width {width} of timm_model_name={name!r}")
    sizes = {"width": width, "depth": depth, "heads": heads, "mlp_dim": mlp_dim, "activation": activation}
    return fdl.Config(ViT, blocks=fdl.Config(Blocks, **sizes, norm_eps=1e-6), **_sides(size, patch), pooling="map")


def _sides(size: int | tuple[int, ...], patch: Any) -> dict[str, Any]:
    """Our fields of pictures and patches; what fills no patch is dropped, as by a convolution."""
    patch = config_keys.whole(patch, "vision_cfg", "patch_size")
    rest = any(side % patch for side in ([size] if isinstance(size, int) else size))
    return {"size": size, "patch": patch, **({"drop_rest": True} if rest else {})}


def _text(config: Values, embed_dim: int, quick_gelu: bool, decoded: bool = False) -> fdl.Config:
    """decoded: whether a decoder goes on from its words."""
    if name := config.get("hf_model_name"):
        raise UserError(f"text_cfg: hf_model_name={name!r}: the text tower, {not_here.text_tower(name)}, isn't here")
    fixed = {"embed_cls": decoded, "block_type": "default", "hf_model_name": None}
    if decoded and (not config.get("embed_cls") or config.get("pad_id")):
        raise UserError(
            f"text_cfg: embed_cls={config.get('embed_cls')!r} and pad_id={config.get('pad_id', 0)} can't be expressed "
            "here beside a multimodal_cfg; true and 0 can"
        )
    if config.get("block_type", "default") is None:
        fixed["block_type"] = None
    given = _settings(config, "text_cfg", TEXT, fixed)
    pool, causal = given["pool_type"], not given["no_causal_mask"]
    if pool not in ("argmax", "eos", "last", "first"):
        raise UserError(f"text_cfg: pool_type={pool!r} can't be expressed here; argmax, eos, last and first can")
    ends = decoded or pool in ("argmax", "eos")  # the end token's state: the last of the mask
    if ends and not causal:
        raise UserError(
            f"text_cfg: pool_type={pool!r} with no_causal_mask=True can't be expressed here: the end token would "
            "attend to the padding after it"
        )
    if given["proj_type"] not in ("linear", "none"):
        raise UserError(f"text_cfg: proj_type={given['proj_type']!r} is neither 'linear' nor 'none'")
    if given["proj_type"] == "none" and given["width"] != embed_dim:
        raise UserError(f"text_cfg: proj_type='none', but embed_dim={embed_dim} isn't width={given['width']}")
    return fdl.Config(
        TextTransformer,
        blocks=_blocks(given, "text_cfg", quick_gelu, heads=given["heads"], inits="clip"),
        vocab=given["vocab_size"],
        length=given["context_length"],
        causal=causal,
        attend_padding=not ends,
        pooling="cls" if pool == "first" and not decoded else "last",
        cls_last=decoded,
        cls_shifted=decoded,
        norm_pooled=decoded,
        embed_dim=None if given["proj_type"] == "none" else embed_dim,
        projection_bias=given["proj_type"] == "linear" and bool(given["proj_bias"]),
    )


def _blocks(given: Values, where: str, quick_gelu: bool, **more: Any) -> fdl.Config:
    """Our blocks. more: other fields of them."""
    norm, act = dict(given["norm_kwargs"] or {}), dict(given["act_kwargs"] or {})
    eps, approximate = norm.pop("eps", EPS), act.pop("approximate", "none")
    if norm or act or approximate not in ("none", "tanh"):
        raise UserError(
            f"{where}: norm_kwargs={given['norm_kwargs']}, act_kwargs={given['act_kwargs']}: only eps and "
            "approximate='tanh' can be expressed here"
        )
    if quick_gelu and given["act_kwargs"]:
        raise UserError(f"{where}: act_kwargs={given['act_kwargs']} with quick_gelu=True, which takes none")
    scale = given["ls_init_value"]
    return fdl.Config(
        Blocks,
        width=given["width"],
        depth=given["layers"],
        mlp_dim=int(given["width"] * given["mlp_ratio"]),
        activation="quick_gelu" if quick_gelu else "gelu_tanh" if approximate == "tanh" else "gelu",
        norm_eps=eps,
        layer_scale=None if scale is None else float(scale),
        **more,
    )


# --- and back, of built parts ---


def describe(built: Parts, eos: int | None = None) -> dict[str, Any]:
    """The `model_cfg` of built parts; `model_parts` of it tells what of them it couldn't say.

    eos: the tokenizer's end token, where texts end by one that isn't the highest of the ids.

    Raises:
        UserError: the towers' activations differ, in a way that open_clip has one switch for.
    """
    image, text = built.towers["image"], built.towers["text"]
    (objective,) = (one for one in built.objectives.values() if isinstance(one, Contrastive))
    config: dict[str, Any] = {"embed_dim": image.embedding_size}
    towers = [text, image] if isinstance(image, ViT) and image.pooling != "map" else [text]
    quick = {tower.sizes.activation == "quick_gelu" for tower in towers}
    if len(quick) > 1:
        raise UserError(
            f"open_clip's quick_gelu is of both towers, but towers.image.blocks.activation={image.sizes.activation!r} "
            f"and towers.text.blocks.activation={text.sizes.activation!r}"
        )
    if isinstance(image, ResNet):
        config["vision_cfg"] = _describe_resnet(image)
    elif image.pooling == "map":
        config |= {"custom_text": True, "vision_cfg": _describe_timm(image)}
    else:
        config["vision_cfg"] = {
            **_describe_blocks(image.sizes),
            "head_width": image.sizes.width // image.sizes.heads,
            "patch_size": image.patch,
            "image_size": _plain(image.size),
            "no_ln_pre": not image.pre_norm,
            "pool_type": {ours: theirs for theirs, ours in POOLINGS.items()}.get(image.pooling, "tok"),
            "final_ln_after_pool": image.norm_pooled,
            **(coca.describe_pooler(image) if isinstance(image, PooledViT) else {}),
        }
    config["text_cfg"] = _describe_text(text, eos)
    config["quick_gelu"] = quick == {True}
    if coca.is_coca(built.objectives):
        config |= {"custom_text": True}
        config["multimodal_cfg"] = coca.describe_decoder(coca.caption_of(built.objectives)[1].decoder)
        for part in ("vision_cfg", "text_cfg"):
            config[part]["output_tokens"] = True
    if objective.loss == "sigmoid":
        config["init_logit_bias"] = -10.0
    return config


def unsaid(tower: TextTransformer) -> list[str]:
    """A line for each setting of a text tower that a `text_cfg` can't express."""
    found = []
    if tower.pooling not in ("cls", "last"):
        found.append(f"towers.text.pooling: 'last' or 'cls' there, {tower.pooling!r} here")
    if not tower.causal and not tower.attend_padding:
        found.append("towers.text.attend_padding: True there where causal=False, False here")
    return found


def _describe_resnet(tower: ResNet) -> dict[str, Any]:
    head = tower.width * STRIDE // tower.pool_heads
    sizes = {"layers": list(tower.layers), "width": tower.width, "head_width": head}
    return {**sizes, "image_size": _plain(tower.size), "patch_size": None}


def _describe_timm(tower: ViT) -> dict[str, Any]:
    blocks = tower.sizes
    sizes = (blocks.width, blocks.depth, blocks.heads, blocks.hidden, blocks.activation)
    kinds = [kind for kind, known in TIMM.items() if known[:-1] == sizes[:-1]]  # the activation is compared by who asks
    if not kinds:
        raise UserError(
            "open_clip takes a ViT with pooling='map' from timm, which has these sizes (width, depth, heads, mlp_dim, "
            f"activation): {', '.join(f'{kind} {known}' for kind, known in TIMM.items())}; towers.image has {sizes}"
        )
    name = f"vit_{kinds[0]}_patch{tower.patch}_siglip_{_plain(tower.size)}"
    return {"timm_model_name": name, "timm_model_pretrained": False, **TIMM_FIXED, "image_size": _plain(tower.size)}


def _describe_text(tower: TextTransformer, eos: int | None) -> dict[str, Any]:
    pool = "first" if tower.pooling == "cls" else "last"
    if not tower.attend_padding and pool == "last":
        pool = "argmax" if eos is None or eos == tower.vocab - 1 else "eos"
    return {
        **_describe_blocks(tower.sizes),
        "heads": tower.sizes.heads,
        "context_length": tower.length,
        "vocab_size": tower.vocab,
        "no_causal_mask": not tower.causal,
        "pool_type": pool,
        "proj_type": "none" if tower.embed_dim is None else "linear",
        "proj_bias": tower.projection_bias,
        **({"eos_id": eos} if pool == "eos" else {}),
        **({"embed_cls": True} if tower.cls_last else {}),
    }


def _describe_blocks(blocks: Blocks) -> dict[str, Any]:
    config: dict[str, Any] = {"layers": blocks.depth, "width": blocks.width}
    config["mlp_ratio"] = ratio(blocks.width, blocks.hidden)
    if blocks.norm_eps != EPS:
        config["norm_kwargs"] = {"eps": blocks.norm_eps}
    if blocks.layer_scale is not None:
        config["ls_init_value"] = blocks.layer_scale
    if blocks.activation == "gelu_tanh":
        config["act_kwargs"] = {"approximate": "tanh"}
    return config


def ratio(width: int, mlp_dim: int) -> float:
    """The factor by which open_clip gets `mlp_dim` from `width`; it rounds down."""
    exact = mlp_dim / width
    return exact if int(width * exact) == mlp_dim else (mlp_dim + 0.5) / width


def _plain(size: Any) -> Any:
    """A number where the sides are equal; JSON has no tuples."""
    sides = [size] * 2 if isinstance(size, int) else list(size)
    return sides[0] if sides[0] == sides[1] else sides
