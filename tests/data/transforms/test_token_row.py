"""Rows of a corpus at the end of a chain: of another tokenizer, too long, and strings of a user's."""

from pathlib import Path

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.transforms.token_row import ReadRow, StreamRow, tokenizer_key
from mmjax.errors import UserError


def test_a_row_is_that_of_the_chains_tokenizer_and_length(tmp_path: Path) -> None:
    own, other = (PieceTokenizer(SentencePiece(40).train([text])) for text in ("a red cat", "a blue dog"))
    row = StreamRow(np.array([2, 7, 8], np.int32), 5, tokenizer_key(own))
    (ids, mask), labels = ReadRow(own, 5)(row, None)
    assert (ids.tolist(), mask.tolist(), int(labels["bytes"])) == ([2, 7, 8, 0, 0], [True] * 3 + [False] * 2, 5)
    with pytest.raises(UserError, match="cut by another tokenizer"):
        ReadRow(other, 5)(row, None)
    with pytest.raises(UserError, match="a row of TokenRows has 3 tokens"):
        ReadRow(own, 2)(row, None)


def test_a_string_stands_behind_the_end_token() -> None:
    own = PieceTokenizer(SentencePiece(40).train(["a red cat"]))
    (ids, mask), labels = ReadRow(own, 30).by_hand(True)("a red cat", None)
    assert ids[mask].tolist() == [own.eos, *own.encode("a red cat")]
    assert int(labels["bytes"]) == len("a red cat")
    short, labels = ReadRow(own, 4)("a red cat", None)
    assert short.values.tolist() == [own.eos, *own.encode("a red cat")[:3]]  # type: ignore[union-attr]
    assert 0 < int(labels["bytes"]) < 9
    for value in (3, None, "\ud800"):
        with pytest.raises(BadExample, match="no text"):
            ReadRow(own, 9)(value, None)
