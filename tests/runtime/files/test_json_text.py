"""JSON is read, or refused in one line."""

from pathlib import Path

import pytest

from mmjax import embeddings
from mmjax.data.tokenizers.subwords import SubwordTokenizer
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json
from mmjax.errors import UserError
from mmjax.interop import weight_files
from mmjax.interop.hf import layout as hf_layout
from mmjax.interop.hf import preprocessing as hf_preprocessing
from mmjax.interop.open_clip import layout as open_clip_layout
from mmjax.runtime import jsonl
from mmjax.runtime.files import digests, json_text

DEEP = "[" * 100_000 + "]" * 100_000
DEEP_OBJECT = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.mark.parametrize("text", [DEEP, DEEP_OBJECT, "{", "", "[" * 1_000_000], ids=range(5))
def test_what_is_no_json_is_a_value_error(text, tmp_path):
    with pytest.raises(ValueError, match=r"it is nested too deeply|Expecting"):
        json_text.parse(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json is no JSON: "):
        json_text.read(tmp_path / "a.json")


def test_what_is_json_is_read_as_json_reads_it(tmp_path):
    (tmp_path / "a.json").write_text('{"é": [1, 2.5, null]}', encoding="utf-8")
    assert json_text.read(tmp_path / "a.json") == {"é": [1, 2.5, None]}
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"a\.json is no JSON: .*utf-8"):
        json_text.read(tmp_path / "a.json")


READERS = {
    "config.json": lambda path: hf_layout._json(path),
    "open_clip_config.json": lambda path: open_clip_layout._config(path.parent),
    "preprocessor_config.json": lambda path: hf_preprocessing._said(path.parent, "image_processor"),
    "model.safetensors.index.json": lambda path: weight_files.read(path.parent),
    "tokenizer.json": tokenizer_json,
    "tokenizer_config.json": lambda path: tokenizer_json(path.with_name("vocab.txt")),
    "embeddings.json": lambda path: embeddings.manifest(path.parent),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("text", [DEEP_OBJECT, DEEP, '{"a": '], ids=["objects", "lists", "cut"])
def test_every_reader_of_a_file_of_json_refuses_what_is_deep(name, text, tmp_path):
    path: Path = tmp_path / name
    path.write_text(text)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(UserError):
        READERS[name](path)


def test_a_line_a_digest_and_a_tokenizer_that_are_deep_are_as_broken_ones(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n' + DEEP + '\n{"step": 2}\n')
    assert [line["step"] for line in jsonl.read(tmp_path / "metrics.jsonl")] == [1, 2]
    (tmp_path / digests.NAME).write_text(DEEP)
    assert digests.problems(tmp_path)
    pytest.importorskip("tokenizers")
    with pytest.raises(UserError, match=r"are not a tokenizer\.json: it is nested too deeply"):
        SubwordTokenizer(DEEP.encode())
