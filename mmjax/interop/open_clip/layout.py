"""Folders in open_clip's layout of the hub, read and written: open_clip_config.json beside the parameters.

What can be read is what our towers compute exactly: its vision transformers and CLIP's ResNets, timm's vision
transformers of SigLIP, its text transformers; anything else is an error that names the key.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.errors import UserError
from mmjax.experiment.diff import Difference
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import parameter_rules, weight_files
from mmjax.interop.bundle import Bundle
from mmjax.interop.open_clip import coca
from mmjax.interop.open_clip import config as open_clip_config
from mmjax.interop.open_clip import near as open_clip_near
from mmjax.interop.open_clip import preprocessing as open_clip_preprocessing
from mmjax.interop.open_clip.config import describe, model_parts
from mmjax.interop.open_clip.names import repository_of
from mmjax.interop.parameter_rules import (
    Rule,
    batch_norm,
    convolution,
    heads_in,
    heads_in_joined,
    heads_out,
    leading,
    linear,
)
from mmjax.interop.parameter_rules import norm as layer_norm
from mmjax.interop.parts import Parts
from mmjax.interop.twins import equivalence
from mmjax.interop.twins.twin import Twin, accepted, difference_lines, refused, slight
from mmjax.interop.wrappers import unwrapped
from mmjax.models.towers.pooled import PooledViT
from mmjax.models.towers.resnet import ResNet
from mmjax.models.towers.text import TextTransformer
from mmjax.models.towers.vit import ViT
from mmjax.objectives.contrastive.objective import Contrastive
from mmjax.runtime.files import json_text

__all__ = ["read", "repository_of", "write"]

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
# What open_clip looks for, in its order.
FILES = (
    *(WEIGHTS, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
# Sizes that OpenAI's files hold as arrays, masks that follow from the config, and counters of batches.
NOTHING = ("input_resolution", "context_length", "vocab_size", "attn_mask", "num_batches_tracked", "position_ids")
IMAGE, TEXT = "towers_image", "towers_text"


def read(folder: str | Path) -> Bundle:
    """The model of a folder: `open_clip_config.json` and `open_clip_model.safetensors` (or `..._pytorch_model.bin`).

    Raises:
        UserError: a file is missing or broken; a key of the config that can't be expressed here.
    """
    folder = Path(folder)
    config = _config(folder)
    model = config["model_cfg"]
    image = open_clip_preprocessing.pictures(config.get("preprocess_cfg") or {}, model)
    described = model_parts(model, image.mean, image.std)
    built = _built(described)
    chain, tokenizers = open_clip_preprocessing.texts(folder, model, built.towers["text"])
    table = rules(built)
    arrays, notes = unwrapped(_arrays(folder), lambda a: parameter_rules.lacking(table, renamed(a)), str(folder))
    variables = parameter_rules.take(table, renamed(arrays), str(folder), _nothing)
    equivalence.unclip(described, variables)
    transforms = {"image": open_clip_preprocessing.graph(image.transforms), "text": chain}
    config = bundles.stand_in(described.towers, described.objectives, transforms)
    bundle = Bundle(config, variables, tokenizers, str(folder), notes=notes)
    bundles.check_bundle(bundle)
    return bundle


def write(bundle: Bundle, folder: str | Path, exact: bool = True) -> Path:
    """Writes a folder that open_clip opens as `local-dir:<folder>`, and gives its path.

    exact: whether pictures must be open_clip's to the pixel, and texts to the id; else what is written is `near`'s.

    A logit scale above our objective's clip is written as what it is clipped to.

    Raises:
        UserError: open_clip has no model that computes the same (says what differs); the folder is taken.
    """
    folder, where = Path(folder), bundle.source or "the model"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: give another folder")
    twin = near(bundle)
    refused(twin, exact, "open_clip")
    bundle = twin.bundle
    ours = Parts(dict(bundle.config.towers), dict(bundle.config.objectives))
    built = _built(ours)
    model, _ = described(ours, built, bundle, where)
    arrays = restored(parameter_rules.give(rules(built), equivalence.clip(built, bundle.variables), where), model)
    image = built.towers["image"]
    preprocess = open_clip_preprocessing.picture_config(bundle, image.mean, image.std)
    with bundles.fresh_folder(folder) as part:
        _save(arrays, part / WEIGHTS)
        model["text_cfg"] |= open_clip_preprocessing.write_tokenizer(bundle, part)
        text = json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}, indent=2)
        (part / CONFIG).write_text(text + "\n", encoding="utf-8")
    return folder


def near(bundle: Bundle) -> Twin:
    """The model as open_clip's, in pictures and texts the same or nearly.

    Raises:
        UserError: open_clip has no model that computes the same (says what differs); it has no way to say what happens
            to pictures or texts before.
    """
    where, ours = bundle.source or "the model", Parts(dict(bundle.config.towers), dict(bundle.config.objectives))
    built = _built(ours)
    if problems := other_kinds(built):
        raise UserError("\n  ".join([f"{where}: open_clip has no such model:", *problems, *_unlike(ours, bundle)]))
    model, slightly = described(ours, built, bundle, where)
    bundle, differs = accepted(bundle, slightly)
    return open_clip_near.inputs(Twin(bundle, _kind(model), tuple(differs)))


def _kind(model: Mapping[str, Any]) -> str:
    if model.get("multimodal_cfg"):
        return "CoCa"
    return "CustomTextCLIP" if model.get("custom_text") else "CLIP"


def other_kinds(built: Parts) -> list[str]:
    """A line for each part besides, or lacking of, a tower of pictures, one of texts, and one contrastive objective."""
    problems, kinds = [], {name: type(tower).__name__ for name, tower in built.towers.items()}
    fits = isinstance(built.towers.get("image"), ViT | ResNet) and isinstance(built.towers.get("text"), TextTransformer)
    if set(kinds) != {"image", "text"} or not fits:
        problems.append(f"open_clip's models see pictures and read texts; this one's towers are {kinds}")
    objectives = [type(objective).__name__ for objective in built.objectives.values()]
    if objectives != ["Contrastive"] and not coca.is_coca(built.objectives):
        problems.append(
            "open_clip's models have one contrastive objective, and CoCa's a Caption whose UpperDecoder reads pictures "
            f"besides; this one has {objectives}"
        )
    return problems


def _unlike(ours: Parts, bundle: Bundle) -> list[str]:
    """A line for each difference in the towers of pictures and texts, where a model has other parts besides."""
    towers = {name: tower for name, tower in ours.towers.items() if name in ("image", "text")}
    pair = Parts(towers, {"pair": fdl.Config(Contrastive, ("image", "text"))})
    if other_kinds(_built(pair)):
        return []
    try:
        _, slightly = described(pair, _built(pair), bundle, "towers")
    except UserError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    return difference_lines(slightly)


def described(ours: Parts, built: Parts, bundle: Bundle, where: str) -> tuple[dict[str, Any], list[Difference]]:
    """The `model_cfg`, and what differs slightly. It is read again: what comes back must be the same model.

    Raises:
        UserError: it isn't; says what differs.
    """
    model = describe(built, open_clip_preprocessing.end_of(bundle))
    problems = open_clip_config.unsaid(built.towers["text"])
    if problems:  # what else there is in the way is told too, of a text tower that has words there
        text = copy.deepcopy(ours.towers["text"])
        text.causal, text.pooling, text.attend_padding = True, "last", False
        ours = Parts({**ours.towers, "text": text}, ours.objectives)
        model = describe(_built(ours))
    different = equivalence.differences(model_parts(model), ours)
    if problems or not all(map(slight, different)):
        told = "\n  ".join(
            [
                f"{where}: open_clip has no model that computes the same; the nearest has",
                *problems,
                *difference_lines(different),
            ]
        )
        raise UserError(told)
    return model, different


# --- parameters ---


def renamed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by the names in `rules`: those without `custom_text`, where the text tower is no part of its own."""
    return coca.with_linears({name.removeprefix("text."): array for name, array in arrays.items()})


def restored(arrays: dict[str, np.ndarray], model: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inverse of `renamed`, for the class that the config asks for."""
    if not model.get("custom_text"):
        return arrays
    apart, arrays = ("visual.", "logit_", coca.DECODER), coca.with_joined(arrays)
    return {name if name.startswith(apart) else f"text.{name}": array for name, array in arrays.items()}


def rules(built: Parts) -> list[Rule]:
    """The table of built parts."""
    image, text = built.towers["image"], built.towers["text"]
    ((name, objective),) = ((n, one) for n, one in built.objectives.items() if isinstance(one, Contrastive))
    words = []
    if coca.is_coca(built.objectives):
        held, caption = coca.caption_of(built.objectives)
        words = coca.decoder_rules(f"params/objectives_{held}/decoder", caption.decoder)
    scalars = {"log_scale": "logit_scale"} | ({"bias": "logit_bias"} if objective.loss == "sigmoid" else {})
    if isinstance(image, ResNet):
        pictures = _resnet(image)
    else:
        table = _timm if image.pooling == "map" else _vit
        pictures = table(image)
    return [
        *(Rule(f"params/objectives_{name}/{ours}", (theirs,), _scalar) for ours, theirs in scalars.items()),
        *pictures,
        *_text(text),
        *words,
    ]


def _scalar(array: np.ndarray) -> np.ndarray:
    return array.reshape(())  # theirs may be an array of one


def _blocks(ours: str, theirs: str, tower: ViT | TextTransformer) -> list[Rule]:
    """Of a transformer that is open_clip's own."""
    heads, layers = tower.sizes.heads, tower.sizes.depth
    scales = {} if tower.sizes.layer_scale is None else {"scale_attention": "ls_1", "scale_mlp": "ls_2"}
    ours, theirs = f"params/{ours}/transformer/blocks", f"{theirs}transformer.resblocks.{{layer}}"
    return [
        *heads_in_joined(f"{ours}/attention/qkv", f"{theirs}.attn.in_proj", heads, layers, dot="_"),
        *heads_out(f"{ours}/attention/out", f"{theirs}.attn.out_proj", heads, layers),
        *layer_norm(f"{ours}/norm_attention", f"{theirs}.ln_1", layers),
        *layer_norm(f"{ours}/norm_mlp", f"{theirs}.ln_2", layers),
        *linear(f"{ours}/mlp/in", f"{theirs}.mlp.c_fc", layers),
        *linear(f"{ours}/mlp/out", f"{theirs}.mlp.c_proj", layers),
        *(Rule(f"{ours}/{name}/scale", (f"{theirs}.{part}.gamma",), layers=layers) for name, part in scales.items()),
    ]


def _vit(tower: ViT) -> list[Rule]:
    at = f"params/{IMAGE}"
    if isinstance(tower, PooledViT):
        last = coca.pooler_rules(f"{at}/pooler", tower)
    else:
        last = layer_norm(f"{at}/norm_post" if tower.norm_pooled else f"{at}/transformer/norm", "visual.ln_post")
    return [
        parameter_rules.patches(f"{at}/stem", "visual.conv1", (tower.patch, tower.patch, 3)),
        Rule(f"{at}/cls", ("visual.class_embedding",)),
        Rule(f"{at}/position", ("visual.positional_embedding",)),
        *(layer_norm(f"{at}/norm_pre", "visual.ln_pre") if tower.pre_norm else []),
        *_blocks(IMAGE, "visual.", tower),
        *last,
        Rule(f"{at}/projection/kernel", ("visual.proj",)),
    ]


def _text(tower: TextTransformer) -> list[Rule]:
    at = f"params/{TEXT}"
    projection = [Rule(f"{at}/projection/kernel", ("text_projection",))]
    if tower.projection_bias:
        projection = linear(f"{at}/projection", "text_projection")
    return [
        Rule(f"{at}/token/embedding", ("token_embedding.weight",)),
        Rule(f"{at}/position", ("positional_embedding",)),
        *([Rule(f"{at}/cls", ("cls_emb",))] if tower.cls_last else []),
        *_blocks(TEXT, "", tower),
        *layer_norm(f"{at}/norm_post" if tower.norm_pooled else f"{at}/transformer/norm", "ln_final"),
        *([] if tower.embed_dim is None else projection),
    ]


def _timm(tower: ViT) -> list[Rule]:
    at, trunk, heads, depth = f"params/{IMAGE}", "visual.trunk", tower.sizes.heads, tower.sizes.depth
    blocks, block = f"{at}/transformer/blocks", f"{trunk}.blocks.{{layer}}"
    pool, head = f"{at}/attention_pool", f"{trunk}.attn_pool"
    return [
        parameter_rules.patches(f"{at}/stem", f"{trunk}.patch_embed.proj", (tower.patch, tower.patch, 3)),
        Rule(f"{at}/stem/bias", (f"{trunk}.patch_embed.proj.bias",)),
        leading(f"{at}/position", f"{trunk}.pos_embed", 1),
        *heads_in_joined(f"{blocks}/attention/qkv", f"{block}.attn.qkv", heads, depth),
        *heads_out(f"{blocks}/attention/out", f"{block}.attn.proj", heads, depth),
        *layer_norm(f"{blocks}/norm_attention", f"{block}.norm1", depth),
        *layer_norm(f"{blocks}/norm_mlp", f"{block}.norm2", depth),
        *linear(f"{blocks}/mlp/in", f"{block}.mlp.fc1", depth),
        *linear(f"{blocks}/mlp/out", f"{block}.mlp.fc2", depth),
        *layer_norm(f"{at}/transformer/norm", f"{trunk}.norm"),
        leading(f"{pool}/probe", f"{head}.latent", 2),
        *heads_in_joined(f"{pool}/attention/query", f"{head}.q", heads, parts=1),
        *heads_in_joined(f"{pool}/attention/key_value", f"{head}.kv", heads, parts=2),
        *heads_out(f"{pool}/attention/out", f"{head}.proj", heads),
        *layer_norm(f"{pool}/norm", f"{head}.norm"),
        *linear(f"{pool}/mlp/in", f"{head}.mlp.fc1"),
        *linear(f"{pool}/mlp/out", f"{head}.mlp.fc2"),
    ]


def _resnet(tower: ResNet) -> list[Rule]:
    trunk, found = f"{IMAGE}/trunk", []
    for i in range(3):
        found.append(convolution(f"params/{trunk}/stem{i}", f"visual.conv{i + 1}"))
        found += batch_norm(f"{trunk}/norm{i}", f"visual.bn{i + 1}")
    names = {"in": ("conv1", "bn1"), "middle": ("conv2", "bn2"), "out": ("conv3", "bn3")}
    for stage, depth in enumerate(tower.layers):
        blocks = f"visual.layer{stage + 1}"
        first, rest = f"{trunk}/stage{stage}_first", f"{trunk}/stage{stage}_rest"
        for name, (weights, statistics) in [*names.items(), ("shortcut", ("downsample.0", "downsample.1"))]:
            found.append(convolution(f"params/{first}/{name}", f"{blocks}.0.{weights}"))
            found += batch_norm(f"{first}/norm_{name}", f"{blocks}.0.{statistics}")
        for name, (weights, statistics) in names.items() if depth > 1 else ():
            found.append(convolution(f"params/{rest}/{name}", f"{blocks}.{{layer}}.{weights}", depth - 1, 1))
            found += batch_norm(f"{rest}/norm_{name}", f"{blocks}.{{layer}}.{statistics}", depth - 1, 1)
    pool, theirs = f"params/{IMAGE}/attention_pool", "visual.attnpool"
    heads = tower.pool_heads
    return [
        *found,
        Rule(f"{pool}/position", (f"{theirs}.positional_embedding",)),
        *heads_in(f"{pool}/query", (f"{theirs}.q_proj",), heads),
        *heads_in(f"{pool}/key_value", (f"{theirs}.k_proj", f"{theirs}.v_proj"), heads),
        *linear(f"{pool}/out", f"{theirs}.c_proj"),
    ]


# --- files ---


def _built(described: Parts) -> Parts:
    return Parts(*({name: build(config) for name, config in group.items()} for group in described))


def _nothing(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in NOTHING


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    for name in FILES:
        if (folder / name).is_file():
            return weight_files.read_file(folder / name)
    raise UserError(f"{folder} holds no parameters: it has none of {', '.join(FILES)}")


def _save(arrays: Mapping[str, np.ndarray], file: Path) -> None:
    from safetensors.numpy import save_file

    save_file(dict(arrays), file, metadata={"format": "pt"})


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise UserError(f"{folder} is no folder of an open_clip model: it has no {CONFIG}")
    config = json_text.read(file)
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg", config), dict):
        raise UserError(f"{file} holds no model_cfg")
    return config if "model_cfg" in config else {"model_cfg": config}
