import multiprocessing
import pickle
from pathlib import Path

import pytest

from mmjax.data.tokenizers.files import load_tokenizers, save_tokenizers
from mmjax.data.tokenizers.sentence_piece import BOS, EOS, MASK, PAD, UNKNOWN, PieceTokenizer, SentencePiece
from mmjax.errors import UserError
from tests.data.vocabularies import llama_model
from tests.faults.spoil import flip

CAPTIONS = [
    f"{a} {b} {c}" for a in ("red", "green", "dark blue") for b in ("cat", "dog") for c in ("one", "two", "six")
]


@pytest.mark.parametrize("model_type", ["unigram", "bpe", "word"])
def test_special_ids_are_the_same_for_every_model(model_type):
    tokenizer = PieceTokenizer(SentencePiece(60, model_type=model_type).train(CAPTIONS))
    assert (PAD, BOS, EOS, UNKNOWN, MASK) == (0, 1, 2, 3, 4)
    assert (tokenizer.pad, tokenizer.bos, tokenizer.eos) == (PAD, BOS, EOS)
    ids = tokenizer.encode("red cat [MASK] six")
    assert MASK not in ids  # a text can't ask for it
    assert UNKNOWN in ids
    assert tokenizer.decode([BOS, *tokenizer.encode("green dog two"), EOS, PAD, MASK]) == "green dog two"


def test_training_happens_once_and_depends_on_captions_and_settings(tmp_path, monkeypatch):
    wanted = SentencePiece(60, name="toy")
    first = wanted.load(CAPTIONS, tmp_path)
    (file,) = tmp_path.glob("*.model")
    assert file.name.startswith("toy-")
    assert first.model == wanted.train(CAPTIONS)  # deterministic
    SentencePiece(50, name="toy").load(CAPTIONS, tmp_path)
    wanted.load(CAPTIONS[:-1], tmp_path)
    assert len(list(tmp_path.glob("*.model"))) == 3
    with monkeypatch.context() as patch:
        patch.setattr(SentencePiece, "train", lambda *_: pytest.fail("trained again"))
        assert wanted.load(iter(CAPTIONS), tmp_path) == first
    flip(file)
    assert wanted.load(CAPTIONS, tmp_path) == first  # what was damaged is made once more
    assert file.read_bytes() == first.model


def _load(folder: str) -> bytes:
    return SentencePiece(60).load(CAPTIONS, Path(folder)).model


def test_two_processes_at_once_leave_one_good_file(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        models = pool.map(_load, [str(tmp_path)] * 2)
    assert models[0] == models[1]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".blake2b", ".model"]


def test_a_vocabulary_larger_than_the_captions_is_no_error_a_smaller_one_is():
    assert PieceTokenizer(SentencePiece(5000).train(CAPTIONS)).vocab_size < 100
    with pytest.raises(UserError, match=r"vocab_size=8, .* can't be trained on the 18 captions"):
        SentencePiece(8).train(CAPTIONS)
    with pytest.raises(UserError, match="no captions to train the tokenizer 'toy' on"):
        SentencePiece(60, name="toy").train([])


def test_a_model_from_a_file(tmp_path):
    file = tmp_path / "own.model"
    file.write_bytes(SentencePiece(40).train(CAPTIONS))
    tokenizer = SentencePiece(40, path=str(file)).load(None, tmp_path)
    assert tokenizer.model == file.read_bytes()
    with pytest.raises(UserError, match=rf"has {tokenizer.vocab_size} pieces, and SentencePiece\(vocab_size=20\)"):
        SentencePiece(20, path=str(file)).load(None, tmp_path)
    with pytest.raises(UserError, match=r"nowhere\.model"):
        SentencePiece(path="nowhere.model").load(None, tmp_path)
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        SentencePiece(path=str(file)).load(None, tmp_path)


def test_tokenizers_travel_to_other_processes_and_workdirs(tmp_path):
    tokenizer = PieceTokenizer(SentencePiece(40).train(CAPTIONS))
    assert pickle.loads(pickle.dumps(tokenizer)).encode("red cat") == tokenizer.encode("red cat")
    save_tokenizers({"text": tokenizer}, tmp_path / "tokenizers")
    assert load_tokenizers(tmp_path / "tokenizers") == {"text": tokenizer}
    assert load_tokenizers(tmp_path / "nothing") == {}


@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc"])
def test_a_text_that_goes_on_has_no_space_before_it(rule):
    """Against the pieces of both texts together, which are cut apart where a word begins."""
    texts = ["a red cat", "cats on the mat", "é is it"]
    own = PieceTokenizer(llama_model(texts, normalization_rule_name=rule, remove_extra_whitespaces=rule != "identity"))
    for before, after in [("a red", " cat"), ("on the", " mats"), ("the", " x"), ("is", " éa é"), ("a", "")]:
        assert own.encode(before) + own.encode_after(after) == own.encode(before + after)
    assert own.decode(own.encode("ca") + own.encode_after("ts")) == "cats"
    assert own.decode(own.encode("ca") + own.encode("ts")) == "ca ts"
    bare = PieceTokenizer(llama_model(texts, add_dummy_prefix=False))
    assert bare.encode_after(" cat") == bare.encode(" cat") != bare.encode_after("cat")


def test_pieces_are_known_by_name():
    own = PieceTokenizer(SentencePiece(40).train(["a red cat"]))
    assert (own.id_of("</s>"), own.id_of("[MASK]"), own.id_of("<|im_end|>")) == (EOS, MASK, None)
