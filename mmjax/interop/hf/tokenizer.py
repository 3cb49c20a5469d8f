"""Between texts and a Hugging Face model: its tokenizer in a folder, read as our chain, and written.

A tokenizer is written as a `tokenizer.json`, which any version of transformers opens; SigLIP's as its `spiece.model`.
"""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import fiddle as fdl

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.given_ids import GivenIds
from mmjax.data.tokenizers.gpt_json import with_begin
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import options_of, piece_name, tokenizer_json
from mmjax.data.transforms.conversation import TokenizeConversation
from mmjax.data.transforms.prefixed import TokenizePrefixed
from mmjax.data.transforms.tagged import TokenizeTagged
from mmjax.data.transforms.text import Canonicalize, PickCaption, Tokenize
from mmjax.data.transforms.unended import TokenizeUnended
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.interop.config_keys import Values, within
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.labels import label_keys, label_names
from mmjax.interop.open_clip.preprocessing import pieces_of
from mmjax.interop.parts import graph
from mmjax.interop.preprocessing import text
from mmjax.interop.preprocessing.framing import framed
from mmjax.interop.preprocessing.piece_json import names_as_text, renamed_pieces

FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
ANY_KIND = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes whose tokenizer.json says it all
SIGLIP = (Canonicalize(spaced=""),)  # what SiglipTokenizer does before its pieces
HIGHEST = 2  # as CLIP's `eos_token_id`: the highest id of a text is meant
LAST = 49_407  # what it is where the config doesn't say
# What fills up, where the config doesn't say. SigLIP's has no such value: its class says 1, and SigLIP 2 has 0.
PADS = {"clip": 1, "clip_text_model": 1, "bert": 0, "vilt": 0, "flava": 0, "blip": 0, "lxmert": 0}
DECODE = "[DEC]"  # BLIP's name of the piece that begins a caption, where its tokenizer doesn't have it
MASKS = ("[MASK]", "<mask>", renamed_pieces("[MASK]"))


def read(
    folder: Path, family: Family, config: Values, tower: fdl.Config
) -> tuple[tuple[fdl.Config, ...], Tokenizer | None]:
    """The text's chain, and the tokenizer if the folder holds one.

    Raises:
        UserError: the tokenizer isn't known, is too large for the model, or ends texts elsewhere than where the model
            finds their end.
    """
    tokenizer, where = None, str(folder)
    inner = within(config, family.text_config, where) if family.text_config else config
    end, pad = None, inner.get("pad_token_id", PADS.get(family.model_type))
    if family.writes:
        ends = "eos_token_id" if family.frame is None else family.frame[1]
        end, pad = (_id_of(inner, keys, tower.vocab) for keys in ((ends,), ("pad_token_id", ends)))
        pad = pad or 0
    chain: tuple[Any, ...] = (
        Tokenize(GivenIds(tower.vocab, end), tower.length, family.finds_end, family.finds_end, pad, empty="keep"),
    )
    if any((folder / name).is_file() for name in FILES):
        chain, tokenizer = (_written_by if family.writes else _of_folder)(folder, tower.length)
        if family.frame is not None and family.answers is None:
            chain, tokenizer = _framed_texts(family.frame, inner, tower.vocab, chain, tokenizer, where)
        if tokenizer.pad is None:
            chain = (*chain[:-1], replace(chain[-1], pad=pad))
        if tokenizer.vocab_size > tower.vocab:
            raise UserError(f"{where}: vocab_size={tower.vocab}, but the tokenizer has {tokenizer.vocab_size} pieces")
    if family.prefixed:
        kept: dict[str, Any] = {field.name: getattr(chain[-1], field.name) for field in fields(chain[-1])}
        chain = (*chain[:-1], TokenizePrefixed(**{**kept, "bos": True, "eos": True}))
    if family.tagged:
        chain = (*chain[:-1], _tagging(chain[-1], label_names(inner)))
    if family.placed is not None:
        cut = chain[-1]
        talk = TokenizeConversation(cut.tokenizer, cut.length, pad=cut.pad, empty="keep", **family.placed(config))
        return graph((*chain[:-1], talk)), tokenizer
    if family.finds_end:
        said = inner.get("eos_token_id")
        check_end(tokenizer, LAST if said is None else said, tower.vocab, where)
    return graph((PickCaption(empty="keep"), *chain)), tokenizer


def read_answers(
    chain: tuple[fdl.Config, ...], tokenizer: Tokenizer | None, family: Family, config: Values, decoder: fdl.Config
) -> tuple[tuple[fdl.Config, ...], Tokenizer | None]:
    """The chain and the tokenizer of the texts that a decoder writes, from those of the texts that are read.

    Raises UserError where the tokenizer has no pieces that begin and end them.
    """
    assert family.frame is not None
    assert family.text_config is not None
    inner, built = within(config, family.text_config, "config.json"), tuple(build(step) for step in chain)
    cut: Any = replace(built[-1], length=decoder.length)
    if tokenizer is None:
        end = _id_of(inner, (family.frame[1],), decoder.vocab)
        return graph((*built[:-1], replace(cut, tokenizer=GivenIds(decoder.vocab, end)))), None
    framed_chain, tokenizer = _framed_texts(
        family.frame, inner, decoder.vocab, (*built[:-1], cut), tokenizer, "the tokenizer of the answers"
    )
    return graph(framed_chain), tokenizer


def _framed_texts(
    frame: tuple[str, str], config: Values, vocab: int, chain: tuple[Any, ...], tokenizer: Tokenizer, where: str
) -> tuple[tuple[Any, ...], Tokenizer]:
    """The chain and the tokenizer with the pieces around a text whose ids stand under two keys of `config`."""
    begin, end = (_id_of(config, (key,), vocab) for key in frame)
    tokenizer = _framed_by(tokenizer, begin, end, where)
    spec = Subwords(tokenizer.vocab_size)
    return (*chain[:-1], replace(chain[-1], tokenizer=spec, bos=True, eos=True)), tokenizer


def _of_folder(folder: Path, length: int) -> tuple[tuple[Any, ...], Tokenizer]:
    if options_of(folder).get("tokenizer_class") in ANY_KIND and (folder / "tokenizer.json").is_file():
        tokenizer = SubwordTokenizer(tokenizer_json(folder / "tokenizer.json"))
        *_, cut = text.from_open_clip(tokenizer, length).transforms  # the ends that the file says
        return (cut,), tokenizer
    return text.from_hugging_face(folder, length)


def _written_by(folder: Path, length: int) -> tuple[tuple[Any, ...], Tokenizer]:
    """Of a decoder's folder: the tokenizer knows the piece that ends a text, which its file may put behind none."""
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder} has no tokenizer.json, which a decoder's texts are read by")
    tokenizer = SubwordTokenizer(tokenizer_json(folder / "tokenizer.json"))
    *_, cut = text.from_open_clip(tokenizer, length).transforms  # the ends that the file says
    end, pieces = piece_name(options_of(folder).get("eos_token")), pieces_of(tokenizer.model)
    if tokenizer.eos is None and end in pieces:
        names = {id: name for name, id in pieces.items()}
        begin = None if tokenizer.bos is None else names[tokenizer.bos]
        tokenizer = SubwordTokenizer(framed(tokenizer.model, begin, end))
    return (cut,), tokenizer


def _framed_by(tokenizer: Tokenizer, begin: int | None, end: int | None, where: str) -> Tokenizer:
    """The tokenizer with the pieces of these ids around a text. The first may be one that it doesn't have yet.

    Raises UserError where there are no such pieces.
    """
    if (begin, end) == (tokenizer.bos, tokenizer.eos):
        return tokenizer
    model = tokenizer.model
    if begin == tokenizer.vocab_size:
        model = with_begin(model, DECODE)
    names = {id: name for name, id in pieces_of(model).items()}
    if begin not in names or end not in names:
        raise UserError(
            f"{where}: texts begin by the id {begin} and end by {end}, and of the {tokenizer.vocab_size} pieces of the "
            "tokenizer there are no such two"
        )
    return SubwordTokenizer(framed(model, names[begin], names[end]))


def _id_of(config: Values, keys: tuple[str, ...], vocab: int) -> int | None:
    """The first of these keys' ids that the vocabulary has."""
    said = (config.get(key) for key in keys)
    return next((id for id in said if type(id) is int and 0 <= id < vocab), None)


def _tagging(cut: Tokenize, names: tuple[str, ...]) -> TokenizeTagged:
    """The step that cuts a text, with the tags of its words."""
    return TokenizeTagged(**{field.name: getattr(cut, field.name) for field in fields(cut)}, classes=names)


def check_end(tokenizer: Tokenizer | None, said: Any, vocab: int, where: str) -> None:
    """Raises UserError where the model would look for the end of a text elsewhere than the tokenizer puts it.

    said: `eos_token_id`. Without a tokenizer a text's end must be the highest id, which is what is written then.
    """
    puts = vocab - 1 if tokenizer is None else tokenizer.eos
    highest = vocab if tokenizer is None else tokenizer.vocab_size
    if (highest - 1 if said == HIGHEST else said) != puts:
        whose = "it has no tokenizer that says so" if tokenizer is None else f"its tokenizer ends texts by {puts}"
        raise UserError(f"{where}: eos_token_id={said} is where the model finds the end of a text, but {whose}")


def mask_of(tokenizer: Tokenizer) -> int | None:
    """The id of the piece that stands for a hidden one."""
    pieces = pieces_of(tokenizer.model) if isinstance(tokenizer, SubwordTokenizer) else {}
    return next((pieces[name] for name in MASKS if name in pieces), None)


# --- out ---


def write(
    chain: tuple[Any, ...], tokenizer: Tokenizer | None, family: Family, config: dict[str, Any], folder: Path
) -> None:
    """Writes the tokenizer, and the ids of its special pieces into `config`.

    chain: the text's transforms, built.

    Raises:
        UserError: transformers has no tokenizer that does the same; tags are named that the model doesn't have.
    """
    inner = config[family.text_config] if family.text_config else config
    if family.tagged:
        inner |= label_keys(_named_tags(chain[-1], len(inner["id2label"])))
    if family.placed is not None:
        config |= {"image_token_index": _place_held(chain[-1], family)}
    if tokenizer is None:
        inner |= {"eos_token_id": HIGHEST} if family.finds_end else {}
        given = chain[-1].tokenizer
        if family.writes and isinstance(given, GivenIds) and given.eos is not None:
            inner |= {"eos_token_id" if family.frame is None else family.frame[1]: given.eos}
        return
    if family.finds_end and tokenizer.eos == HIGHEST < tokenizer.vocab_size - 1:
        raise UserError(
            f"a {family.architecture} can't be told that texts end by the id {HIGHEST}, which stands for the highest "
            "id of a text there: only a tokenizer that ends texts by another id can go there"
        )
    *cleaning, cut = [transform for transform in chain if not isinstance(transform, PickCaption)]
    if isinstance(cut, TokenizeUnended):
        raise UserError(f"a tokenizer of transformers' doesn't take out what ends a text, as this model's does: {cut}")
    pad = tokenizer.pad if cut.pad is None else cut.pad
    named = {"pad_token_id": pad, "bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    if family.frame is not None and family.answers is None:
        named |= {family.frame[0]: tokenizer.bos, family.frame[1]: tokenizer.eos}
    inner |= {key: value for key, value in named.items() if value is not None}
    if isinstance(tokenizer, PieceTokenizer):
        if tuple(cleaning) not in (SIGLIP, (Canonicalize("", cut.names),)) or cut.bos or not cut.eos:
            raise UserError(
                "transformers reads a SentencePiece model as SiglipTokenizer, which cleans texts by Canonicalize("
                f"spaced='') and ends them; this one's are cleaned by {cleaning}, with bos={cut.bos}, eos={cut.eos}"
            )
        (folder / "spiece.model").write_bytes(tokenizer.model)
        names = {
            f"{kind}_token": tokenizer.piece(id)
            for kind, id in (("pad", pad), ("eos", tokenizer.eos))
            if id is not None
        }
        options = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, **names}
    else:
        if cleaning:
            raise UserError(
                f"a tokenizer of transformers' doesn't clean texts by {cleaning}, as this model's chain does"
            )
        (folder / "tokenizer.json").write_bytes(_framed_as(cut, tokenizer))
        options = {"tokenizer_class": ANY_KIND[0], **_special(tokenizer, pad)}
        if family.model_type == "bert":  # whose users put the mask into texts by its name
            options.pop("split_special_tokens", None)
    options |= {"model_max_length": cut.length, "padding_side": "right", "model_input_names": _inputs(family)}
    (folder / "tokenizer_config.json").write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")


def write_answers(
    cut: Any, answers: Tokenizer | None, texts: Tokenizer | None, family: Family, config: dict[str, Any]
) -> None:
    """Writes into `config` the ids by which the texts that a decoder writes begin and end.

    cut: the last step of their chain, built. texts: the tokenizer of those that are read, which is the folder's.

    Raises UserError where answers aren't cut by that same tokenizer, or nothing begins and ends them.
    """
    assert family.frame is not None
    assert family.text_config is not None
    inner, (begin, end) = config[family.text_config], family.frame
    if answers is None or texts is None:
        inner |= {end: cut.tokenizer.eos} if cut.tokenizer.eos is not None else {}
        return
    if not (type(cut) is Tokenize and cut.bos and cut.eos):
        raise UserError(f"a {family.architecture} begins and ends each answer, and this model's are cut by {cut}")
    both = [json.loads(one.model) if isinstance(one, SubwordTokenizer) else {} for one in (texts, answers)]
    if not all(both) or any(both[0].get(part) != both[1].get(part) for part in ("model", "normalizer")):
        raise UserError(
            f"a {family.architecture} cuts questions and answers by one tokenizer, a tokenizer.json, and this model "
            f"has two: {texts!r:.60} and {answers!r:.60}"
        )
    inner |= {begin: answers.bos, end: answers.eos}


def _framed_as(cut: Tokenize, tokenizer: Tokenizer) -> bytes:
    """The `tokenizer.json` that puts around a text what the step does that cuts it."""
    ends = (cut.bos, tokenizer.bos), (cut.eos, tokenizer.eos)
    if all(used == (id is not None) for used, id in ends):
        return tokenizer.model
    names = {id: name for name, id in pieces_of(tokenizer.model).items()}
    begin, end = (names[id] if used and id is not None else None for used, id in ends)
    return framed(tokenizer.model, begin, end)


def _place_held(cut: Any, family: Family) -> int:
    """The id that stands where pictures' tokens do, by which theirs finds these places."""
    if (held := getattr(cut, "placeholder", None)) is None:
        raise UserError(
            f"a {family.architecture} finds a picture's places by an id that no text has, and this model's texts are "
            f"cut by {type(cut).__name__}: give TokenizeConversation(placeholder=...) such an id"
        )
    return held


def _named_tags(cut: Any, count: int) -> tuple[str, ...]:
    """The names of a model's `count` classes, which the step that cuts its texts has."""
    names = getattr(cut, "classes", ())
    if len(names) != count:
        raise UserError(
            f"the model tags words by {count} classes, and the chain of its texts names {len(names)}, {names!r:.60}: "
            "give TokenizeTagged as many as TagTokens has"
        )
    return names


def _inputs(family: Family) -> list[str]:
    """The model's inputs: SigLIP sees its padding, and only BERT has types."""
    if family.model_type.startswith("siglip"):
        return ["input_ids"]
    return ["input_ids", *(["token_type_ids"] if family.model_type == "bert" else []), "attention_mask"]


def _special(tokenizer: Tokenizer, pad: int | None) -> dict[str, Any]:
    """The entries of tokenizer_config.json for a `tokenizer.json`'s special pieces."""
    names = {id: name for name, id in pieces_of(tokenizer.model).items()}
    model = json.loads(tokenizer.model)["model"]
    unk = model.get("unk_id", pieces_of(tokenizer.model).get(model.get("unk_token") or ""))
    ids = {"pad": pad, "bos": tokenizer.bos, "eos": tokenizer.eos, "unk": unk, "mask": mask_of(tokenizer)}
    told: dict[str, Any] = {f"{kind}_token": names[id] for kind, id in ids.items() if id is not None}
    return told | ({"split_special_tokens": True} if names_as_text(tokenizer.model) else {})
