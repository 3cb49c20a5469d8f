"""Tokenizers in the `tokenizer.json` format of the `tokenizers` library: CLIP's byte-level BPE, BERT's WordPiece, ...

They are other projects': none is trained here. `tokenizer_json.py` makes the file where a project ships its vocabulary
in another form. Reading one runs no code: it is JSON that the library's parser reads.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec, sizes_of
from mmjax.data.tokenizers.gpt_json import with_begin, with_end
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json
from mmjax.errors import UserError
from mmjax.runtime.files import json_text


class SubwordTokenizer(Tokenizer):
    """A tokenizer from a `tokenizer.json`. bos and eos are the ids that its post-processor adds, pad that of its
    padding.

    Names of special pieces in a text become their ids, as in the projects that these tokenizers come from.
    """

    SUFFIX = ".json"

    def __init__(self, model: bytes):
        self.model = model
        try:
            settings = json_text.parse(model)
            self._backend = _library().Tokenizer.from_str(model.decode())
        except UserError:
            raise
        except Exception as error:  # the library raises a plain Exception
            raise UserError(f"these {len(model)} bytes are not a tokenizer.json: {error}") from error
        if settings["model"].get("dropout"):
            raise UserError("the tokenizer.json has a dropout: it would cut the same text in other ways each time")
        self.pad = (self._backend.padding or {}).get("pad_id")
        self.bos, self.eos = _ends(settings.get("post_processor"))
        self.separates = _separates(settings.get("post_processor"), self.eos)
        self._backend.no_padding()
        self._backend.no_truncation()
        self._word_end = settings["model"].get("end_of_word_suffix")
        parts = {name: settings.get(name) for name in ("normalizer", "pre_tokenizer")}
        self._adds_space = {name: _spaceless(part) for name, part in parts.items()} != parts
        self.vocab_size = 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str) -> list[int]:
        text.encode()  # raises UnicodeError for half a surrogate pair; the library would say that it is no string
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_after(self, text: str) -> list[int]:
        if not self._adds_space:
            return self.encode(text)
        text.encode()
        return self._spaceless.encode(text, add_special_tokens=False).ids

    def encode_sized(self, text: str) -> tuple[list[int], list[int]]:
        before = [0, *accumulate(len(letter.encode()) for letter in text)]
        found = self._backend.encode(text, add_special_tokens=False)
        return found.ids, sizes_of([before[end] for _, end in found.offsets], before[-1])

    @cached_property
    def _spaceless(self) -> Any:
        """The tokenizer without a space before a text."""
        settings = json_text.parse(self.model)
        changed = {name: _spaceless(settings.get(name)) for name in ("normalizer", "pre_tokenizer")}
        return _library().Tokenizer.from_str(json.dumps(settings | changed | {"padding": None, "truncation": None}))

    def id_of(self, piece: str) -> int | None:
        return self._backend.token_to_id(piece)

    def decode(self, ids: Iterable[int]) -> str:
        text = self._backend.decode([int(i) for i in ids], skip_special_tokens=True)
        return text.replace(self._word_end, " ").strip() if self._word_end else text


@dataclass(frozen=True)
class Subwords(TokenizerSpec):
    """Describes a tokenizer of another project that isn't SentencePiece. Needs `pip install "mmjax[interop]"`.

    `path` is a `tokenizer.json`, a `vocab.json` with `merges.txt` beside it (the BPE of CLIP, GPT-2 or GPT-1), a
    `vocab.txt` (BERT's WordPiece), open_clip's `bpe_simple_vocab_16e6.txt.gz`, or a folder that holds one of the first
    three. It is read once: a workdir and an exported folder keep the model, and take it from there. With None they
    always do.
    `vocab_size` is the size of the text tower's table. `end` is the special piece that ends texts, where a
    `tokenizer.json` doesn't tell: `<|endoftext|>` of GPT-2's (`gpt_json.with_end`). `begin` is the special piece that
    begins them in the place of another one, and may be one more: BLIP's `[DEC]` (`gpt_json.with_begin`).
    """

    vocab_size: int
    path: str | None = None
    end: str | None = None
    begin: str | None = None

    def load(self, captions: Iterable[str] | None, folder: Path) -> Tokenizer:
        """The tokenizer in `path`.

        Raises UserError for a missing `path`, or where it is no tokenizer or doesn't fit `vocab_size`.
        """
        del captions, folder
        if self.path is None:
            raise UserError(
                f"{self} takes its model from the tokenizers of a workdir or an exported folder, and there is none: "
                "give the path of a tokenizer.json"
            )
        if not Path(self.path).exists():
            raise UserError(
                f"Subwords(path={self.path!r}): there is no such file or folder. It is to be a tokenizer.json, a "
                "vocab.json, a vocab.txt, or a folder with one of them: `hf download OWNER/MODEL --local-dir FOLDER` "
                "gets a published one"
            )
        model = tokenizer_json(Path(self.path))
        model = model if self.end is None else with_end(model, self.end)
        return self.check(SubwordTokenizer(model if self.begin is None else with_begin(model, self.begin)))


def _spaceless(part: Any) -> Any:
    """A part of a tokenizer.json's settings, so that it puts no space before a text."""
    if not isinstance(part, dict):
        return part
    for several in ("normalizers", "pretokenizers"):
        if several in part:
            kept = [_spaceless(one) for one in part[several]]
            return part | {several: [one for one in kept if one is not None]}
    never = {"Prepend": None, "Metaspace": part | {"prepend_scheme": "never"}}
    never["ByteLevel"] = part | {"add_prefix_space": False}
    return never.get(part.get("type", ""), part)


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError('this tokenizer needs the library tokenizers: pip install "mmjax[interop]"') from error
    return tokenizers


def _ends(processor: dict[str, Any] | None) -> tuple[int | None, int | None]:
    """The ids that a post-processor adds before and behind a text."""
    kind = (processor or {}).get("type")
    if processor is None or kind == "ByteLevel":
        return None, None
    if kind in ("RobertaProcessing", "BertProcessing"):
        return processor["cls"][1], processor["sep"][1]
    if kind == "Sequence":
        found = [_ends(inner) for inner in processor["processors"]]
        before, behind = ([ids[side] for ids in found if ids[side] is not None] for side in (0, 1))
    elif kind == "TemplateProcessing":
        single, ids = processor["single"], processor["special_tokens"]
        text = next(i for i, item in enumerate(single) if "Sequence" in item)
        sides = single[:text], single[text + 1 :]
        before, behind = ([i for item in side for i in ids[item["SpecialToken"]["id"]]["ids"]] for side in sides)
    else:
        raise UserError(f"the tokenizer.json has a post-processor {kind!r}, of which it isn't known what it adds")
    if max(len(before), len(behind)) > 1:
        raise UserError(f"the tokenizer.json puts {before} before and {behind} behind a text: one each can be told")
    return before[0] if before else None, behind[0] if behind else None


def _separates(processor: dict[str, Any] | None, eos: int | None) -> bool:
    """True if a post-processor puts `eos` between two texts too, and gives them different types."""
    kind = (processor or {}).get("type")
    if processor is None or kind == "BertProcessing":
        return processor is not None
    if kind == "Sequence":
        return any(_separates(inner, eos) for inner in processor["processors"])
    if kind != "TemplateProcessing":
        return False
    pair, ids = processor["pair"], processor["special_tokens"]
    texts = [place for place, item in enumerate(pair) if "Sequence" in item]
    if len(texts) != 2 or len({pair[place]["Sequence"]["type_id"] for place in texts}) == 1:
        return False
    return any(eos in ids[item["SpecialToken"]["id"]]["ids"] for item in pair[texts[0] + 1 : texts[1]])
