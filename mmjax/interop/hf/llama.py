"""Hugging Face's LlamaForCausalLM (Touvron et al. 2023, arXiv:2302.13971 and 2307.09288), and what has its layout.

There channels i and i + K/2 of a head are turned together, here neighbours: the rows of each head's queries and keys
change places on the way. Positions that are scaled for longer texts have no place here (`rope_type` other than
"default").
"""

from collections.abc import Sequence
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.language_model import (
    HEAD,
    held,
    language_model,
    table_named,
    tied,
    turned,
    turned_back,
    whole_number,
)
from mmjax.interop.parameter_rules import Rule, linear
from mmjax.interop.parts import Parts
from mmjax.models.layers.decoder_blocks import DecoderBlocks

DEFAULTS = {
    "vocab_size": 32_000,
    "hidden_size": 4_096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2_048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,  # of older files, with rope_scaling; newer ones have both in rope_parameters
    "rope_scaling": None,
    "rope_parameters": None,
    "pretraining_tp": 1,  # a way to compute the same
    "attention_dropout": 0.0,
}
FIXED = {"attention_bias": False, "mlp_bias": False}
TABLE = "model.embed_tokens.weight"


def decoder_parts(config: Values) -> Parts:
    """The language model of a config.json."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    width, heads = given["hidden_size"], given["num_attention_heads"]
    if given["head_dim"] not in (None, width // max(heads, 1)):
        raise UserError(
            f"config.json: head_dim={given['head_dim']!r} can't be expressed here, where it is hidden_size / "
            f"num_attention_heads, {width} / {heads}"
        )
    key_heads = given["num_key_value_heads"]
    key_heads = heads if key_heads is None else whole_number(key_heads, "num_key_value_heads")
    blocks = fdl.Config(
        DecoderBlocks,
        width=width,
        depth=given["num_hidden_layers"],
        heads=heads,
        mlp_dim=given["intermediate_size"],
        activation=config_keys.activation(given["hidden_act"], "config.json"),
        norm_eps=given["rms_norm_eps"],
        norms="rms",
        gated=True,
        bias=False,
        kv_heads=None if key_heads == heads else key_heads,
    )
    return language_model(
        vocab=given["vocab_size"],
        length=given["max_position_embeddings"],
        positions="rotary",
        wavelength=wavelength_of(given),
        tied=tied(config, False),
        blocks=blocks,
    )


def wavelength_of(given: Values) -> float:
    """The slowest pair's, of `rope_parameters` or of an older file's two keys."""
    said = {"rope_theta": given["rope_theta"]}
    for key in ("rope_scaling", "rope_parameters"):
        if given[key] is not None and not isinstance(given[key], dict):
            raise UserError(f"config.json: {key}={given[key]!r} is no dict")
        said |= given[key] or {}
    kind = said.get("rope_type", said.get("type", "default"))
    other = sorted(said.keys() - {"rope_theta", "rope_type", "type"})
    if kind != "default" or other:
        raise UserError(
            f"config.json: positions of rope_type={kind!r} ({', '.join(other) or 'no more keys'}) can't be expressed "
            "here, where it is 'default'"
        )
    theta = said["rope_theta"]
    if isinstance(theta, bool) or not isinstance(theta, int | float) or theta <= 0:
        raise UserError(f"config.json: rope_theta={theta!r} must be a number above 0")
    return float(theta)


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `decoder_parts`."""
    decoder = held(built).decoder
    blocks = decoder.blocks
    return {
        "vocab_size": decoder.vocab,
        "hidden_size": blocks.width,
        "intermediate_size": blocks.hidden,
        "num_hidden_layers": blocks.depth,
        "num_attention_heads": blocks.heads,
        "num_key_value_heads": blocks.key_heads,
        "hidden_act": config_keys.activation_of(blocks.activation),
        "max_position_embeddings": decoder.length,
        "rms_norm_eps": blocks.norm_eps,
        "rope_parameters": {"rope_theta": decoder.wavelength, "rope_type": "default"},
        "tie_word_embeddings": decoder.tied,
        **dict.fromkeys(("bos_token_id", "eos_token_id")),  # what it starts and ends texts by, its tokenizer says
    }


def rules(built: Parts) -> list[Rule]:
    """Tables, layers and the last norm."""
    decoder, path = held(built)
    last = [] if decoder.tied else [Rule(f"{path}/head", (HEAD,))]
    return [
        Rule(f"{path}/token/embedding", (TABLE,)),
        *layer_rules(held(built).layers, "model.layers.{layer}", decoder.blocks),
        Rule(f"{path}/layers/norm/scale", ("model.norm.weight",)),
        *last,
    ]


def layer_rules(ours: str, theirs: str, blocks: DecoderBlocks) -> list[Rule]:
    """All layers. theirs: the name of one, with `{layer}` in it."""
    depth = blocks.depth
    return [
        *_attention(f"{ours}/attention", f"{theirs}.self_attn", blocks),
        Rule(
            f"{ours}/attention/out/kernel",
            (f"{theirs}.self_attn.o_proj.weight",),
            lambda w: w.T.reshape(blocks.heads, -1, w.shape[0]),
            lambda kernel: (kernel.reshape(-1, kernel.shape[-1]).T,),
            depth,
        ),
        *linear(f"{ours}/mlp/in", f"{theirs}.mlp.gate_proj", depth, bias=False),  # which the activation is of
        *linear(f"{ours}/mlp/gate", f"{theirs}.mlp.up_proj", depth, bias=False),
        *linear(f"{ours}/mlp/out", f"{theirs}.mlp.down_proj", depth, bias=False),
        Rule(f"{ours}/norm_attention/scale", (f"{theirs}.input_layernorm.weight",), layers=depth),
        Rule(f"{ours}/norm_mlp/scale", (f"{theirs}.post_attention_layernorm.weight",), layers=depth),
    ]


def _attention(ours: str, theirs: str, blocks: DecoderBlocks) -> list[Rule]:
    """Queries, keys and values: of one map, or where keys have fewer heads of two."""
    query, key, value = (f"{theirs}.{name}_proj.weight" for name in "qkv")
    if blocks.kv_heads is None:
        return [_heads(f"{ours}/qkv", (query, key, value), (True, True, False), blocks.heads, blocks.depth)]
    return [
        _heads(f"{ours}/query", (query,), (True,), blocks.heads, blocks.depth),
        _heads(f"{ours}/key_value", (key, value), (True, False), blocks.key_heads, blocks.depth),
    ]


def _heads(ours: str, theirs: tuple[str, ...], turns: tuple[bool, ...], heads: int, layers: int) -> Rule:
    """A kernel `[D, heads, parts, head_dim]` from a Linear for each part. turns: which parts turn by position."""

    def kernel(*weights: np.ndarray) -> np.ndarray:
        placed = [turned(w, heads) if turns[i] else w for i, w in enumerate(weights)]
        return np.stack([w.T.reshape(w.shape[1], heads, -1) for w in placed], axis=2)

    def weights(kernel: np.ndarray) -> Sequence[np.ndarray]:
        rows = [kernel[:, :, i].reshape(len(kernel), -1).T for i in range(len(turns))]
        return [turned_back(w, heads) if turns[i] else w for i, w in enumerate(rows)]

    return Rule(f"{ours}/kernel", theirs, kernel, weights, layers)


FAMILIES = (
    Family(
        "llama",
        "LlamaForCausalLM",
        decoder_parts,
        describe,
        rules,
        renamed=lambda tensors: table_named(dict(tensors), TABLE),
        ignored=lambda name: name == HEAD or name.endswith("rotary_emb.inv_freq"),
        text_config="",
        writes=True,
    ),
)
