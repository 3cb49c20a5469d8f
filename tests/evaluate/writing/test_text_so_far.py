"""The text of ids: in whole characters, and cut before the first string that stops it, wherever its tokens part."""

import pytest

from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.errors import UserError
from mmjax.evaluate.writing.text_so_far import TextSoFar, check_stop


class Bytes(Tokenizer):
    """Each byte is an id; 256 begins a text, and is none of it."""

    def __init__(self):
        self.model, self.vocab_size, self.pad, self.bos, self.eos = b"", 257, None, 256, None

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(i for i in ids if i < 256).decode(errors="replace")


def streamed(text, stop=(), by=1, prompt=""):
    so_far, pieces = TextSoFar(Bytes(), [256, *prompt.encode()], stop), []
    ids = list(text.encode())
    for start in range(0, len(ids), by):
        stopped = so_far.add(ids[start : start + by])
        pieces.append(so_far.piece(stopped or start + by >= len(ids)))
        if stopped:
            break
    assert "".join(pieces) == so_far.text
    return pieces, so_far


def test_a_character_of_several_bytes_comes_whole():
    pieces, _ = streamed("a☃é🙂!")
    assert pieces == ["a", "", "", "☃", "", "é", "", "", "", "🙂", "!"]


def test_half_a_character_at_the_end_is_shown_as_what_it_is():
    so_far = TextSoFar(Bytes())
    so_far.add([97, 0xE2, 0x98])
    assert so_far.piece() == "a"
    assert so_far.piece(last=True) == "\ufffd"


@pytest.mark.parametrize("by", [1, 2, 3, 5, 100])
def test_a_text_is_cut_before_the_first_stop_string_and_shows_nothing_of_it(by):
    pieces, so_far = streamed("one, two; three and two more", ("two;", " th", "more"), by)
    assert so_far.text == "one, "
    assert so_far.stopped
    assert so_far.ids == list(b"one, two;")  # up to the id that completed it
    assert pieces[-1] != "one, two"


def test_what_only_may_begin_a_stop_string_is_kept_back_until_it_does_not():
    pieces, so_far = streamed("the then", ("them", "hex"))
    assert pieces == ["", "", "", "the ", "", "", "", "then"]
    assert not so_far.stopped


def test_the_space_behind_a_prompt_stays():
    pieces = PieceTokenizer(SentencePiece(40).train(["a red dog rolls", "the dog and a cat"] * 20))
    prompt, whole = pieces.encode("a red"), pieces.encode("a red dog")
    assert whole[: len(prompt)] == prompt
    so_far = TextSoFar(pieces, prompt)
    so_far.add(whole[len(prompt) :])
    assert so_far.text == " dog"
    alone = TextSoFar(pieces, [int(pieces.bos or 0)])
    alone.add(whole)
    assert alone.text == "a red dog"


def test_stop_strings_that_can_never_be_written_are_refused():
    pieces = PieceTokenizer(SentencePiece(40).train(["a red dog rolls", "the dog and a cat"] * 20))
    check_stop(["dog", " dog", "g and", " "], pieces)
    for never in ("Dog", "\n", "ß", "  "):
        with pytest.raises(UserError, match="is never written: of it the model's tokenizer makes"):
            check_stop(["dog", never], pieces)
    with pytest.raises(UserError, match="stop='': a text stops before a string of one character or more"):
        check_stop([""], pieces)
    with pytest.raises(UserError, match="is no text"):
        check_stop(["\ud800"], Bytes())
