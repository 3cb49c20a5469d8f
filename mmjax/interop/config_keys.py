"""A config.json of the Hugging Face hub, read so that no key passes unseen: what we can't express is an error."""

from collections.abc import Callable, Mapping
from typing import Any

import fiddle as fdl

from mmjax.errors import UserError
from mmjax.interop.weight_files import Arrays
from mmjax.models.layers.activations import ActivationName
from mmjax.models.layers.blocks import Blocks

Values = Mapping[str, Any]

ACTIVATIONS: dict[str, ActivationName] = {  # theirs: ours; the first of several is written
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
}
# What says nothing about a model's arithmetic: where it came from, how it started, how text would be generated.
HARMLESS = {
    *("_name_or_path", "_attn_implementation_autoset", "architectures", "model_type", "transformers_version"),
    *("torch_dtype", "dtype", "torchscript", "use_cache", "return_dict", "gradient_checkpointing", "tokenizer_class"),
    *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params"),
    *("initializer_range", "initializer_factor", "logit_scale_init_value", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
    *("max_length", "min_length", "num_beams", "num_beam_groups", "num_return_sequences", "temperature", "top_k"),
    *("top_p", "typical_p", "length_penalty", "repetition_penalty", "diversity_penalty", "no_repeat_ngram_size"),
}


def settings(values: Values, where: str, defaults: Values, fixed: Values) -> dict[str, Any]:
    """The values of the keys of `defaults`.

    defaults: their value where it is left out, or null; a null switch, one that is on by default, is off.
    fixed: keys that may have one value only, here and in what is read.
    Any other key must be harmless, or switched off: no number, no text, not true.

    Raises:
        UserError: names the key and its value.
    """
    for key, value in fixed.items():
        if key in values and values[key] != value and not (values[key] is None and value is not True):
            raise UserError(f"{where}: {key}={values[key]!r} can't be expressed here, where it is {value!r}")
    for key, value in values.items():
        if key not in defaults and key not in fixed and key not in HARMLESS and value:
            raise UserError(f"{where}: {key}={value!r} isn't known here, and may change what the model computes")
    given = {key: _said(values, key, default) for key, default in defaults.items()}
    for key, value in given.items():
        if not _of_kind(value, defaults[key], key):
            raise UserError(f"{where}: {key}={value!r} is no value of it, as {defaults[key]!r} would be")
    return given


SEVERAL = ("image_size", "patch_size", "layers")  # numbers that may be lists of such


def _of_kind(value: Any, default: Any, key: str) -> bool:
    """True if a value is of its default's kind: a size, a number, a text."""
    if value == default or default is None or key.endswith("_id") or (key in SEVERAL and isinstance(value, list)):
        return True
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, int) and not isinstance(default, bool):
        return (number and value >= 0) if "ratio" in key else (type(value) is int and value >= 0)
    if isinstance(default, float):
        return number
    return isinstance(value, str) or not isinstance(default, str)


def _said(values: Values, key: str, default: Any) -> Any:
    if values.get(key) is not None:
        return values[key]
    return False if key in values and default is True else default


def within(values: Values, key: str, where: str) -> Values:
    """The config inside the config, `text_config`. Old files hold a `text_config_dict` too, which then counts."""
    inner = values.get(f"{key}_dict") or values.get(key) or {}
    if not isinstance(inner, Mapping):
        raise UserError(f"{where}: {key} is no dict but {inner!r}")
    return inner


def activation(name: Any, where: str, key: str = "hidden_act") -> ActivationName:
    """Ours of theirs."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UserError(f"{where}: {key}={name!r} isn't here; {', '.join(ACTIVATIONS)} are")
    return ACTIVATIONS[name]


def activation_of(ours: str) -> str:
    """Theirs of ours."""
    return next(theirs for theirs, name in ACTIVATIONS.items() if name == ours)


def whole(value: Any, where: str, key: str) -> int:
    """A side of a square: a number, or two equal ones."""
    sides = value if isinstance(value, list | tuple) else [value]
    if not sides or any(type(side) is not int or side != sides[0] for side in sides):
        raise UserError(f"{where}: {key}={value!r} must be one number: only squares can be expressed here")
    return sides[0]


def read_blocks(given: Values, where: str, kind: type[Blocks] = Blocks, **more: Any) -> fdl.Config:
    """Our blocks from the keys that all of their models use. more: other fields of them."""
    return fdl.Config(
        kind,
        width=given["hidden_size"],
        depth=given["num_hidden_layers"],
        heads=given["num_attention_heads"],
        mlp_dim=given["intermediate_size"],
        activation=activation(given["hidden_act"], where),
        norm_eps=given["layer_norm_eps"],
        **more,
    )


def keys_of(blocks: Blocks) -> dict[str, Any]:
    """The inverse of `read_blocks`. Raises UserError where there are none: theirs end in a LayerNorm all the same."""
    if not blocks.depth:
        raise UserError("a tower with blocks.depth=0, which ends without a LayerNorm, has no counterpart there")
    return {
        "hidden_size": blocks.width,
        "num_hidden_layers": blocks.depth,
        "num_attention_heads": blocks.heads,
        "intermediate_size": blocks.hidden,
        "hidden_act": activation_of(blocks.activation),
        "layer_norm_eps": blocks.norm_eps,
    }


def prefixed(prefix: str) -> Callable[[Arrays], Arrays]:
    """Some versions of theirs save a tower that is alone without the prefix that the others give it."""

    def renamed(tensors: Arrays) -> Arrays:
        return {name if name.startswith(prefix) else prefix + name: array for name, array in tensors.items()}

    return renamed


def ids_alone(name: str) -> bool:
    """0, 1, 2, ...: a buffer of older files."""
    return name.endswith("position_ids")
