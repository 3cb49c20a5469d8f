"""Hugging Face's BERT (Devlin et al. 2018, arXiv:1810.04805): BertModel, BertForMaskedLM, BertForPreTraining, and
BertForTokenClassification.

The embedding is the pooler's: a tanh of a linear map of the first token ([CLS]). Segment ids come beside the words,
as their tokenizer gives them: of a text alone all are 0, whatever [SEP] stands in it. The masked-language head is our
`MaskedText`'s; theirs holds the embedding's table in the place of its last matrix, what is read here a copy of it
(`tied=False`), which is tied no more once it is trained. The next-sentence head is kept in `Bundle.extras`: what is
read has no `NextSentence`. The layer that tags words is `TagTokens`'s; config.json names its classes, and so does the
text's chain here (`TokenizeTagged`). Their dropout of attention's weights and before the layer that tags, in training
alone, has no place here.
"""

from typing import Any

import fiddle as fdl
import numpy as np

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.labels import label_keys, label_names, numbered
from mmjax.interop.hf.tokenizer import mask_of
from mmjax.interop.parameter_rules import BlockNames, Rule, blocks, linear, norm
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.towers.text import TextTransformer
from mmjax.objectives.labels.tag_tokens import TagTokens
from mmjax.objectives.masked import MaskedText

OBJECTIVE, TAGS = "masked", "tags"
MASK = 103  # [MASK] of all the vocabularies that BERT was published with
DEFAULTS = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "intermediate_size": 3_072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,  # of heads that come after pretraining
}
FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
BLOCK = BlockNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    norm_attention="attention.output.LayerNorm",
    norm_mlp="output.LayerNorm",
    mlp_in="intermediate.dense",
    mlp_out="output.dense",
)
HEAD = "cls.predictions"
TABLE = "bert.embeddings.word_embeddings.weight"
TAGGER = "classifier"
NEXT_SENTENCE = ("cls.seq_relationship.weight", "cls.seq_relationship.bias")


# --- config.json ---


def text(config: Values, pooler: bool) -> fdl.Config:
    """The text tower."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    return fdl.Config(
        TextTransformer,
        blocks=config_keys.read_blocks(given, "config.json", norm="post", dropout=given["hidden_dropout_prob"]),
        vocab=given["vocab_size"],
        length=given["max_position_embeddings"],
        types=given["type_vocab_size"],
        pre_norm=True,
        pooling="cls",
        embed_dim=given["hidden_size"] if pooler else None,
        projection_bias=pooler,
        projection_tanh=pooler,
    )


def _masked(config: Values) -> fdl.Config:
    """The objective that holds the masked-language head."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    if given["hidden_act"] != "gelu":  # of the towers any will do
        raise UserError(f"config.json: hidden_act={given['hidden_act']!r} can't be in the head here, which has 'gelu'")
    return fdl.Config(
        MaskedText, vocab=given["vocab_size"], mask_id=MASK, first_id=MASK + 1, norm_eps=given["layer_norm_eps"]
    )


def _tagged(config: Values) -> fdl.Config:
    """The objective that holds the layer that tags words."""
    return fdl.Config(TagTokens, len(label_names(config)))


def tell_ids(parts: Parts, tokenizer: Tokenizer) -> None:
    """Sets the masking's ids: those up to the last special one are never chosen nor drawn."""
    mask = mask_of(tokenizer)
    for objective in parts.objectives.values():
        if mask is not None:
            special = [mask, *(id for id in (tokenizer.pad, tokenizer.bos, tokenizer.eos) if id is not None)]
            objective.mask_id, objective.first_id = mask, max(special) + 1


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of both."""
    tower = built.towers["text"]
    return config_keys.keys_of(tower.sizes) | {
        "vocab_size": tower.vocab,
        "max_position_embeddings": tower.length,
        "type_vocab_size": tower.types,
        "hidden_dropout_prob": tower.sizes.dropout,
        "attention_probs_dropout_prob": 0.0,
    }


def _described_tagged(built: Parts) -> dict[str, Any]:
    """The classes go by their numbers until the text's chain has named them."""
    (objective,) = built.objectives.values()
    return describe(built) | label_keys(numbered(objective.classes))


# --- parameters ---


def text_rules(tower: Any, prefix: str, path: str = "params/towers_text") -> list[Rule]:
    """The text tower."""
    embeddings = f"{prefix}embeddings"
    pooler = [] if tower.embed_dim is None else linear(f"{path}/projection", f"{prefix}pooler.dense")
    return [
        Rule(f"{path}/token/embedding", (f"{embeddings}.word_embeddings.weight",)),
        Rule(f"{path}/position", (f"{embeddings}.position_embeddings.weight",)),
        Rule(f"{path}/type", (f"{embeddings}.token_type_embeddings.weight",)),
        *norm(f"{path}/norm_pre", f"{embeddings}.LayerNorm"),
        *blocks(f"{path}/transformer", f"{prefix}encoder.layer.{{layer}}", BLOCK, tower.sizes),
        *pooler,
    ]


def pretraining_rules(built: Parts) -> list[Rule]:
    """The text tower and the masked-language head."""
    (objective,) = built.objectives
    path = f"params/objectives_{objective}"
    return [
        *text_rules(built.towers["text"], "bert."),
        *linear(f"{path}/dense", f"{HEAD}.transform.dense"),
        *norm(f"{path}/norm", f"{HEAD}.transform.LayerNorm"),
        *linear(f"{path}/words", f"{HEAD}.decoder"),
    ]


def _tagged_rules(built: Parts) -> list[Rule]:
    """The text tower and the layer that tags words."""
    (objective,) = built.objectives
    tower = text_rules(built.towers["text"], "bert.")
    return [*tower, *linear(f"params/objectives_{objective}/tags", TAGGER)]


def renamed(tensors: Arrays) -> Arrays:
    """Norms had a gamma and a beta in 2018; and what is tied is in the file once."""
    made = {}
    for name, array in tensors.items():
        made[name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")] = array
    if f"{HEAD}.transform.dense.weight" in made:
        for tied, source in ((f"{HEAD}.decoder.weight", TABLE), (f"{HEAD}.decoder.bias", f"{HEAD}.bias")):
            if tied not in made and source in made:
                made[tied] = made[source]
    return made


def restored(tensors: Arrays, config: dict[str, Any]) -> Arrays:
    """The last matrix goes where the embedding's table is not it."""
    weight, bias = (tensors[f"{HEAD}.decoder.{part}"] for part in ("weight", "bias"))
    made = tensors | {f"{HEAD}.bias": bias}
    config["tie_word_embeddings"] = bool(np.array_equal(weight, tensors[TABLE]))
    if config["tie_word_embeddings"]:
        del made[f"{HEAD}.decoder.weight"], made[f"{HEAD}.decoder.bias"]
    return made


def buffers(name: str) -> bool:
    """Further arrays of older files; the bias of the head is at the last matrix too."""
    return name.endswith("position_ids") or name == f"{HEAD}.bias"


def _unread_by_tags(name: str) -> bool:
    """The pooler too, which older versions of theirs saved with the model that tags, and nothing read."""
    return buffers(name) or name.startswith("bert.pooler.")


def _pretraining(architecture: str, pooler: bool, extras: tuple[str, ...]) -> Family:
    return Family(
        "bert",
        architecture,
        lambda config: Parts({"text": text(config, pooler)}, {OBJECTIVE: _masked(config)}),
        describe,
        pretraining_rules,
        renamed=renamed,
        restored=restored,
        ignored=buffers,
        extras=extras,
        told=tell_ids,
        text_config="",
    )


FAMILIES = (
    Family(
        "bert",
        "BertModel",
        lambda config: Parts({"text": text(config, pooler=True)}, {}),
        describe,
        lambda built: text_rules(built.towers["text"], ""),
        renamed=renamed,
        ignored=buffers,
        told=tell_ids,
        text_config="",
    ),
    _pretraining("BertForPreTraining", True, NEXT_SENTENCE),
    _pretraining("BertForMaskedLM", False, ()),
    Family(
        "bert",
        "BertForTokenClassification",
        lambda config: Parts({"text": text(config, pooler=False)}, {TAGS: _tagged(config)}),
        _described_tagged,
        _tagged_rules,
        renamed=renamed,
        ignored=_unread_by_tags,
        text_config="",
        tagged=True,
    ),
)
