import pytest

from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import Subwords
from mmjax.errors import UserError


class Two(Tokenizer):
    SUFFIX = ".two"

    def __init__(self, model: bytes):
        self.model, self.vocab_size = model, 2


def test_tokenizers_are_equal_by_kind_and_model():
    class Other(Two):
        pass

    assert Two(b"a") == Two(b"a")
    assert len({Two(b"a"), Two(b"a"), Two(b"b"), Other(b"a")}) == 3
    with pytest.raises(NotImplementedError, match="none by itself"):
        Tokenizer(b"a")


@pytest.mark.parametrize("spec", [Subwords, SentencePiece])
def test_a_spec_has_room_for_so_many_pieces(spec: type[TokenizerSpec]):
    assert spec(vocab_size=2).check(Two(b"a")) == Two(b"a")  # type: ignore[call-arg]
    with pytest.raises(UserError, match=rf"has 2 pieces, and {spec.__name__}\(vocab_size=1\) has room for fewer"):
        spec(vocab_size=1).check(Two(b"a"))  # type: ignore[call-arg]


def test_only_what_is_trained_reads_captions():
    assert SentencePiece(max_captions=7).captions == 7
    assert SentencePiece(path="a.model").captions == Subwords(8, path="a.json").captions == 0


def test_a_model_of_one_kind_knows_one_way_to_cut():
    with pytest.raises(UserError, match="model_type='unigram'"):
        PieceTokenizer(SentencePiece(30, model_type="bpe").train(["red cat", "blue dog"])).segmentations("red", 2)
