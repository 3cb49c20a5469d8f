import io
import sys

import numpy as np
import pytest
import sentencepiece

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.sentence_piece import BOS, EOS, PAD, PieceTokenizer, SentencePiece
from mmjax.data.transforms.text import (
    Canonicalize,
    CleanText,
    Lowercase,
    PickCaption,
    Prompt,
    RandomTokenize,
    Tokenize,
    keep_empty,
)
from mmjax.data.transforms.unended import TokenizeUnended
from mmjax.data.transforms.values import Cut, Masked
from mmjax.errors import UserError
from tests.data.conftest import kind_of


def test_pick_caption_takes_strings_lists_and_languages():
    assert PickCaption()("a cat", None) == "a cat"
    assert PickCaption()(["", "a cat", "a pet"], None) == "a cat"
    assert PickCaption()({"de": "Katze", "en": "cat"}, None) == "cat"
    assert PickCaption("fr")({"de": "Katze", "en": "cat"}, None) == "Katze"
    rng = np.random.default_rng(0)
    assert {PickCaption()({"de": "Katze", "en": "cat", "fr": " "}, rng) for _ in range(50)} == {"Katze", "cat"}
    for empty in ("", "  ", [], {"en": ""}):
        with pytest.raises(BadExample, match="empty"):
            PickCaption()(empty, None)


@pytest.mark.parametrize("value", [b"\xff\xfe", 3.0, float("nan")])
def test_what_is_no_text_is_a_bad_caption(value, tokenizer):
    texts = (PickCaption(), Lowercase(), Canonicalize(), CleanText(repair=False), Tokenize(tokenizer, 4))
    for transform in (*texts, *keep_empty(texts)):
        assert kind_of(transform, value) == "undecodable"
    assert kind_of(Tokenize(tokenizer, 4), "half a pair: \ud800") == "undecodable"


def test_lowercase_also_joins_white_space():
    assert Lowercase()("  A\tBIG \n Cat ", None) == "a big cat"
    assert Lowercase(join=False)(" A\tBIG ", None) == " a\tbig "


def test_canonicalize_leaves_letters_digits_and_single_spaces():
    assert Canonicalize()("  A_b-C, d'E!  5%\n", None) == "a bc de 5"
    assert Canonicalize(spaced="")("A_b-C", None) == "abc"
    assert Canonicalize(spaced="-_")("A_b-C.", None) == "a b c"
    assert Canonicalize()("“é”…", None) == "“é”…"  # only ASCII's punctuation, as in the original


def test_a_prompt_stands_before_a_text():
    assert Prompt("query: ")("A cat ", None) == "query: A cat "
    assert Prompt("query: ")("", None) == "query: "
    assert kind_of(Prompt("query: "), None) == "empty"


def test_names_of_special_pieces_stay_and_become_their_ids(tokenizer):
    assert Canonicalize("", ("</s>",))(" A_b</s>C-d.  </s> ▁e", None) == "ab </s> cd </s> e"
    assert Canonicalize("")("a </s>", None) == "a s"
    red, cat = tokenizer.encode("red cat")
    cut = Tokenize(tokenizer, 6, names=("</s>", "<pad>"))
    assert cut("red </s> <pad> ", None).values.tolist() == [red, EOS, PAD, *tokenizer.encode(""), EOS, PAD, PAD]
    assert cut("cat</s>", None).values.tolist() == [cat, EOS, PAD, PAD, PAD, PAD]  # it ends already
    assert EOS not in Tokenize(tokenizer, 6, eos=False)("cat </s>", None).values  # as our own are read
    with pytest.raises(UserError, match="'<end>' is no piece"):
        Tokenize(tokenizer, 6, names=("<end>",))("cat <end>", None)
    with pytest.raises(UserError, match=r"names=\('<end>',\)\) is for SentencePiece models"):
        Tokenize(Words(), 6, names=("<end>",))


def test_clean_text_reads_entities_twice_and_repairs_what_was_decoded_wrongly(monkeypatch):
    assert CleanText(repair=False)(" &amp;lt;b&gt; \t caf&eacute; ", None) == "<b> café"
    assert CleanText(repair=False)("cafÃ©", None) == "cafÃ©"
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(UserError, match=r'pip install "mmjax\[interop\]"'):
        CleanText()("cafÃ©", None)
    monkeypatch.undo()
    pytest.importorskip("ftfy")
    assert CleanText()("cafÃ© “x”", None) == 'café "x"'


@pytest.fixture(scope="module")
def tokenizer() -> PieceTokenizer:
    words = [f"{a} {b}" for a in ("red", "green", "blue") for b in ("cat", "dog", "house")]
    return PieceTokenizer(SentencePiece(vocab_size=100, model_type="word").train(words))


def test_tokenize_pads_and_a_long_caption_keeps_its_end(tokenizer):
    red, cat = tokenizer.encode("red cat")
    ids, mask = Tokenize(tokenizer, 6, bos=True)("red cat", None)
    assert ids.tolist() == [BOS, red, cat, EOS, PAD, PAD]
    assert mask.tolist() == [True] * 4 + [False] * 2
    ids, mask = Tokenize(tokenizer, 4)("red cat red cat red", None)
    assert ids.tolist() == [red, cat, red, EOS]
    assert mask.all()
    assert ids.dtype == np.int32
    with pytest.raises(BadExample, match="empty"):
        Tokenize(tokenizer, 4)("  ", None)
    with pytest.raises(TypeError, match="no model yet"):
        Tokenize(SentencePiece(), 4)("red", None)


@pytest.mark.parametrize("kind", [Tokenize, TokenizeUnended])
@pytest.mark.parametrize("bos", [False, True])
def test_a_caption_of_which_pieces_are_lost_says_how_long_it_was(tokenizer, kind, bos):
    for words in range(1, 9):
        found = kind(tokenizer, 6, bos=bos)(" ".join(["red"] * words), None)
        whole = bos + words + 1
        assert isinstance(found, Cut) == (whole > 6)
        assert not isinstance(found, Cut) or found.whole == whole
        assert found.values.shape == found.mask.shape == (6,)


def test_what_stands_behind_a_caption_s_own_end_is_not_lost():
    class Ends(Tokenizer):
        model, vocab_size, pad, bos, eos = b"", 10, 0, None, 9

        def __init__(self):
            pass

        def encode(self, text: str) -> list[int]:
            return [int(word) for word in text.split()]

    found = Tokenize(Ends(), 4)("1 2 9 3 4 5", None)
    assert not isinstance(found, Cut)
    assert found.values.tolist() == [1, 2, 9, 9]
    assert found.mask.tolist() == [True, True, True, False]
    found = Tokenize(Ends(), 4)("1 2 3 4 9 5", None)
    assert isinstance(found, Cut)
    assert found.whole == 5


def ended(tokenizer, length=8, **fields):
    """Texts' ids and how many of them are text; `reach` of the same ids must say so too."""

    def found(text):
        cut = Tokenize(tokenizer, length, **fields)
        ids, mask = cut(text, None)
        assert mask.tolist() == [True] * mask.sum() + [False] * (length - mask.sum())
        assert cut.reach(ids) == mask.sum()
        return ids.tolist(), int(mask.sum())

    return found


class Words(Tokenizer):
    """Words are their own ids, special ones too."""

    SUFFIX = ".words"
    vocab_size, pad, bos, eos = 100, 0, 1, 2

    def __init__(self, model=b""):
        self.model = model

    def encode(self, text):
        return [int(word) for word in text.split()]


class Pairs(Words):
    """As BERT's: the end separates, too."""

    separates = True


@pytest.mark.parametrize("pad", [0, 2])
def test_the_first_end_token_ends_a_text_in_strings_and_ids(pad):
    found = ended(Words(), bos=True, pad=pad)
    assert found("7 8") == ([1, 7, 8, 2, pad, pad, pad, pad], 4)
    assert found("7 2 8") == ([1, 7, 2, 8, 2, pad, pad, pad], 3)  # the ids stay: a model may still see them
    assert found("2 7") == ([1, 2, 7, 2, pad, pad, pad, pad], 2)
    assert found("7 1 0 8 2") == ([1, 7, 1, 0, 8, 2, 2, pad], 6)  # other special ones end nothing
    assert found("3 4 5 6 7 8 9 2") == ([1, 3, 4, 5, 6, 7, 8, 2], 8)
    same = Words()
    same.bos = 2  # some begin and end by one piece
    assert ended(same, bos=True, pad=pad)("7 8") == ([2, 7, 8, 2, pad, pad, pad, pad], 4)
    assert ended(Words(), pad=pad)("2 7")[1] == 1
    assert Tokenize(Words(), 4, eos=False)("7 2 8", None).mask.tolist() == [True, True, True, False]


def test_a_separator_ends_no_text():
    found = ended(Pairs(), bos=True)
    assert found("7 2 8") == ([1, 7, 2, 8, 2, 0, 0, 0], 5)
    assert found("7 0 2 2") == ([1, 7, 0, 2, 2, 2, 0, 0], 6)
    cut = Tokenize(Pairs(), 8, bos=True)
    assert [cut.reach(np.array(ids)) for ids in ([1, 7, 0, 0], [0, 0], [7])] == [2, 1, 1]


def test_the_empty_text_is_kept_where_a_chain_says_so(tokenizer):
    chain = (PickCaption(), Lowercase(), Tokenize(tokenizer, 4, bos=True))
    for empty in ("", "  ", ["", " "], {"en": ""}):
        value: object = empty
        with pytest.raises(BadExample, match="empty"):
            chain[0](value, None)
        for transform in keep_empty(chain):
            value = transform(value, None)
        assert isinstance(value, Masked)
        assert value.values.tolist() == [BOS, EOS, PAD, PAD]
        assert value.mask.tolist() == [True, True, False, False]
    assert keep_empty(chain)[0](["", "a cat"], None) == "a cat"
    for nothing in ([], {}, None):
        with pytest.raises(BadExample, match="empty"):
            keep_empty(chain)[0](nothing, None)


def test_a_chain_says_the_padding_and_a_piece_that_is_lacking_is_told():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["red cat", "blue dog"] * 4),
        model_writer=model,
        model_type="char",
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
        pad_id=-1,
    )
    tokenizer = PieceTokenizer(model.getvalue())
    assert (tokenizer.pad, tokenizer.bos, tokenizer.eos) == (None, None, 1)
    with pytest.raises(UserError, match=r"no piece for padding: .*Tokenize\(pad=\.\.\.\)"):
        Tokenize(tokenizer, 8)
    with pytest.raises(UserError, match="bos=True"):
        Tokenize(tokenizer, 8, bos=True, pad=1)
    with pytest.raises(UserError, match="none of the tokenizer's"):
        Tokenize(tokenizer, 8, pad=tokenizer.vocab_size)
    ids, mask = Tokenize(tokenizer, 8, pad=1)("cat", None)
    assert ids.tolist() == [*tokenizer.encode("cat"), 1, 1, 1, 1][:8]
    assert mask.sum() == len(tokenizer.encode("cat")) + 1


def test_random_tokenize_cuts_a_caption_in_many_ways_and_in_evaluation_in_the_likeliest(tokenizer):
    with pytest.raises(UserError, match="model_type='unigram'"):
        RandomTokenize(tokenizer, 12)("green fox", np.random.default_rng(0))
    tokenizer = PieceTokenizer(SentencePiece(30).train(["green fox", "green ox", "red fox", "grey greed", "reed box"]))
    sampled, plain = RandomTokenize(tokenizer, 12, best=4), Tokenize(tokenizer, 12)
    assert sampled.random
    seen = set()
    for seed in range(40):
        ids, mask = sampled("green fox", np.random.default_rng(seed))
        assert tokenizer.decode(ids[mask]) == "green fox"
        seen.add(tuple(ids.tolist()))
        assert np.array_equal(ids, sampled("green fox", np.random.default_rng(seed)).values)
    assert 2 <= len(seen) <= 4
    assert np.array_equal(sampled("green fox", None).values, plain("green fox", None).values)


@pytest.mark.parametrize("several", [["a", ""], {"en": "a"}])
def test_several_captions_that_nothing_picks_from_are_unfit_and_not_empty(several, tokenizer):
    for transform in (Lowercase(), Canonicalize(), CleanText(repair=False), Tokenize(tokenizer, 4)):
        assert kind_of(transform, several) == "unfit"
        assert kind_of(transform, ["", " "]) == "empty"
    with pytest.raises(BadExample, match=r"several captions: begin the chain of 'text' with PickCaption\(\)"):
        Lowercase()(several, None)  # type: ignore[arg-type]
