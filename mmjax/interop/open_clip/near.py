"""Restates what of a model open_clip says otherwise, to the same effect or nearly: pictures and texts."""

from dataclasses import replace

from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.data.transforms.text import Canonicalize, Tokenize
from mmjax.experiment.graph import build
from mmjax.interop.hf.near import cut_again, names_there, parted, said
from mmjax.interop.open_clip.preprocessing import is_clip
from mmjax.interop.preprocessing.image import from_open_clip, to_open_clip
from mmjax.interop.preprocessing.text import OPEN_CLIP_CLEANING
from mmjax.interop.twins import twin as near
from mmjax.interop.twins.twin import Twin


def inputs(twin: Twin) -> Twin:
    """The twin with chains, and a tokenizer, that can be expressed there.

    Raises:
        UserError: they can't, not even nearly.
    """
    twin = near.picture_twin(twin, to_open_clip, from_open_clip)
    return texts(twin) if "text" in twin.bundle.tokenizers else twin


def texts(twin: Twin) -> Twin:
    """The text's part: one of open_clip's ways to clean, and OpenAI's tokenizer or a file that transformers opens.

    A chain that cleans in another way is the file's own work there, after what open_clip does to any text.
    """
    tower, tokenizer = build(twin.bundle.config.towers["text"]), twin.bundle.tokenizers["text"]
    pick, cleaning, cut = parted(near.chain_of(twin.bundle, "text"))
    known = cleaning in OPEN_CLIP_CLEANING.values()
    if known and is_clip(tokenizer):
        return twin
    if known and isinstance(tokenizer, PieceTokenizer) and _as_siglip(tokenizer, cut):
        if any(isinstance(transform, Canonicalize) for transform in cleaning):  # no name outlives it
            return twin
        return names_there(twin)
    if is_clip(tokenizer):  # open_clip takes its own, and what goes with it
        theirs = OPEN_CLIP_CLEANING["lower"]
        twin = twin.told([f"texts: cleaned by {theirs} there, by {cleaning or 'nothing'} here"])
        return replace(twin, bundle=near.with_config(twin.bundle, text=(*pick, *theirs, cut)))
    theirs = OPEN_CLIP_CLEANING["whitespace"]
    if cleaning[:1] == theirs:
        cleaning = cleaning[1:]
    else:
        twin = twin.told(
            [f"texts: {theirs[0]} there before anything else, which mends and unescapes them; not so here"]
        )
    twin, told = said(twin, tokenizer, cleaning, cut, tower.attend_padding)
    again = cut_again(cut, told.vocab_size)
    bundle = near.with_config(twin.bundle, text=(*pick, *theirs, again))
    return replace(twin, bundle=replace(bundle, tokenizers={**bundle.tokenizers, "text": told}))


def _as_siglip(tokenizer: PieceTokenizer, cut: Tokenize) -> bool:
    """True if `spiece.model` alone decides the ids: open_clip reads it as SigLIP's."""
    end = tokenizer.id_of("</s>")
    return end is not None and tokenizer.eos == end == cut.pad and cut.eos and not cut.bos
