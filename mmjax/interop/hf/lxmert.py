"""Hugging Face's LXMERT (Tan and Bansal 2019, arXiv:1908.07490): LxmertModel, LxmertForPreTraining.

Regions come as a detector found them: features and boxes (left, upper, right, lower edge, in [0, 1]). Their heads are
those of our objectives, but for the answers': its LayerNorm stands behind the GELU, and ours before, so it is kept in
`Bundle.extras`. A model without it goes out as one with `task_qa=False`. There the first word, position and type of
their tables are taken for padding, which has no gradient; and weights of attention are dropped out, in training alone.
"""

from collections.abc import Callable
from typing import Any

import fiddle as fdl

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.transforms.regions import ReadRegions
from mmjax.errors import UserError
from mmjax.interop import config_keys
from mmjax.interop.config_keys import Values, ids_alone
from mmjax.interop.hf import bert
from mmjax.interop.hf.bert import BLOCK, MASK
from mmjax.interop.hf.family import Family
from mmjax.interop.parameter_rules import BlockNames, Rule, block, blocks, heads_in, heads_out, linear, norm
from mmjax.interop.parts import Parts
from mmjax.interop.weight_files import Arrays
from mmjax.models.fusion.coattention import CoAttention
from mmjax.models.towers.regions import Regions
from mmjax.models.towers.text import TextTransformer
from mmjax.objectives.masked import MaskedText
from mmjax.objectives.masked_regions import MaskedRegions
from mmjax.objectives.matching import Matching

FUSION = "cross"
STREAMS = {"regions": "visn", "text": "lang"}  # in the order of the fusion's parameters, and how theirs are called
WORDS, BOXES, MATCHED = bert.OBJECTIVE, "boxes", "matched"
MOST = 36  # regions of a picture, of all published features
NORM_EPS = 1e-12  # of every norm there
DEFAULTS = {
    "vocab_size": 30_522,
    "type_vocab_size": 2,
    "max_position_embeddings": 512,
    "hidden_size": 768,
    "intermediate_size": 3_072,
    "num_attention_heads": 12,
    "num_hidden_layers": None,  # the three below again
    "l_layers": 9,
    "r_layers": 5,
    "x_layers": 5,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "visual_feat_dim": 2_048,
    "num_object_labels": 1_600,
    "num_attr_labels": 400,
    "num_qa_labels": 9_500,
    # Of their losses, which ours have weights of their own for.
    "visual_loss_normalizer": 6.67,
    "task_mask_lm": True,
    "task_matched": True,
    "task_qa": True,
}
FIXED = {"visual_pos_dim": 4, "task_obj_predict": True} | dict.fromkeys(
    (f"visual_{target}_loss" for target in ("obj", "attr", "feat")), True
)
TARGETS = {"objects": "obj", "attributes": "attr", "features": "feat"}  # of the regions' head
HEAD = "cls.predictions"
ANSWERS = tuple(f"answer_head.logit_fc.{layer}.{array}" for layer in (0, 2, 3) for array in ("weight", "bias"))


# --- config.json ---


def model_parts(config: Values, objectives: dict[str, Any]) -> Parts:
    """Both towers and the fusion."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED) | {"layer_norm_eps": NORM_EPS}

    def of(kind: str) -> fdl.Config:
        sized, dropout = given | {"num_hidden_layers": given[f"{kind}_layers"]}, given["hidden_dropout_prob"]
        return config_keys.read_blocks(sized, "config.json", norm="post", dropout=dropout)

    towers = {
        "text": fdl.Config(
            TextTransformer,
            blocks=of("l"),
            vocab=given["vocab_size"],
            length=given["max_position_embeddings"],
            types=given["type_vocab_size"],
            pre_norm=True,
            pooling="cls",
        ),
        "regions": fdl.Config(Regions, blocks=of("r"), features=given["visual_feat_dim"]),
    }
    both = of("x")
    fusion = fdl.Config(
        CoAttention,
        streams=dict.fromkeys(("text", "regions"), both),
        heads=given["num_attention_heads"],
        shared=True,
        mlp=False,
        pooled="text",
        embed_dim=given["hidden_size"],
        projection_tanh=True,
    )
    return Parts(towers, objectives, {FUSION: fusion})


def _objectives(config: Values) -> dict[str, Any]:
    """The objectives that hold their heads of pretraining."""
    given = config_keys.settings(config, "config.json", DEFAULTS, FIXED)
    if given["hidden_act"] != "gelu":  # of the blocks any will do
        raise UserError(f"config.json: hidden_act={given['hidden_act']!r} can't be in the heads here: it is 'gelu'")
    drawn: dict[str, Any] = {"vocab": given["vocab_size"], "mask_id": MASK, "first_id": MASK + 1, "tied": True}
    read: dict[str, Any] = {"norm_eps": NORM_EPS, "fusion": FUSION}
    classes = {"objects": given["num_object_labels"], "attributes": given["num_attr_labels"]}
    return {
        WORDS: fdl.Config(MaskedText, beside=("regions",), **drawn, **read),
        BOXES: fdl.Config(MaskedRegions, features=True, classes=classes, beside=("text",), **read),
        MATCHED: fdl.Config(Matching, FUSION, ("text", "regions"), negatives="random", half_right=True),
    }


def chain(parts: Parts) -> tuple[fdl.Config, ...]:
    """The regions' chain: of what a detector gives of a picture, with the classes that an objective learns."""
    features = parts.towers["regions"].features
    labels = [one.classes for name, one in parts.objectives.items() if name == BOXES]
    return (fdl.Config(ReadRegions, features, MOST, **({"classes": dict(labels[0])} if labels else {})),)


def describe(built: Parts) -> dict[str, Any]:
    """The inverse of `model_parts`."""
    text, regions = built.towers["text"], built.towers["regions"]
    (fusion,) = built.fusions.values()
    layers = {"l": text.sizes, "r": regions.sizes, "x": next(iter(fusion.streams.values()))}
    keys = {kind: config_keys.keys_of(sizes) for kind, sizes in layers.items()}
    depths = {f"{kind}_layers": own.pop("num_hidden_layers") for kind, own in keys.items()}
    del keys["l"]["layer_norm_eps"]
    return keys["l"] | depths | {
        "vocab_size": text.vocab,
        "max_position_embeddings": text.length,
        "type_vocab_size": text.types,
        "hidden_dropout_prob": text.sizes.dropout,
        "attention_probs_dropout_prob": 0.0,
        "visual_feat_dim": regions.features,
    }  # fmt: skip


def _described_heads(answers: bool) -> Callable[[Parts], dict[str, Any]]:
    def described(built: Parts) -> dict[str, Any]:
        (classes,) = (one.classes for one in built.objectives.values() if isinstance(one, MaskedRegions))
        counts = {"num_object_labels": classes["objects"], "num_attr_labels": classes["attributes"]}
        return describe(built) | counts | {"task_qa": answers}

    return described


# --- parameters ---


def _model_rules(built: Parts, prefix: str) -> list[Rule]:
    """Both towers and the fusion."""
    text, regions = built.towers["text"], built.towers["regions"]
    ((name, fusion),) = built.fusions.items()
    seen, fused, layer = "params/towers_regions", f"params/fusions_{name}", f"{prefix}encoder.x_layers.{{layer}}"
    return [
        *bert.text_rules(text, prefix),
        *linear(f"{seen}/stem", f"{prefix}encoder.visn_fc.visn_fc"),
        *norm(f"{seen}/norm_stem", f"{prefix}encoder.visn_fc.visn_layer_norm"),
        *linear(f"{seen}/place", f"{prefix}encoder.visn_fc.box_fc"),
        *norm(f"{seen}/norm_place", f"{prefix}encoder.visn_fc.box_layer_norm"),
        *blocks(f"{seen}/transformer", f"{prefix}encoder.r_layers.{{layer}}", BLOCK, regions.sizes),
        *_met(f"{fused}/layers", f"{layer}.visual_attention", fusion),
        *(
            rule
            for place, (stream, theirs) in enumerate(STREAMS.items())
            for rule in block(f"{fused}/layers/block_{place}", layer, _names(theirs), fusion.streams[stream])
        ),
        *linear(f"{fused}/projection", f"{prefix}pooler.dense"),
    ]


def _met(ours: str, theirs: str, fusion: CoAttention) -> list[Rule]:
    """The attention between the streams, of both directions."""
    heads, layers = fusion.heads, next(iter(fusion.streams.values())).depth
    return [
        *heads_in(f"{ours}/cross/query", (f"{theirs}.att.query",), heads, layers),
        *heads_in(f"{ours}/cross/key_value", (f"{theirs}.att.key", f"{theirs}.att.value"), heads, layers),
        *heads_out(f"{ours}/cross/out", f"{theirs}.output.dense", heads, layers),
        *norm(f"{ours}/norm_cross", f"{theirs}.output.LayerNorm", layers),
    ]


def _names(stream: str) -> BlockNames:
    """The names of a stream's own block within a layer of both."""
    return BlockNames(
        query=f"{stream}_self_att.self.query",
        key=f"{stream}_self_att.self.key",
        value=f"{stream}_self_att.self.value",
        out=f"{stream}_self_att.output.dense",
        norm_attention=f"{stream}_self_att.output.LayerNorm",
        norm_mlp=f"{stream}_output.LayerNorm",
        mlp_in=f"{stream}_inter.dense",
        mlp_out=f"{stream}_output.dense",
    )


def _rules_with_heads(built: Parts) -> list[Rule]:
    words, boxes, matched = (f"params/objectives_{name}" for name in built.objectives)
    return [
        *_model_rules(built, "lxmert."),
        *linear(f"{words}/dense", f"{HEAD}.transform.dense"),
        *norm(f"{words}/norm", f"{HEAD}.transform.LayerNorm"),
        Rule(f"{words}/bias", (f"{HEAD}.bias",)),
        *linear(f"{boxes}/dense", "obj_predict_head.transform.dense"),
        *norm(f"{boxes}/norm", "obj_predict_head.transform.LayerNorm"),
        *(
            rule
            for ours, theirs in TARGETS.items()
            for rule in linear(f"{boxes}/{ours}", f"obj_predict_head.decoder_dict.{theirs}")
        ),
        *linear(f"{matched}/match", "cls.seq_relationship"),
    ]


def _counted(tensors: Arrays, config: dict[str, Any]) -> Arrays:
    """The answers' number is that of the head that is kept beside."""
    config["num_qa_labels"] = len(tensors[ANSWERS[-1]])
    return tensors


def _unread(name: str) -> bool:
    """The matrix of the words' head again, which is the table of words; places of older files."""
    return ids_alone(name) or name in (f"{HEAD}.decoder.weight", f"{HEAD}.decoder.bias")


def _told(parts: Parts, tokenizer: Tokenizer) -> None:
    masked = {name: one for name, one in parts.objectives.items() if name == WORDS}
    bert.tell_ids(Parts({}, masked), tokenizer)


def _pretraining(answers: bool) -> Family:
    return Family(
        "lxmert",
        "LxmertForPreTraining",
        lambda config: model_parts(config, _objectives(config)),
        _described_heads(answers),
        _rules_with_heads,
        renamed=bert.renamed,
        ignored=_unread,
        restored=_counted if answers else lambda tensors, config: tensors,
        extras=ANSWERS if answers else (),
        told=_told,
        text_config="",
    )


FAMILIES = (
    Family(
        "lxmert",
        "LxmertModel",
        lambda config: model_parts(config, {}),
        describe,
        lambda built: _model_rules(built, ""),
        renamed=bert.renamed,
        ignored=_unread,
        text_config="",
    ),
    _pretraining(answers=True),
    _pretraining(answers=False),
)
