import json
from pathlib import Path

import pytest

from mmjax.data.tokenizers.subwords import SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import open_clip_bpe, tokenizer_json, word_piece, written
from mmjax.errors import UserError
from tests.data.vocabularies import write_bert, write_clip, write_gemma, write_open_clip


def test_the_ids_of_open_clips_file_are_bytes_ends_merges_and_two_more(tmp_path):
    vocab = open_clip_bpe(write_open_clip(tmp_path))["model"]["vocab"]
    names = list(vocab)
    assert list(vocab.values()) == list(range(len(names)))
    assert names[:2] + names[256:258] == ["!", '"', "!</w>", '"</w>']
    assert names[188] == "Ā"  # byte 0, the first without a printable letter
    assert names[512] == "ph"
    assert names[-2:] == ["<start_of_text>", "<end_of_text>"]


def test_a_folder_a_vocabulary_and_the_file_made_of_it_are_one_tokenizer(tmp_path):
    for name, write, file in (("c", write_clip, "vocab.json"), ("b", write_bert, "vocab.txt")):
        folder = tmp_path / name
        folder.mkdir()
        model = tokenizer_json(write(folder))
        assert tokenizer_json(folder / file) == model
        (folder / "tokenizer.json").write_bytes(model)
        assert tokenizer_json(folder) == tokenizer_json(folder / "tokenizer.json") == model


def test_the_config_beside_a_file_says_the_padding_and_berts_lower_casing(tmp_path):
    settings = json.loads(tokenizer_json(write_bert(tmp_path)))
    (tmp_path / "tokenizer.json").write_text(json.dumps({**settings, "padding": None}))
    config = {"do_lower_case": False, "strip_accents": True, "pad_token": {"content": "[MASK]"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    read = json.loads(tokenizer_json(tmp_path))
    assert (read["padding"]["pad_id"], read["padding"]["pad_token"]) == (4, "[MASK]")
    assert read["normalizer"] == {
        **{"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
        **{"strip_accents": True, "lowercase": False},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PADDING]"}))
    with pytest.raises(UserError, match=r"lacks '\[PADDING\]'"):
        tokenizer_json(tmp_path)


def test_a_null_switch_beside_a_vocabulary_is_off_and_other_nulls_say_nothing(tmp_path):
    write_bert(tmp_path)
    plain = tokenizer_json(tmp_path / "vocab.txt")
    nulls = dict.fromkeys(("strip_accents", "pad_token", "model_max_length", "padding_side"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(nulls))
    assert tokenizer_json(tmp_path / "vocab.txt") == plain
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": None, "tokenize_chinese_chars": None}))
    normalizer = json.loads(tokenizer_json(tmp_path / "vocab.txt"))["normalizer"]
    assert (normalizer["lowercase"], normalizer["handle_chinese_chars"]) == (False, False)
    SubwordTokenizer(tokenizer_json(tmp_path / "vocab.txt"))  # the library takes it


def test_siglip_2_lower_cases_what_gemma_does_not(tmp_path):
    pytest.importorskip("tokenizers")
    folder = write_gemma(tmp_path)
    lowered = SubwordTokenizer(tokenizer_json(folder))
    assert lowered.encode("A Cat") == lowered.encode("a cat")
    assert tokenizer_json(folder) == tokenizer_json(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "GemmaTokenizer"}))
    assert SubwordTokenizer(tokenizer_json(folder)).encode("A Cat") != lowered.encode("a cat")


def test_an_empty_line_inside_a_vocabulary_counts_a_last_one_does_not():
    pieces = ["[PAD]", "", "[UNK]", "[CLS]", "[SEP]", ""]
    assert word_piece(pieces)["model"]["vocab"] == {"[PAD]": 0, "": 1, "[UNK]": 2, "[CLS]": 3, "[SEP]": 4}
    with pytest.raises(UserError, match=r"lacks '\[CLS\]'"):
        word_piece(["[PAD]", "[UNK]", "[SEP]"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", b"{}", "needs merges.txt beside it"),
        ("tokenizer.json", b"[]", "no tokenizer.json"),
        ("tokenizer.json", b"no json", "no tokenizer.json"),
        ("spiece.model", b"", "is no vocabulary"),
        ("other.bin", b"", "is no vocabulary"),
    ],
)
def test_what_is_no_vocabulary_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        tokenizer_json(tmp_path / name)
    if name == "other.bin":
        with pytest.raises(UserError, match=r"has no tokenizer\.json, vocab\.json or vocab\.txt"):
            tokenizer_json(Path(tmp_path))


def test_the_same_settings_are_the_same_bytes(tmp_path):
    settings = open_clip_bpe(write_open_clip(tmp_path))
    assert written(settings) == written(json.loads(written(settings)))


@pytest.mark.parametrize("pad", [[], {"content": 3}, 7])
def test_a_special_piece_without_a_name_is_told(pad, tmp_path):
    settings = json.loads(tokenizer_json(write_bert(tmp_path)))
    (tmp_path / "tokenizer.json").write_text(json.dumps({**settings, "padding": None}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": pad}))
    with pytest.raises(UserError, match=r"a special piece is called .*, which is no name"):
        tokenizer_json(tmp_path)
