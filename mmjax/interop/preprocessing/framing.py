"""The pieces that a `tokenizer.json` puts before and behind a text, changed; its post-processor says them."""

import json
from typing import Any

from mmjax.data.tokenizers.tokenizer_json import written


def framed(model: bytes, begin: str | None, end: str | None) -> bytes:
    """A `tokenizer.json` that puts the piece `begin` before a text, and `end` behind it; None: nothing.

    Both are pieces that it has. Of two texts the second begins and ends as the first.
    """
    settings = json.loads(model)
    added = {piece["content"]: piece["id"] for piece in settings.get("added_tokens") or ()}
    vocab = settings["model"]["vocab"]
    ids = {**(vocab if isinstance(vocab, dict) else {piece: i for i, (piece, *_) in enumerate(vocab)}), **added}

    def around(text: str, kind: int) -> list[dict[str, Any]]:
        before, behind = ([{"SpecialToken": {"id": name, "type_id": kind}}] if name else [] for name in (begin, end))
        return [*before, {"Sequence": {"id": text, "type_id": kind}}, *behind]

    special = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (begin, end) if name}
    processor = {"type": "TemplateProcessing", "single": around("A", 0), "pair": around("A", 0) + around("B", 0)}
    return written({**settings, "post_processor": {**processor, "special_tokens": special}})
