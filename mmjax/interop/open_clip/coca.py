"""open_clip's CoCa: its attention pooler, and the decoder of texts above its text tower, as ours, and back.

Its text's CLS sees what `TextTransformer.cls_shifted` says, and no `model_cfg` can say otherwise. Words of the id 0
(OpenAI's tokenizer has one, "!" within a word) are hidden from others there, as padding is; not so here.
"""

import re
from collections.abc import Mapping
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.parameter_rules import Rule, heads_in, heads_in_joined, heads_out, linear, norm
from mmjax.models.decoders.projectors import WithoutFirst
from mmjax.models.decoders.upper import UpperDecoder, goes_on
from mmjax.models.layers.decoder_blocks import DecoderBlocks
from mmjax.models.towers.pooled import PooledViT
from mmjax.objectives.caption import Caption

OBJECTIVE = "caption"
POOLER = {"attn_pooler_queries": 256, "attn_pooler_heads": 8}
MULTIMODAL = {"context_length": 77, "vocab_size": 49_408, "width": 512, "heads": 8, "layers": 12}
# What its decoder doesn't read: its MLPs are always four times as wide.
UNREAD = ("mlp_ratio", "dim_head", "n_queries", "attn_pooler_heads", "embed_cls", "pad_id", "output_tokens")
EPS = 1e-5
DECODER = "text_decoder."
PARTS = ("q_proj", "k_proj", "v_proj")
# Attentions whose queries aren't the tokens: torch joins query, key and value all the same, where it can.
APART = re.compile(r"(visual\.attn_pool|text_decoder\.cross_attn\.\d+)\.attn\.")


def pictures(described: fdl.Config, config: Values) -> fdl.Config:
    """The image tower of a CoCa: that of CLIP, or one whose tokens are pooled. described: CLIP's, of the other keys."""
    if not config.get("attentional_pool"):
        if config.get("final_ln_after_pool"):
            raise UserError("vision_cfg: final_ln_after_pool=True can't be expressed here, beside a multimodal_cfg")
        return described
    if config["attentional_pool"] is not True or config.get("pool_type", "tok") != "tok":
        raise UserError(
            f"vision_cfg: attentional_pool={config['attentional_pool']!r} with pool_type="
            f"{config.get('pool_type', 'tok')!r} can't be expressed here; true with 'tok' can"
        )
    queries, heads = (config.get(key, default) for key, default in POOLER.items())
    given = {str(name): value for name, value in fdl.ordered_arguments(described).items()}
    del given["pooling"], given["norm_pooled"]
    return fdl.Config(
        PooledViT,
        **given,
        queries=queries,
        pooler_heads=heads,
        token_width=described.embed_dim,
        cascade=False,
    )


def caption(config: Values, text: fdl.Config) -> fdl.Config:
    """The objective that holds the decoder of a `multimodal_cfg`, above a text tower."""
    values = {key: value for key, value in config.items() if key not in UNREAD}
    given = config_keys.settings(values, "multimodal_cfg", MULTIMODAL, {"ls_init_value": None})
    below = text.blocks
    same = {"width": below.width, "heads": below.heads, "vocab_size": text.vocab, "context_length": text.length}
    sizes = {"mlp_ratio": below.mlp_dim / below.width, "norm_kwargs": below.norm_eps, "ls": below.layer_scale}
    if given | same != given or sizes != {"mlp_ratio": 4, "norm_kwargs": EPS, "ls": None}:
        raise UserError(
            f"multimodal_cfg: {given} above a text_cfg of {same | sizes} can't be expressed here, where both are alike"
        )
    blocks = fdl.Config(
        DecoderBlocks,
        width=below.width,
        depth=given["layers"],
        heads=below.heads,
        mlp_dim=4 * below.width,
        activation=below.activation,
        norm_eps=EPS,
        inits="clip",
    )
    decoder = fdl.Config(
        UpperDecoder,
        vocab=text.vocab,
        length=text.length,
        blocks=blocks,
        cross="after",
        context={"image": fdl.Config(WithoutFirst)},
    )
    return fdl.Config(Caption, decoder, reads=("image",))


def is_coca(objectives: Mapping[str, Any]) -> bool:
    """True if built objectives are a contrastive one and a caption's above the text tower, of pictures."""
    kinds = sorted(type(objective).__name__ for objective in objectives.values())
    return kinds == ["Caption", "Contrastive"] and goes_on(caption_of(objectives)[1].decoder)


def caption_of(objectives: Mapping[str, Any]) -> tuple[str, Caption]:
    """The name of the caption's objective, and that."""
    return next((name, objective) for name, objective in objectives.items() if isinstance(objective, Caption))


# --- and back, of built parts ---


def describe_pooler(tower: PooledViT) -> dict[str, Any]:
    """The keys of a `vision_cfg` that describe the pooler."""
    keys = dict(zip(POOLER, (tower.queries, tower.pooler_heads), strict=True))
    return {"attentional_pool": True, **keys}


def describe_decoder(decoder: UpperDecoder) -> dict[str, Any]:
    """The `multimodal_cfg`."""
    blocks = decoder.blocks
    sizes = (decoder.length, decoder.vocab, blocks.width, blocks.heads, blocks.depth)
    return dict(zip(MULTIMODAL, sizes, strict=True))


# --- parameters ---


def with_linears(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with query, key and value of each attention to other tokens as Linears of their own."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if not (begin := APART.match(name)) or "proj" not in (part := name[begin.end() :]) or part.startswith("out"):
            found[name] = array
        elif part.startswith("in_proj_"):
            pieces = np.split(np.asarray(array), 3)
            found |= {f"{begin[0]}{one}.{part[8:]}": x for one, x in zip(PARTS, pieces, strict=True)}
        else:
            found[f"{begin[0]}{part.replace('_weight', '.weight')}"] = array
    return found


def with_joined(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `with_linears`: torch joins the matrices where tokens are as wide as queries."""
    found, begins = {}, {}
    for name, array in arrays.items():
        begin = APART.match(name)
        if begin and name[begin.end() :].startswith(PARTS):
            begins.setdefault(begin[0], {})[name[begin.end() :]] = array
        else:
            found[name] = array
    for begin, parts in begins.items():
        weights, biases = ([parts[f"{one}.{kind}"] for one in PARTS] for kind in ("weight", "bias"))
        found[f"{begin}in_proj_bias"] = np.concatenate(biases)
        if len({weight.shape for weight in weights}) == 1:
            found[f"{begin}in_proj_weight"] = np.concatenate(weights)
        else:
            found |= {f"{begin}{one}_weight": weight for one, weight in zip(PARTS, weights, strict=True)}
    return found


def _read_by(ours: str, theirs: str, heads: int, layers: int = 0) -> list[Rule]:
    """An attention to other tokens."""
    query, key, value = (f"{theirs}.{part}" for part in PARTS)
    return [
        *heads_in(f"{ours}/query", (query,), heads, layers),
        *heads_in(f"{ours}/key_value", (key, value), heads, layers),
        *heads_out(f"{ours}/out", f"{theirs}.out_proj", heads, layers),
    ]


def pooler_rules(ours: str, tower: PooledViT) -> list[Rule]:
    """The table of the pooler at the path `ours`."""
    pool = "visual.attn_pool"
    return [
        Rule(f"{ours}/queries", (f"{pool}.query",)),
        *norm(f"{ours}/norm_queries", f"{pool}.ln_q"),
        *norm(f"{ours}/norm_tokens", f"{pool}.ln_k"),
        *_read_by(f"{ours}/attention", f"{pool}.attn", tower.pooler_heads),
        *norm(f"{ours}/norm", "visual.ln_post"),
    ]


def decoder_rules(ours: str, decoder: UpperDecoder) -> list[Rule]:
    """The table of the decoder at the path `ours`."""
    heads, layers = decoder.blocks.heads, decoder.blocks.depth
    layer, own, cross = (
        f"{ours}/layers/upper/layer_0",
        f"{DECODER}resblocks.{{layer}}",
        f"{DECODER}cross_attn.{{layer}}",
    )

    def branches(mine: str, theirs: str) -> list[Rule]:
        return [
            *norm(f"{mine}/norm_attention", f"{theirs}.ln_1", layers),
            *norm(f"{mine}/norm_mlp", f"{theirs}.ln_2", layers),
            *linear(f"{mine}/mlp/in", f"{theirs}.mlp.c_fc", layers),
            *linear(f"{mine}/mlp/out", f"{theirs}.mlp.c_proj", layers),
        ]

    return [
        *heads_in_joined(f"{layer}/attention/qkv", f"{own}.attn.in_proj", heads, layers, dot="_"),
        *heads_out(f"{layer}/attention/out", f"{own}.attn.out_proj", heads, layers),
        *branches(layer, own),
        *_read_by(f"{layer}/cross/attention", f"{cross}.attn", heads, layers),
        *norm(f"{layer}/cross/norm_context", f"{cross}.ln_1_kv", layers),
        *branches(f"{layer}/cross", cross),
        *norm(f"{ours}/layers/norm", f"{DECODER}ln_final"),
        Rule(f"{ours}/head", (f"{DECODER}text_projection",), np.transpose, lambda head: (head.T,)),
    ]
