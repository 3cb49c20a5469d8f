"""A corpus as one stream of tokens on the disk: cut once, and read from there by every process."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mmjax.data.sources.contract import Records
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.transforms.token_row import end_token, tokenizer_key
from mmjax.errors import UserError
from mmjax.runtime.files import output

VERSION = 1  # of what the files hold
SIZES = np.dtype("<u4")

log = logging.getLogger(__name__)


class TokenStream(NamedTuple):
    """The tokens of a corpus, and the bytes of text that each stands for, both read from the disk as they are used."""

    ids: Int[np.ndarray, " tokens"]
    sizes: Int[np.ndarray, " tokens"]


def stored_stream(records: Records, column: str, tokenizer: Tokenizer, folder: Path) -> tuple[Path, Path]:
    """Returns the files of the stream of all documents in a column: their ids, and their sizes. Cuts them where the
    folder lacks these files. The stream begins with the end token, and each document ends in it.

    The files' names tell the documents and the tokenizer, by digests of both. They take 6 bytes a token, 8 with a
    vocabulary of more than 65,536.

    Raises UserError where the tokenizer has no end token, or a document is no text.
    """
    key = _key(records, column, tokenizer)
    ids, sizes = (folder / f"{key}.{kind}.{dtype.name}" for kind, dtype in _dtypes(tokenizer).items())
    if ids.is_file() and sizes.is_file():
        return ids, sizes
    log.info("%d documents are cut into tokens, once: they are kept in %s", len(records), folder)
    with (
        output.replacing(ids) as part_ids,
        output.replacing(sizes) as part_sizes,
        part_ids.open("wb") as to_ids,
        part_sizes.open("wb") as to_sizes,
    ):
        for found in _documents(records, column, tokenizer):
            found.ids.astype(_dtypes(tokenizer)["ids"]).tofile(to_ids)
            found.sizes.astype(SIZES).tofile(to_sizes)
    return ids, sizes


def opened_stream(files: tuple[Path, Path]) -> TokenStream:
    """The stream in the files of `stored_stream`."""
    return TokenStream(*(np.memmap(file, np.dtype(file.suffix[1:]), "r") for file in files))


def _documents(records: Records, column: str, tokenizer: Tokenizer) -> Iterator[TokenStream]:
    """The end token, and then the tokens of each document with the one that ends it."""
    end = end_token(tokenizer, "TokenRows")
    yield TokenStream(np.array([end]), np.array([0]))
    for index in range(len(records)):
        text = records[index][column]
        if text is None:
            continue
        ids, sizes = _sized(tokenizer, str(text) if hasattr(text, "sentences") else text, records, index)
        yield TokenStream(np.array([*ids, end]), np.array([*sizes, 0]))


def _sized(tokenizer: Tokenizer, text: Any, records: Records, index: int) -> tuple[list[int], list[int]]:
    try:
        if isinstance(text, str):
            return tokenizer.encode_sized(text)
        reason: object = f"it is {text!r:.40}"
    except (UnicodeError, RuntimeError) as error:
        reason = error
    raise UserError(f"the document {records[index]['id']!r} is no text: {reason}; take it out of the data, or mend it")


def _dtypes(tokenizer: Tokenizer) -> dict[str, np.dtype]:
    return {"ids": np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4"), "sizes": SIZES}


def _key(records: Records, column: str, tokenizer: Tokenizer) -> str:
    """The digest of the documents and the tokenizer. Documents whose source has no digest of its own are all read."""
    known = records.fingerprint((column,))
    if column not in known:
        digest = hashlib.blake2b(digest_size=16)
        for index in range(len(records)):
            digest.update(json.dumps(str(records[index][column])).encode() + b"\n")
        known = known | {column: digest.hexdigest()}
    told = json.dumps([VERSION, tokenizer_key(tokenizer), known], sort_keys=True, default=os.fspath)
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()
