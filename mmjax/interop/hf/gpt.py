"""Hugging Face's GPT-1 and GPT-2 (Radford et al. 2018, 2019): OpenAIGPTLMHeadModel and GPT2LMHeadModel.

Their linear maps are stored `[in, out]`, and query, key and value are one of them, in this order. GPT-1's blocks are
post-norm, and no norm stands behind the last one; its activation is called "gelu" there and is the tanh's
approximation. Dropout of attention's weights, in training alone, has no place here.
"""

import re
from collections.abc import Mapping
from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.language_model import HEAD, held, language_model, table_named, tied
from mmjax.interop.parameter_rules import Rule, norm
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.layers.activations import ActivationName
from mmjax.models.layers.decoder_blocks import DecoderBlocks

# Of heads that classify, of older files, and of training alone.
UNREAD: dict[str, Any] = dict.fromkeys(
    ("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
     "n_ctx", "n_special", "predict_special_tokens", "embd_pdrop", "attn_pdrop")
)  # fmt: skip
SIZES = {"n_embd": 768, "n_layer": 12, "n_head": 12, "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1}
GPT1 = UNREAD | SIZES | {"vocab_size": 40_478, "n_positions": 512, "afn": "gelu"}
GPT2 = UNREAD | SIZES | {
    "vocab_size": 50_257, "n_positions": 1_024, "n_inner": None, "activation_function": "gelu_new"
}  # fmt: skip
FIXED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
}
AFN: dict[str, ActivationName] = {"gelu": "gelu_tanh", "silu": "silu", "swish": "silu"}  # GPT-1's words
BUFFERS = re.compile(r"\.attn\.(masked_)?bias$|position_ids$")  # of older files
TABLES = {"openai-gpt": ("tokens_embed", "positions_embed"), "gpt2": ("wte", "wpe")}


# --- config.json ---


def _blocks(given: Values, **fields: Any) -> fdl.Config:
    return fdl.Config(
        DecoderBlocks,
        width=given["n_embd"],
        depth=given["n_layer"],
        heads=given["n_head"],
        norm_eps=given["layer_norm_epsilon"],
        dropout=given["resid_pdrop"],
        **fields,
    )


def first(config: Values) -> Parts:
    """GPT-1."""
    given = config_keys.settings(config, "config.json", GPT1, {})
    if given["afn"] not in AFN:
        raise UserError(f"config.json: afn={given['afn']!r} isn't here; {', '.join(AFN)} are")
    blocks = _blocks(given, norm="post", activation=AFN[given["afn"]])
    return language_model(**_tables(given), tied=tied(config, True), blocks=blocks)


def second(config: Values) -> Parts:
    """GPT-2."""
    given = config_keys.settings(config, "config.json", GPT2, FIXED)
    name = config_keys.activation(given["activation_function"], "config.json", "activation_function")
    blocks = _blocks(given, activation=name, mlp_dim=given["n_inner"] or 4 * given["n_embd"])
    return language_model(**_tables(given), tied=tied(config, True), blocks=blocks)


def _tables(given: Values) -> dict[str, Any]:
    return {"vocab": given["vocab_size"], "length": given["n_positions"]}


def _described(built: Parts) -> dict[str, Any]:
    decoder, _ = held(built)
    blocks = decoder.blocks
    return {
        "vocab_size": decoder.vocab,
        "n_positions": decoder.length,
        "n_embd": blocks.width,
        "n_layer": blocks.depth,
        "n_head": blocks.heads,
        "layer_norm_epsilon": blocks.norm_eps,
        "resid_pdrop": blocks.dropout,
        "embd_pdrop": blocks.dropout,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": decoder.tied,
        **dict.fromkeys(("bos_token_id", "eos_token_id")),  # what it starts and ends texts by, its tokenizer says
    }


def describe_first(built: Parts) -> dict[str, Any]:
    """The inverse of `first`."""
    blocks = held(built).decoder.blocks
    if blocks.hidden != 4 * blocks.width:
        raise UserError(f"its MLPs are 4 times as wide as its tokens, and these of {blocks.width} are {blocks.hidden}")
    names = [theirs for theirs, ours in AFN.items() if ours == blocks.activation]
    if not names:
        raise UserError(f"its activations are {', '.join(AFN.values())}, and this one's is {blocks.activation!r}")
    return _described(built) | {"afn": names[0]}


def describe_second(built: Parts) -> dict[str, Any]:
    """The inverse of `second`."""
    blocks = held(built).decoder.blocks
    activation = "gelu_new" if blocks.activation == "gelu_tanh" else config_keys.activation_of(blocks.activation)
    return _described(built) | {"n_inner": blocks.hidden, "activation_function": activation}


# --- parameters ---


def _rules(kind: str, built: Parts) -> list[Rule]:
    decoder, path = held(built)
    token, position = TABLES[kind]
    last = [] if decoder.tied else [Rule(f"{path}/head", (HEAD,))]
    normed = norm(f"{path}/layers/norm", "transformer.ln_f") if decoder.blocks.norm == "pre" else []
    return [
        Rule(f"{path}/token/embedding", (f"transformer.{token}.weight",)),
        Rule(f"{path}/position", (f"transformer.{position}.weight",)),
        *_layers(held(built).layers, "transformer.h.{layer}", decoder.blocks),
        *normed,
        *last,
    ]


def _layers(ours: str, theirs: str, blocks: DecoderBlocks) -> list[Rule]:
    """All layers, whose linear maps are stored as ours are."""
    heads, layers = blocks.heads, blocks.depth
    return [
        Rule(
            f"{ours}/attention/qkv/kernel",
            (f"{theirs}.attn.c_attn.weight",),
            lambda w: w.reshape(len(w), 3, heads, -1).swapaxes(1, 2),  # [D, 3 D] -> [D, heads, 3, head_dim]
            lambda kernel: (kernel.swapaxes(1, 2).reshape(len(kernel), -1),),
            layers,
        ),
        Rule(
            f"{ours}/attention/qkv/bias",
            (f"{theirs}.attn.c_attn.bias",),
            lambda bias: bias.reshape(3, heads, -1).swapaxes(0, 1),
            lambda bias: (bias.swapaxes(0, 1).reshape(-1),),
            layers,
        ),
        Rule(
            f"{ours}/attention/out/kernel",
            (f"{theirs}.attn.c_proj.weight",),
            lambda w: w.reshape(heads, -1, w.shape[-1]),
            lambda kernel: (kernel.reshape(-1, kernel.shape[-1]),),
            layers,
        ),
        Rule(f"{ours}/attention/out/bias", (f"{theirs}.attn.c_proj.bias",), layers=layers),
        *norm(f"{ours}/norm_attention", f"{theirs}.ln_1", layers),
        *norm(f"{ours}/norm_mlp", f"{theirs}.ln_2", layers),
        *(
            Rule(f"{ours}/mlp/{mine}/{part}", (f"{theirs}.mlp.{name}.{other}",), layers=layers)
            for mine, name in (("in", "c_fc"), ("out", "c_proj"))
            for part, other in (("kernel", "weight"), ("bias", "bias"))
        ),
    ]


def _renamed(kind: str, tensors: Mapping[str, np.ndarray]) -> Arrays:
    """The released files are of the model without its head, whose names begin otherwise."""
    begin = "transformer."
    named = {name if name.startswith((begin, "lm_head")) else begin + name: array for name, array in tensors.items()}
    return table_named(named, f"{begin}{TABLES[kind][0]}.weight")


def _unread(name: str) -> bool:
    """Buffers; and the last matrix, where it is the table."""
    return bool(BUFFERS.search(name)) or name == HEAD


FAMILIES = (
    Family(
        "gpt2",
        "GPT2LMHeadModel",
        second,
        describe_second,
        lambda built: _rules("gpt2", built),
        renamed=lambda tensors: _renamed("gpt2", tensors),
        ignored=_unread,
        text_config="",
        writes=True,
    ),
    Family(
        "openai-gpt",
        "OpenAIGPTLMHeadModel",
        first,
        describe_first,
        lambda built: _rules("openai-gpt", built),
        renamed=lambda tensors: _renamed("openai-gpt", tensors),
        ignored=_unread,
        text_config="",
        writes=True,
    ),
)
