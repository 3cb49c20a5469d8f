"""What stands between pictures and texts and a Hugging Face model: its preprocessing and tokenizer, in a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl

from mmjax.data.captions import PickCaption, Tokenize
from mmjax.data.tokenizers import SentencePiece, Tokenizer
from mmjax.data.transforms import Decode, Resize
from mmjax.errors import UserError
from mmjax.interop.bundle import Bundle
from mmjax.interop.hf_config import Family, within

HIGHEST = 2  # as CLIP's `eos_token_id`: the highest id of a text is meant
LAST = 49_407  # what it is where the config doesn't say


def read(
    folder: Path, family: Family, config: Mapping[str, Any], towers: Mapping[str, fdl.Config]
) -> tuple[dict[str, Any], dict[str, Tokenizer]]:
    """The chains of the experiment, and the tokenizers."""
    tokenizers: dict[str, Tokenizer] = {}
    if family.finds_end:
        inner = within(config, family.text_config, str(folder)) if family.text_config else config
        check_end(tokenizers.get("text"), inner, LAST, towers["text"].vocab, str(folder))
    return chains(towers), tokenizers


def chains(towers: Mapping[str, fdl.Config]) -> dict[str, Any]:
    """The chains of towers whose folder says nothing of its inputs."""
    made: dict[str, Any] = {}
    if "image" in towers:
        made["image"] = (fdl.Config(Decode), fdl.Config(Resize, towers["image"].size))
    if "text" in towers:
        text = towers["text"]
        spec = fdl.Config(SentencePiece, text.vocab)
        made["text"] = (fdl.Config(PickCaption), fdl.Config(Tokenize, spec, text.length))
    return made


def write(bundle: Bundle, family: Family, config: dict[str, Any], folder: Path) -> None:
    """Writes preprocessing and tokenizer; completes `config` by the ids of special tokens."""
    if family.text_config is not None:
        inner = config[family.text_config] if family.text_config else config
        inner |= special_ids(bundle.tokenizers.get("text"), inner["vocab_size"], family.finds_end)


def special_ids(tokenizer: Tokenizer | None, vocab: int, finds_end: bool) -> dict[str, int]:
    """The keys of a text's config that hold ids.

    finds_end: whether the model looks for the end token among the ids, as CLIP does: by its id, but that 2 stands for
    the highest id of a text. Without a tokenizer it is taken to be the highest.
    """
    if tokenizer is None:
        return {"eos_token_id": HIGHEST} if finds_end else {}
    if finds_end and tokenizer.eos == HIGHEST and vocab > HIGHEST + 1:
        raise UserError(
            f"a CLIPModel can't be told that a text ends at the id {HIGHEST}, which stands for the highest id of a "
            "text there: its tokenizer must end texts by another id"
        )
    named = {"pad_token_id": tokenizer.pad, "bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    return {key: value for key, value in named.items() if value is not None}


def check_end(tokenizer: Tokenizer | None, config: Mapping[str, Any], default: int, vocab: int, where: str) -> None:
    """Raises UserError where the model would look for the end of a text elsewhere than the tokenizer puts it."""
    said = config.get("eos_token_id", default)
    end = vocab - 1 if said == HIGHEST else said
    puts = vocab - 1 if tokenizer is None else tokenizer.eos
    if end != puts:
        whose = "it has no tokenizer that says so" if tokenizer is None else f"its tokenizer ends texts by {puts}"
        raise UserError(f"{where}: eos_token_id={said} is where the model finds the end of a text, but {whose}")
