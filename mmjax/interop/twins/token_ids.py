"""Checks that texts become the same ids in another project: by its own tokenizer, of what was written.

Ordinary texts, and texts with every special piece's name and with the piece that fills up: what is special in one place
and not in another loses or turns words without a complaint.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.text import Tokenize, keep_empty
from mmjax.data.transforms.values import Labelled
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.interop.bundle import Bundle
from mmjax.interop.open_clip.preprocessing import pieces_of
from mmjax.interop.parts import text_reader
from mmjax.interop.projects import Project
from mmjax.interop.twins import twin as near
from mmjax.interop.twins.twin import Twin
from mmjax.interop.twins.usage import Ids

SHOWN = 4  # texts in a message, before it only counts
ORDINARY = (
    *("a photo of a cat", "Hello World!!", "! !! wow!", "", "It's 3 o'clock, isn't it?", "  two   blanks\tand a tab "),
    *("naïve Café ÅÄÖ ﬁ", "ΟΔΟΣ", "日本語 😀😀", "a_b-c (d) #5", "cat &amp; dog", "café Ã©", "“quoted”"),
    " ".join(["a long text that is cut off"] * 40),
)
NAMES = ("<pad>", "<s>", "</s>", "<unk>", "<mask>", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
NAMES += ("<|startoftext|>", "<|endoftext|>", "<start_of_text>", "<end_of_text>")


def unlike(ours: Bundle, twin: Twin, again: Bundle, folder: Path, project: Project) -> list[str]:
    """Returns what differs, a line or none; names of special pieces that a note tells of already are left out.

    ours: the model as it is.  again: what is read back from `folder`.
    """
    tokenizer = ours.tokenizers.get("text")
    if tokenizer is None or "text" not in again.tokenizers:
        return []
    named = texts_with(special_ids(tokenizer) + special_ids(twin.bundle.tokenizers["text"])) if twin.names else []
    texts = [*ORDINARY, *named]
    try:
        theirs = _theirs(project, folder, texts) or _chained(again, texts)
    except UserError:
        raise
    except Exception as error:  # whatever their library raises on a folder that it should open
        raise UserError(f"{folder}: the project's own library can't open the tokenizer: {error}") from error
    mine, tower = _chained(ours, texts), build(text_reader(ours.config))
    padded, causal = (getattr(tower, name, default) for name, default in (("attend_padding", False), ("causal", True)))
    places = dict(zip(twin.swap, twin.swap[::-1], strict=True))
    other = []
    for text, (ids, count), (found, real) in zip(texts, mine, theirs, strict=True):
        seen = len(ids) if padded else count
        same = [places.get(i, i) for i in ids[:seen]] == list(found[:seen])
        if not same or (not causal and real is not None and not padded and real != count):
            other.append(text if len(text) < 40 else f"{text[:40]}…")
    if not other:
        return []
    more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
    told = ", ".join(map(repr, other[:SHOWN]))
    return [f"texts: of {len(texts)} that were tried {len(other)} have other ids there: {told}{more}"]


def special_ids(tokenizer: Tokenizer) -> list[str]:
    """The names of a tokenizer's special pieces, and that of the piece that fills up."""
    ids = {tokenizer.pad, tokenizer.bos, tokenizer.eos} - {None}
    if isinstance(tokenizer, PieceTokenizer):
        found = [tokenizer.piece(id) for id in ids if id is not None]
        return found + [name for name in NAMES if tokenizer.id_of(name) is not None]
    names = {id: name for name, id in pieces_of(tokenizer.model).items()}
    added = [piece["content"] for piece in json.loads(tokenizer.model).get("added_tokens") or ()]
    return [names[id] for id in ids if id in names] + added


def texts_with(names: Sequence[str]) -> list[str]:
    """Texts that hold them: alone, within words, at the end, and twice; but for those of `piece_json`, which are to be
    no names in texts."""
    plain = [name for name in dict.fromkeys(names) if name[1:2] != " "]
    return [text.replace("?", name) for name in plain for text in ("?", "a cat ? and a dog", "Wow ??", "cat?")]


def _chained(bundle: Bundle, texts: Sequence[str]) -> list[tuple[list[int], int]]:
    """The ids of a chain of ours, and how many of them are real."""
    chain = keep_empty(tuple(_bound(t, bundle.tokenizers["text"]) for t in near.chain_of(bundle, "text")))
    rows = []
    for text in texts:
        value: Any = text
        for transform in chain:
            value = transform(value, None)
        value = value.value if isinstance(value, Labelled) else value
        rows.append((value.values.tolist(), int(np.sum(value.mask))))
    return rows


def _bound(transform: Transform, tokenizer: Tokenizer) -> Transform:
    return replace(transform, tokenizer=tokenizer) if isinstance(transform, Tokenize) else transform


def _theirs(project: Project, folder: Path, texts: Sequence[str]) -> Ids | None:
    """By the project's library; None where it isn't installed, or nothing is known of one."""
    if (known := project.used_by()) is None:
        return None
    for library in known.NEEDS:
        try:
            import_module(library)
        except Exception:  # not there, or not in working order: what their own imports raise
            return None
    return known.ids(folder, list(texts))
