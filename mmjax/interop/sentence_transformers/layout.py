"""Folders of sentence-transformers (Reimers and Gurevych 2019, arXiv:1908.10084) that are built on BERT.

    config.json, model.safetensors, ...   of the Transformer, as Hugging Face's; in a folder of its own, at times
    sentence_bert_config.json             the longest text in tokens, whether it is lower-cased
    config_sentence_transformers.json     prompts, and which of them stands before a text where none is asked for
    modules.json, 1_Pooling/, 2_Dense/    see `modules.py`

All of that is one text tower here, whose `pooling` and projection are those modules; BERT's own pooler, which they
don't use, is kept in `Bundle.extras`. Embeddings are unit vectors here, so it is the same whether a Normalize ends the
modules; only vectors that are to be compared with their lengths are refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.subwords import SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import options_of, written
from mmjax.data.transforms.text import Prompt
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.interop import bundle as bundles
from mmjax.interop import config_keys, parameter_rules, weight_files
from mmjax.interop.bundle import Bundle
from mmjax.interop.config_keys import Values
from mmjax.interop.hf import bert
from mmjax.interop.hf import tokenizer as hf_tokenizer
from mmjax.interop.parameter_rules import Rule, linear
from mmjax.interop.parts import Parts, graph
from mmjax.interop.sentence_transformers import modules as sentence_modules
from mmjax.interop.sentence_transformers.modules import CONFIG, read_json, write_json
from mmjax.interop.twins import equivalence
from mmjax.interop.twins.twin import Twin
from mmjax.interop.weight_files import Arrays

SETTINGS, LIMITS = "config_sentence_transformers.json", "sentence_bert_config.json"
FAMILY = bert.FAMILIES[0]
DENSE = "dense."  # before the names of a Dense's arrays, which stand in a file of their own
TEXTS_ALONE = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
FIXED_LIMITS = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
FIXED_LIMITS |= {"modality_config": TEXTS_ALONE}
OTHERS = {  # by model_type, what it is, for messages
    "mpnet": "MPNet",
    "xlm-roberta": "XLM-RoBERTa",
    "roberta": "RoBERTa",
    "distilbert": "DistilBERT",
    "albert": "ALBERT",
    "modernbert": "ModernBERT",
    "nomic_bert": "Nomic's BERT",
    "new": "GTE's NewModel",
    "t5": "T5",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma3_text": "Gemma 3",
}


# --- in ---


def read(folder: str | Path) -> Bundle:
    """The model of a folder.

    Raises:
        UserError: a file is missing or broken; a module, or a setting of one, that can't be expressed here.
    """
    folder = Path(folder)
    modules = {module.kind: module.folder for module in sentence_modules.listed_modules(folder)}
    config = _bert(modules["Transformer"])
    tower = bert.text(config, pooler=False)
    tower.pooling = sentence_modules.pooling(modules["Pooling"], tower.blocks.width)
    arrays = _renamed(weight_files.read(modules["Transformer"]))
    if "Dense" in modules:
        arrays |= {
            DENSE + name: array for name, array in sentence_modules.dense_module(modules["Dense"], tower).items()
        }
    if "Normalize" in modules:
        sentence_modules.normalize(modules["Normalize"])
    extras = {name: arrays.pop(name) for name in list(arrays) if name.startswith("pooler.")}
    variables = parameter_rules.take(_rules(build(tower)), arrays, str(folder), _left_out)
    chain, tokenizer = _texts(folder, modules, config, tower)
    made = bundles.stand_in({"text": tower}, {}, {"text": chain})
    bundle = Bundle(made, variables, {"text": tokenizer}, str(folder), extras)
    bundles.check_bundle(bundle)
    return bundle


def _bert(folder: Path) -> dict[str, Any]:
    """The config.json of the Transformer."""
    config = read_json(folder / CONFIG)
    kind = config.get("model_type")
    if kind != FAMILY.model_type:
        what = f"this is {OTHERS[kind]}, and" if kind in OTHERS else "this is no BERT, and"
        raise UserError(
            f"{folder}: model_type={kind!r}: {what} of sentence-transformers' models those on BERT are read"
        )
    return config


def _renamed(arrays: Arrays) -> Arrays:
    """A BertModel's names, of whichever class they were saved from."""
    return {name.removeprefix("bert."): array for name, array in bert.renamed(arrays).items()}


def _left_out(name: str) -> bool:
    """Heads of pretraining, which theirs don't load either."""
    return name.startswith("cls.") or bert.buffers(name)


def _rules(tower: Any) -> list[Rule]:
    """The table of parameters; of the built tower."""
    plain = bert.text_rules(tower.clone(embed_dim=None, projection_tanh=False), "")
    if tower.embed_dim is None:
        return plain
    return [*plain, *linear("params/towers_text/projection", f"{DENSE}linear", bias=tower.projection_bias)]


def _texts(
    folder: Path, modules: Mapping[str, Path], config: Values, tower: fdl.Config
) -> tuple[tuple[fdl.Config, ...], Tokenizer]:
    """The text's chain, and its tokenizer."""
    first = modules["Transformer"]
    said = read_json(first / LIMITS) if (first / LIMITS).is_file() else {}
    defaults = {"max_seq_length": None, "do_lower_case": False}
    limits = config_keys.settings(said, str(first / LIMITS), defaults, FIXED_LIMITS)
    length = limits["max_seq_length"] or options_of(first).get("model_max_length") or tower.length
    if isinstance(length, bool) or not isinstance(length, int | float) or length < 1:
        raise UserError(f"{first}: max_seq_length={length!r} is no number of pieces: 1 or more, or null")
    inner = fdl.copy_with(tower, length=int(min(length, tower.length)))
    (pick, *chain), tokenizer = hf_tokenizer.read(first, FAMILY, config, inner)
    if tokenizer is None:
        raise UserError(f"{first} has none of {', '.join(hf_tokenizer.FILES)}, of which one holds its tokenizer")
    if limits["do_lower_case"]:
        tokenizer = _lowering(tokenizer, first)
    prompt = _prompt(folder, normalised="Normalize" in modules)
    pooling = modules["Pooling"] / CONFIG
    if prompt and not read_json(pooling).get("include_prompt", True):
        raise UserError(
            f"{pooling}: include_prompt=False leaves the prompt {prompt!r} out of the pooling, which can't be done here"
        )
    return (pick, *graph([Prompt(prompt)] if prompt else []), *chain), tokenizer


def _prompt(folder: Path, normalised: bool) -> str:
    """The text put before an input where no prompt is named."""
    where = folder / SETTINGS
    said = read_json(where) if where.is_file() else {}
    kind, similarity = said.get("model_type", "SentenceTransformer"), said.get("similarity_fn_name")
    if kind != "SentenceTransformer":
        raise UserError(f"{where}: model_type={kind!r} can't be read; SentenceTransformer can")
    if similarity not in (None, "cosine") and not normalised:
        raise UserError(
            f"{where}: similarity_fn_name={similarity!r}: its vectors are compared with their lengths, and embeddings "
            "here are unit vectors"
        )
    prompts, name = said.get("prompts") or {}, said.get("default_prompt_name")
    if name is not None and name not in prompts:
        raise UserError(f"{where}: default_prompt_name={name!r} is none of its prompts, {', '.join(sorted(prompts))}")
    return "" if name is None else prompts[name] or ""


def _lowering(tokenizer: Tokenizer, where: Path) -> Tokenizer:
    """The tokenizer that lower-cases a text, but for names of special pieces, where it didn't."""
    if not isinstance(tokenizer, SubwordTokenizer):
        raise UserError(f"{where / LIMITS}: do_lower_case=True of a SentencePiece model can't be expressed here")
    settings = json.loads(tokenizer.model)
    stands = settings.get("normalizer") or {"type": "Sequence", "normalizers": []}
    if stands.get("lowercase") or '"Lowercase"' in json.dumps(stands):
        return tokenizer
    settings["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, stands]}
    return SubwordTokenizer(written(settings))


# --- out ---


def near(bundle: Bundle) -> Twin:
    """The model as a SentenceTransformer, exactly.

    Raises:
        UserError: the model isn't a text tower alone, or not one that BERT, a pooling of theirs and a Dense make up.
    """
    where = bundle.source or "the model"
    if set(bundle.config.towers) != {"text"} or bundle.config.objectives:
        parts = ", ".join([*bundle.config.towers, *bundle.config.objectives])
        raise UserError(f"{where} is made of {parts}: a model of sentence-transformers is a text tower alone")
    if "text" not in bundle.tokenizers:
        raise UserError(f"{where} has no tokenizer, which a model of sentence-transformers has")
    _described(bundle, build(bundle.config.towers["text"]), where)
    return Twin(bundle, "SentenceTransformer")


def write(bundle: Bundle, folder: str | Path, exact: bool = True) -> Path:
    """Writes a folder that sentence_transformers opens, and gives its path. Of its prompts it has the one in use.

    exact: makes no difference, see `near`.

    Raises:
        UserError: as `near`; the model has no tokenizer that theirs read; the folder is taken.
    """
    del exact
    folder, where = Path(folder), bundle.source or "the model"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: give another folder")
    near(bundle)
    tower = build(bundle.config.towers["text"])
    described = _described(bundle, tower, where)
    steps = [build(transform) for transform in bundle.config.data.transforms["text"]]
    prompts = [step.before for step in steps if isinstance(step, Prompt)]
    chain = tuple(step for step in steps if not isinstance(step, Prompt))
    arrays = parameter_rules.give(_rules(tower), bundle.variables, where) | bundle.extras
    dense = {name.removeprefix(DENSE): arrays.pop(name) for name in list(arrays) if name.startswith(DENSE)}
    with bundles.fresh_folder(folder) as part:
        sentence_modules.write(tower, dense, part)
        weight_files.write(arrays, part)
        hf_tokenizer.write(chain, bundle.tokenizers["text"], FAMILY, described, part)
        write_json(described, part / CONFIG)
        write_json({"max_seq_length": chain[-1].length, "do_lower_case": False}, part / LIMITS)
        named = {"prompts": {"default": "".join(prompts)}, "default_prompt_name": "default"} if prompts else {}
        write_json({"similarity_fn_name": "cosine", **named}, part / SETTINGS)
    return folder


def _described(bundle: Bundle, tower: Any, where: str) -> dict[str, Any]:
    """The config.json of the BERT that the tower is, pooling and projection aside."""
    modes = sentence_modules.MODES.values()
    if tower.pooling not in modes:
        raise UserError(f"{where}: towers.text.pooling={tower.pooling!r} is none of theirs, {', '.join(modes)}")
    described = {"model_type": FAMILY.model_type, "architectures": [FAMILY.architecture]}
    described |= bert.describe(Parts({"text": tower}, {}))
    again = bert.text(described, pooler=False)
    for name in ("pooling", "embed_dim", "projection_bias", "projection_tanh"):
        setattr(again, name, getattr(tower, name))
    if found := equivalence.differences(Parts({"text": again}, {}), Parts(dict(bundle.config.towers), {})):
        lines = "\n".join(f"  {d.path}: {d.left!r} there, {d.right!r} here" for d in found)
        raise UserError(
            f"{where}: BERT, which sentence-transformers would have, doesn't compute the same; it has\n{lines}"
        )
    return described
