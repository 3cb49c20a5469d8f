"""The table of MERLOT Reserve's parameters: Flax on both sides, so that most arrays are the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.interop.parameter_rules import LAYER, Rule

OBJECTIVE = "reserve"
TOWERS = ("vision_encoder", "audio_encoder")
EMBEDDING = "{}/embedding/kernel"
WORDS = "token_encoder/Embed_0/embedding"
LAYER_NAME = r"\blayer_(\d+)(?=/)"
PARTS = 3  # query, key and value, one after the other along the axis of heads


def rules(depths: Mapping[str, int], heads: int, audio: tuple[int, int] = (2, 65)) -> list[Rule]:
    """The table.

    depths: the number of blocks of each of their encoders. audio: the frames of a patch of sound, and their channels;
    only `give` reads them.
    """
    ours, reserve = "params/towers_", f"params/objectives_{OBJECTIVE}"
    video, sound = (f"{ours}{name}" for name in ("video", "audio"))
    return [
        *_dense(f"{video}/stem", "vision_encoder/embedding"),
        Rule(
            f"{sound}/stem/kernel",
            ("audio_encoder/embedding/kernel",),
            lambda kernel: kernel.reshape(-1, kernel.shape[-1]),
            lambda kernel: (kernel.reshape(*audio, -1),),
        ),
        Rule(f"{sound}/stem/bias", ("audio_encoder/embedding/bias",)),
        *[
            rule
            for mine, theirs in zip((video, sound), TOWERS, strict=True)
            for rule in (
                *_encoder(f"{mine}/encoder", f"{theirs}/transformer", depths[theirs], heads, cls=True),
                *_pool(f"{mine}/neighbours/attention", f"{theirs}/seq_attnpool"),
            )
        ],
        Rule(f"{reserve}/token/embedding", (WORDS,)),
        *_encoder(f"{reserve}/span", "span_encoder/transformer", depths["span_encoder"], heads, cls=True),
        *_encoder(f"{reserve}/joint", "joint_transformer", depths["joint_transformer"], heads, cls=False),
        *_dense(f"{reserve}/head", "head"),
        Rule(f"{reserve}/log_scale", ("contrastive_scales",)),  # the losses are in the same order
    ]


def _encoder(ours: str, theirs: str, depth: int, heads: int, cls: bool) -> list[Rule]:
    block, layer = f"{ours}/transformer/blocks", f"{theirs}/layer_{LAYER}"
    attention, mlp = f"{layer}/attention_layer", f"{layer}/mlp_layer"
    table = [
        *_norm(f"{ours}/norm_pre", f"{theirs}/pre_ln"),
        *_norm(f"{block}/norm_attention", f"{layer}/pre_attn_ln", depth),
        *_joined(f"{block}/attention/qkv", f"{attention}/qkv", heads, depth),
        Rule(f"{block}/attention/out/kernel", (f"{attention}/attn_proj/kernel",), layers=depth),
        *_norm(f"{block}/norm_mlp", f"{layer}/pre_mlp_ln", depth),
        *_dense(f"{block}/mlp/in", f"{mlp}/intermediate", depth),
        Rule(f"{block}/mlp/out/kernel", (f"{mlp}/out/kernel",), layers=depth),
        *_norm(f"{ours}/transformer/norm", f"{theirs}/final_ln"),
    ]
    if cls:
        table += [Rule(f"{ours}/cls", (f"{theirs}/cls",)), *_dense(f"{ours}/projection", f"{theirs}/cls_proj")]
    return table


def _joined(ours: str, theirs: str, heads: int, layers: int) -> list[Rule]:
    """`HeadsIn`, [..., heads, 3, channels], from [..., 3 * heads, channels]."""

    def take(array: np.ndarray) -> np.ndarray:
        return array.reshape(*array.shape[:-2], PARTS, heads, array.shape[-1]).swapaxes(-3, -2)

    def give(array: np.ndarray) -> tuple[np.ndarray]:
        return (array.swapaxes(-3, -2).reshape(*array.shape[:-3], PARTS * heads, array.shape[-1]),)

    return [Rule(f"{ours}/{part}", (f"{theirs}/{part}",), take, give, layers) for part in ("kernel", "bias")]


def _pool(ours: str, theirs: str) -> list[Rule]:
    """Attention of one query over a few tokens: [..., heads, parts, channels] from an array for each part."""

    def take(*arrays: np.ndarray) -> np.ndarray:
        return np.stack(arrays, axis=-2)

    def give(array: np.ndarray) -> list[np.ndarray]:
        return [array[..., part, :] for part in range(array.shape[-2])]

    def part(mine: str, names: tuple[str, ...]) -> list[Rule]:
        return [
            Rule(f"{ours}/{mine}/{of}", tuple(f"{theirs}/{name}/{of}" for name in names), take, give)
            for of in ("kernel", "bias")
        ]

    return [*part("query", ("query",)), *part("key_value", ("key", "value")), *_dense(f"{ours}/out", f"{theirs}/out")]


def _dense(ours: str, theirs: str, layers: int = 0) -> list[Rule]:
    return _two(ours, theirs, "kernel", layers)


def _norm(ours: str, theirs: str, layers: int = 0) -> list[Rule]:
    return _two(ours, theirs, "scale", layers)


def _two(ours: str, theirs: str, first: str, layers: int) -> list[Rule]:
    """A kernel, or a scale, and the bias, as they are."""
    fields: dict[str, Any] = {"layers": layers}
    return [Rule(f"{ours}/{part}", (f"{theirs}/{part}",), **fields) for part in (first, "bias")]
