import json
import multiprocessing
import pickle
import sys

import numpy as np
import pytest

from mmjax.data.chains import Chains, untrained
from mmjax.data.tokenizers.files import from_files, load_tokenizers, save_tokenizers, to_files
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer, _separates
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json
from mmjax.data.transforms.text import Tokenize
from mmjax.errors import UserError
from tests.data.vocabularies import write_bert, write_clip, write_gemma

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> SubwordTokenizer:
    return SubwordTokenizer(tokenizer_json(write_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> SubwordTokenizer:
    return SubwordTokenizer(tokenizer_json(write_bert(tmp_path_factory.mktemp("bert"))))


def test_what_begins_ends_and_fills_up_a_text_is_read_from_the_file(clip, bert, tmp_path):
    assert (clip.pad, clip.bos, clip.eos) == (clip.vocab_size - 1, clip.vocab_size - 2, clip.vocab_size - 1)
    assert (bert.pad, bert.bos, bert.eos) == (0, 2, 3)
    gemma = SubwordTokenizer(tokenizer_json(write_gemma(tmp_path)))
    assert (gemma.pad, gemma.bos, gemma.eos) == (0, None, 1)


def test_what_separates_two_texts_is_told_from_what_ends_one(clip, bert):
    assert bert.separates
    assert not clip.separates
    template = json.loads(bert.model)["post_processor"]
    single_type = [{"Sequence": {"id": "B", "type_id": 0}} if "Sequence" in part else part for part in template["pair"]]
    for processor, separates in (
        ({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}, True),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]}, True),
        ({**template, "pair": single_type}, False),
        ({**template, "pair": [part for part in template["pair"] if "Sequence" in part]}, False),
        (None, False),
    ):
        assert _separates(processor, 3) is separates


def test_encode_adds_nothing_and_decode_leaves_special_pieces_out(clip, bert):
    for tokenizer in (clip, bert):
        ids = tokenizer.encode("the photo")
        assert not {tokenizer.bos, tokenizer.eos, tokenizer.pad} & set(ids)
        assert tokenizer.decode(np.array([tokenizer.bos, *ids, tokenizer.eos, tokenizer.pad])) == "the photo"
        assert tokenizer.encode("") == []
        with pytest.raises(UnicodeError):
            tokenizer.encode("half a pair: \ud800")
        with pytest.raises(UserError, match="model_type='unigram'"):
            tokenizer.segmentations("the photo", 2)


def test_what_a_file_says_of_lengths_is_left_to_the_chain(bert):
    settings = json.loads(bert.model)
    settings["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    settings["padding"]["strategy"] = {"Fixed": 9}
    assert SubwordTokenizer(json.dumps(settings).encode()).encode("the cat photo") == bert.encode("the cat photo")


def test_tokenizers_of_both_kinds_travel_to_files_hosts_and_workers(clip, bert, tmp_path):
    pieces = PieceTokenizer(SentencePiece(40).train(["red cat", "blue dog"]))
    tokenizers = {"text": clip, "speech": bert, "name": pieces}
    assert sorted(to_files(tokenizers)) == ["name.model", "speech.json", "text.json"]
    save_tokenizers(tokenizers, tmp_path)
    assert load_tokenizers(tmp_path) == from_files(to_files(tokenizers)) == tokenizers
    assert len({*tokenizers.values(), pickle.loads(pickle.dumps(clip))}) == 3
    (tmp_path / "text.model").write_bytes(pieces.model)
    with pytest.raises(UserError, match="'text' has two tokenizers"):
        load_tokenizers(tmp_path)


def _encoded(tokenizer: SubwordTokenizer) -> list[int]:
    return tokenizer.encode("the photo")


def test_a_worker_process_encodes_the_same(clip):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_encoded, (clip,)) == clip.encode("the photo")


def test_a_chain_takes_the_kept_model_and_not_the_path(clip):
    chain = {"text": (Tokenize(Subwords(clip.vocab_size, path="not/there"), 8, bos=True),)}
    assert untrained(chain) == {"text": Subwords(clip.vocab_size, path="not/there")}
    batch = Chains(chain, {"text": clip}).encode(text=["the cat", None])
    assert batch["text"][0].tolist() == [clip.bos, *clip.encode("the cat"), clip.eos, *[clip.pad] * 4]
    assert batch["text_valid"].tolist() == [True, False]
    with pytest.raises(UserError, match=r"Subwords\(vocab_size=10\) has room for fewer"):
        Chains({"text": (Tokenize(Subwords(10), 8),)}, {"text": clip})


def test_a_path_that_leads_nowhere_is_said(tmp_path):
    with pytest.raises(UserError, match=r"no such file or folder.*hf download"):
        Subwords(10, path=str(tmp_path / "tokenizer.json")).load(None, tmp_path)
    with pytest.raises(UserError, match=r"no such file: .* or no path"):
        SentencePiece(10, path=str(tmp_path / "pieces.model")).load(None, tmp_path)
    for spec in (Subwords(10), SentencePiece(10, path="")):
        assert not spec.captions
        with pytest.raises(UserError, match="takes its model from the tokenizers of a workdir"):
            spec.load(None, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda settings: settings.pop("model"), "not a tokenizer.json"),
        (lambda settings: settings["model"].update(type="Code"), "not a tokenizer.json"),
        (lambda settings: settings["model"].update(dropout=0.1), "dropout"),
        (lambda settings: settings.update(post_processor={"type": "Sequence", "processors": []}), None),
    ],
)
def test_what_is_no_tokenizer_is_refused(clip, change, message):
    settings = json.loads(clip.model)
    change(settings)
    model = json.dumps(settings).encode()
    if message is None:
        assert SubwordTokenizer(model).bos is None
        return
    with pytest.raises(UserError, match=message):
        SubwordTokenizer(model)
    with pytest.raises(UserError, match=r"not a tokenizer\.json"):
        SubwordTokenizer(b"\xff\x00")


def test_two_special_pieces_on_a_side_cannot_be_told(bert):
    settings = json.loads(bert.model)
    settings["post_processor"]["single"] += settings["post_processor"]["single"][:1]
    with pytest.raises(UserError, match=r"\[2\] before and \[3, 2\] behind"):
        SubwordTokenizer(json.dumps(settings).encode())


def test_without_the_library_the_extra_is_named(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r'pip install "mmjax\[interop\]"'):
        SubwordTokenizer(clip.model)


@pytest.mark.parametrize("prefix", ["prepend", "metaspace", "bytes", "none"])
def test_a_text_that_goes_on_has_no_space_before_it(prefix):
    """Against the pieces of both texts together, in tokenizers without merges."""
    import tokenizers as library

    letters = {letter: i for i, letter in enumerate("▁Ġabc ")}
    backend = library.Tokenizer(library.models.BPE(letters, []))
    if prefix == "prepend":
        spaces = [library.normalizers.Prepend("▁"), library.normalizers.Replace(" ", "▁")]
        backend.normalizer = library.normalizers.Sequence(spaces)
    elif prefix == "metaspace":
        backend.pre_tokenizer = library.pre_tokenizers.Metaspace()
    elif prefix == "bytes":
        pre = [library.pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
        backend.pre_tokenizer = library.pre_tokenizers.Sequence(pre)
    own = SubwordTokenizer(backend.to_str().encode())
    for before, after in [("a", " b"), ("a", "b"), ("a b", "  c"), ("c", "")]:
        assert own.encode(before) + own.encode_after(after) == own.encode(before + after)
    assert len(own.encode("a")) == 2 - (prefix == "none")
    assert len(own.encode_after("a")) == 1
    assert (own.id_of("b"), own.id_of("<|im_end|>")) == (3, None)
    with pytest.raises(UnicodeError):
        own.encode_after("half a pair: \ud800")
