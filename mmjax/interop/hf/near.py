"""Restates what of a model Hugging Face says otherwise, to the same effect or nearly: heads, pictures, texts."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import written
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.conversation import TokenizeConversation
from mmjax.data.transforms.prefixed import TokenizePrefixed
from mmjax.data.transforms.tagged import TokenizeTagged
from mmjax.data.transforms.text import Canonicalize, CleanText, PickCaption, Tokenize
from mmjax.data.transforms.unended import TokenizeUnended
from mmjax.errors import UserError
from mmjax.experiment.graph import build, target
from mmjax.interop.bundle import Bundle
from mmjax.interop.hf.family import Family
from mmjax.interop.hf.tokenizer import HIGHEST, SIGLIP
from mmjax.interop.open_clip.preprocessing import pieces_of
from mmjax.interop.parts import text_reader
from mmjax.interop.preprocessing.image import from_hugging_face, to_hugging_face
from mmjax.interop.preprocessing.piece_json import cleaned, piece_json
from mmjax.interop.twins import twin as near
from mmjax.interop.twins.twin import Twin
from mmjax.models.towers.vit import ViT
from mmjax.objectives.masked import MaskedImage, MaskedText
from mmjax.objectives.next_sentence import NextSentence

NEXT = "cls.seq_relationship"
CLEANED = "texts: not cleaned there (wrongly decoded characters, HTML entities, blanks), as CleanText does here"


# --- heads ---


def heads(bundle: Bundle) -> Twin:
    """The twin with BERT's heads as theirs are, and MAE's encoder, which has only tokens there, without its pooling."""
    config, kinds = bundle.config, {name: target(o) for name, o in bundle.config.objectives.items()}
    tied = [name for name, kind in kinds.items() if kind is MaskedText and config.objectives[name].tied]
    following = [name for name, kind in kinds.items() if kind is NextSentence]
    differs: list[str] = []
    if list(config.towers) == ["text"] and MaskedText in kinds.values() and (tied or following):
        bundle = near.with_config(bundle)
        for name in tied:
            bundle = _untied(bundle, name)
        for name in following:
            bundle = _beside(bundle, name)
    image = config.towers.get("image")
    if list(config.towers) == ["image"] and list(kinds.values()) == [MaskedImage] and target(image) is ViT:
        pooling = image.pooling
        if pooling != "cls" and image.embed_dim is None and build(image).cls:
            bundle = near.with_config(bundle)
            bundle.config.towers["image"].pooling = "cls"
            differs.append(f"towers.image.pooling: {pooling!r} here; there it gives tokens, and mmjax reads 'cls'")
    return Twin(bundle, "", tuple(differs))


def _untied(bundle: Bundle, name: str) -> Bundle:
    """A copy of the table in the head, which theirs ties again where they are the same."""
    bundle.config.objectives[name].tied = False
    params = dict(bundle.variables["params"])
    head = dict(params[f"objectives_{name}"])
    table = np.asarray(params["towers_text"]["token"]["embedding"])
    head["words"] = {"kernel": np.ascontiguousarray(table.T), "bias": head.pop("bias")}
    params[f"objectives_{name}"] = head
    return replace(bundle, variables={**bundle.variables, "params": params})


def _beside(bundle: Bundle, name: str) -> Bundle:
    """The next-sentence head as what is kept beside the model."""
    del bundle.config.objectives[name]
    params = dict(bundle.variables["params"])
    head = params.pop(f"objectives_{name}")["classify"]
    extras = {f"{NEXT}.weight": np.ascontiguousarray(np.transpose(head["kernel"])), f"{NEXT}.bias": head["bias"]}
    variables = {**bundle.variables, "params": params}
    return replace(bundle, variables=variables, extras={**bundle.extras, **extras})


# --- inputs ---


def inputs(twin: Twin, family: Family) -> Twin:
    """The twin with chains, and a tokenizer, that can be expressed there.

    Raises:
        UserError: they can't, not even nearly.
    """
    towers = twin.bundle.config.towers
    twin = replace(twin, kind=family.architecture)
    if "image" in towers:
        twin = near.picture_twin(twin, to_hugging_face, from_hugging_face)
    if text_reader(twin.bundle.config) is not None and "text" in twin.bundle.tokenizers:
        twin = texts(twin, family)
    if (entry := family.answers) is not None and entry in twin.bundle.tokenizers:
        twin = answers(twin, entry)
    return twin


def answers(twin: Twin, entry: str) -> Twin:
    """The part of the texts that a decoder writes beside those that are read."""
    pick, cleaning, cut = parted(near.chain_of(twin.bundle, entry))
    twin, tokenizer = said(twin, twin.bundle.tokenizers[entry], cleaning, cut, attend_padding=False)
    bundle = near.with_config(twin.bundle, **{entry: (*pick, cut_again(cut, tokenizer.vocab_size))})
    return replace(twin, bundle=replace(bundle, tokenizers={**bundle.tokenizers, entry: tokenizer}))


def texts(twin: Twin, family: Family) -> Twin:
    """The text's part."""
    reader, tokenizer = build(text_reader(twin.bundle.config)), twin.bundle.tokenizers["text"]
    chain = near.chain_of(twin.bundle, "text")
    pick, cleaning, cut = parted(chain)
    if family.finds_end and not cut.eos:
        raise UserError(f"a {family.architecture} looks for the end of a text, and this model's are cut by {cut}")
    if family.frame is not None and family.answers is None and not (cut.bos and cut.eos):
        raise UserError(f"a {family.architecture} begins and ends each text, and this model's are cut by {cut}")
    if isinstance(cut, TokenizeUnended):
        raise UserError(f"a tokenizer of transformers' doesn't take out what ends a text, as this model's does: {cut}")
    siglip = family.model_type.startswith("siglip") and not cut.bos and cut.eos
    if isinstance(tokenizer, PieceTokenizer) and siglip and cleaning in (SIGLIP, (Canonicalize("", cut.names),)):
        return twin if cut.names else names_there(twin)
    highest = tokenizer.vocab_size - 1
    swap = (HIGHEST, highest) if family.finds_end and tokenizer.eos == HIGHEST < highest else (0, 0)
    twin, tokenizer = said(twin, tokenizer, cleaning, cut, getattr(reader, "attend_padding", False), swap)
    cut = cut_again(cut, tokenizer.vocab_size)
    bundle = near.with_config(twin.bundle, text=(*pick, cut))
    bundle = replace(bundle, tokenizers={**bundle.tokenizers, "text": tokenizer})
    if swap == (0, 0):
        return replace(twin, bundle=bundle)
    bundle = replace(bundle, variables=near.swapped(bundle.variables, swap))
    note = (
        f"ids of words: {swap[0]} (the end of a text) and {swap[1]} have changed places, in the tokenizer and in the "
        f"table of words: to a {family.architecture} the id {HIGHEST} means another thing"
    )
    return replace(twin, bundle=bundle, swap=swap).told(notes=[note])


def names_there(twin: Twin) -> Twin:
    """The twin with the note that their tokenizer knows special pieces by their names in a text."""
    return replace(twin, names=False).told(
        notes=["texts: names of special pieces (</s>) within a text are ids there, and text here"]
    )


def cut_again(cut: Tokenize, vocab: int) -> Tokenize:
    """A step that cuts texts in the same way by a `tokenizer.json`, in evaluation."""
    # with what else they say
    if isinstance(cut, TokenizeUnended | TokenizeTagged | TokenizeConversation | TokenizePrefixed):
        return replace(cut, tokenizer=Subwords(vocab), pad=None, empty="keep", names=())
    return Tokenize(Subwords(vocab), cut.length, bos=cut.bos, eos=cut.eos, empty="keep")


def parted(chain: Sequence[Transform]) -> tuple[tuple[PickCaption, ...], tuple[Transform, ...], Tokenize]:
    """The steps of a chain that pick a caption, clean it, and cut it.

    Raises:
        UserError: it isn't made so.
    """
    pick = tuple(transform for transform in chain if isinstance(transform, PickCaption))
    cleaning = tuple(t for t in chain if not isinstance(t, PickCaption | Tokenize))
    cuts = [transform for transform in chain if isinstance(transform, Tokenize)]
    if len(cuts) != 1 or chain[-1] is not cuts[0]:
        raise UserError(f"the chain of texts ends in one Tokenize in other projects, this one is {tuple(chain)}")
    return pick, cleaning, cuts[0]


def said(
    twin: Twin,
    tokenizer: Tokenizer,
    cleaning: Sequence[Transform],
    cut: Tokenize,
    attend_padding: bool,
    swap: tuple[int, int] = (0, 0),
) -> tuple[Twin, SubwordTokenizer]:
    """A `tokenizer.json` that does all of a chain.

    Raises:
        UserError: it can't, not even nearly.
    """
    if unsaid := [transform for transform in cleaning if isinstance(transform, CleanText)]:
        twin = twin.told([CLEANED])
        cleaning = [transform for transform in cleaning if transform not in unsaid]
    pad = tokenizer.pad if cut.pad is None else cut.pad
    if isinstance(tokenizer, PieceTokenizer):
        pad = tokenizer.eos if pad is None else pad
        if pad is None:
            raise UserError("the tokenizer has no piece that fills up or ends a text, and other projects need one")
        pad = dict(zip(swap, swap[::-1], strict=True)).get(pad, pad)
        return twin, SubwordTokenizer(piece_json(tokenizer, cleaning, bos=cut.bos, eos=cut.eos, pad=pad, swap=swap))
    model = cleaned(tokenizer.model, cleaning)
    return twin, SubwordTokenizer(_filled(model, tokenizer, pad, attend_padding))


def _filled(model: bytes, tokenizer: Tokenizer, pad: int | None, attend_padding: bool) -> bytes:
    """A `tokenizer.json` that fills up with `pad`; with the end token, where texts can hold that piece.

    There the piece that fills up is looked for in texts: OpenAI's, which is "!", would vanish from them. A tower that
    doesn't see padding doesn't care.

    Raises:
        UserError: it does.
    """
    settings = json.loads(model)
    names = {id: name for name, id in pieces_of(model).items()}
    special = {added["id"] for added in settings.get("added_tokens") or () if added.get("special")}
    if pad is not None and pad not in special:
        if attend_padding or tokenizer.eos is None:
            raise UserError(
                f"texts are filled up with the piece {names.get(pad)!r} ({pad}), which texts hold too: other projects "
                "would take it out of them, and this tower attends to what fills up"
            )
        pad = tokenizer.eos
    stands = settings.get("padding") or {}
    if pad is None or (stands.get("pad_id"), stands.get("pad_token")) == (pad, names[pad]):
        return model
    how = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0}
    return written({**settings, "padding": {**how, "pad_id": pad, "pad_token": names[pad]}})
