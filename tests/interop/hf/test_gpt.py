"""GPT-1 and GPT-2: the same logits, loss, gradients and continuations, there and back; the published sizes by shape."""

import dataclasses
import json
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import mmjax  # noqa: E402
from mmjax.data.tokenizers.tokenizer_json import written  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.interop import bundle as bundles  # noqa: E402
from mmjax.interop import weight_files  # noqa: E402
from mmjax.interop.export import export  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.hf import usage  # noqa: E402
from mmjax.objectives.caption import Caption  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402
from tests.interop import language_models as models  # noqa: E402

SIZES = {"vocab_size": 120, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 3}
KINDS = {
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config),
    "openai-gpt": (transformers.OpenAIGPTLMHeadModel, transformers.OpenAIGPTConfig),
}
PROMPTS = [[5, 17, 3, 88, 41], [61, 4], [7, 7, 23, 90, 15, 66, 31, 12]]
END = "<|endoftext|>"


def theirs(kind, **changes):
    model, config = KINDS[kind]
    return twins.random_model(model, config(**SIZES | changes))


def inputs():
    return {"input_ids": torch.tensor(models.IDS), "attention_mask": torch.tensor(models.MASK.astype(np.int64))}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_loss_and_gradients(kind, tmp_path):
    model = theirs(kind)
    bundle, again = twins.there_and_back(model, tmp_path)
    labels = torch.tensor(np.where(models.MASK, models.IDS, -100))
    out = model(**inputs(), labels=labels)
    twins.close(np.asarray(models.logits(bundle))[models.MASK], out.logits.detach().numpy()[models.MASK])
    twins.close(again(torch.tensor(models.IDS)).logits.detach(), model(torch.tensor(models.IDS)).logits)
    loss, gradients = twins.loss_and_gradients(bundle, models.BATCH)
    twins.close(loss, out.loss)
    out.loss.backward()
    twins.same_gradients(bundle, gradients, model, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_continuations(kind, tmp_path):
    """20 words after each of three prompts, that are told apart; theirs one prompt at a time."""
    model = theirs(kind)
    model.save_pretrained(tmp_path / "it")
    found = models.greedy(hf_layout.read(tmp_path / "it"), PROMPTS, 20)
    for prompt, words in zip(PROMPTS, found, strict=True):
        given = torch.tensor([prompt])
        made = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=20,
                              eos_token_id=None, pad_token_id=0)  # fmt: skip
        np.testing.assert_array_equal(words, made[0, len(prompt) :])
    assert len(np.unique(found)) >= 5


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("gpt2", {"activation_function": "silu"}),
        ("gpt2", {"activation_function": "gelu", "n_inner": 40, "layer_norm_epsilon": 1e-3}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("openai-gpt", {"afn": "silu"}),
    ],
)
def test_choices_of_theirs(kind, change, tmp_path):
    model = theirs(kind, **change)
    bundle, again = twins.there_and_back(model, tmp_path)
    wanted = model(torch.tensor(models.IDS)).logits
    twins.close(models.logits(bundle, models.IDS, None), wanted)
    twins.close(again(torch.tensor(models.IDS)).logits.detach(), wanted)


def test_a_folder_is_a_language_model(tmp_path):
    theirs("gpt2").save_pretrained(tmp_path / "it")
    loaded = mmjax.load(tmp_path / "it")
    (objective,) = loaded.experiment.objectives.values()
    assert isinstance(objective, Caption)
    assert (loaded.experiment.towers, objective.decoder.blocks.norm, objective.decoder.length) == ({}, "pre", 32)
    kept = bundles.read(bundles.save(hf_layout.read(tmp_path / "it"), tmp_path / "kept"))
    np.testing.assert_array_equal(models.logits(kept), models.logits(hf_layout.read(tmp_path / "it")))


def byte_level(folder):
    """A byte-level tokenizer.json of few merges, as the released GPT-2's is laid out, and what stands beside it."""
    letters = [chr(c) for c in [*range(33, 127), *range(256, 324)]]
    pieces = [*letters, "at", "Ġc", "Ġcat", END]
    added = {"id": len(pieces) - 1, "content": END, "single_word": False, "lstrip": False, "rstrip": False}
    bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    settings = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [added | {"normalized": True, "special": True}],
        "pre_tokenizer": bytes_of, "post_processor": bytes_of | {"trim_offsets": False}, "decoder": bytes_of,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "vocab": {piece: i for i, piece in enumerate(pieces)},
                  "merges": [["a", "t"], ["Ġ", "c"], ["Ġc", "at"]]},
    }  # fmt: skip
    (folder / "tokenizer.json").write_bytes(written(settings))
    options = {"tokenizer_class": "GPT2Tokenizer", "eos_token": END, "bos_token": END, "model_max_length": 32}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    return len(pieces)


def test_its_tokenizer_goes_there_and_back(tmp_path):
    """Nothing is put behind a text, and what ends one is known all the same, here and there."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    count = byte_level(folder)
    theirs("gpt2", vocab_size=count, eos_token_id=count - 1, bos_token_id=count - 1).save_pretrained(folder)
    bundle = hf_layout.read(folder)
    tokenizer = bundle.tokenizers["text"]
    text = "A cat, at\n 2 o'clock"
    wanted = transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert tokenizer.encode(text) == wanted
    assert tokenizer.decode(wanted) == text
    assert (tokenizer.eos, tokenizer.vocab_size) == (count - 1, count)
    export(folder, tmp_path / "out", "hf", say=lambda line: None)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again(text)["input_ids"] == wanted
    assert again.eos_token == END
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == count - 1
    ended = dataclasses.replace(bundle)
    ended.config.data.transforms["text"][-1].eos = True
    hf_layout.write(ended, tmp_path / "ended")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "ended")(text)["input_ids"] == [*wanted, count - 1]


@pytest.mark.parametrize("words", [True, False])
def test_the_code_of_the_card_runs(words, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "theirs"
    folder.mkdir()
    count = byte_level(folder) if words else 120
    theirs("gpt2", vocab_size=count).save_pretrained(folder)
    export(folder, tmp_path / "out", "hf", say=lambda line: None)
    twin = hf_layout.near(hf_layout.read(folder))
    code = re.search(r"```python\n(.*?)```", usage.how_to_load(tmp_path / "out", twin), re.DOTALL)
    assert code is not None
    assert code[1] in (tmp_path / "out" / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    assert ("A cat" if words else "tensor([[") in capsys.readouterr().out


def test_released_files(tmp_path):
    """They hold the model without its head, and masks among the parameters."""
    model = theirs("gpt2")
    model.save_pretrained(tmp_path / "it")
    wanted = models.logits(hf_layout.read(tmp_path / "it"))
    (file,) = (tmp_path / "it").glob("*.safetensors")
    arrays = {name.removeprefix("transformer."): array for name, array in weight_files.read(tmp_path / "it").items()}
    for layer in range(2):
        arrays |= {f"h.{layer}.attn.bias": np.ones((1, 1, 32, 32), np.float32)}
        arrays |= {f"h.{layer}.attn.masked_bias": np.float32(-1e4)}
    file.unlink()
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, tmp_path / "it" / "pytorch_model.bin")
    np.testing.assert_array_equal(models.logits(hf_layout.read(tmp_path / "it")), wanted)


@pytest.mark.parametrize(("kind", "count"), [("openai-gpt", 116_534_784), ("gpt2", 124_439_808)])
def test_published_sizes(kind, count):
    """As the papers' notes count them: V D + T D + L (12 D^2 + 13 D), and GPT-2's last norm."""
    model, config = KINDS[kind]
    assert twins.fits_by_shape(model, config()) == count


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        ("gpt2", "scale_attn_by_inverse_layer_idx", True, "scale_attn_by_inverse_layer_idx=True can't be expressed"),
        ("gpt2", "activation_function", "relu", "activation_function='relu' isn't here"),
        ("gpt2", "add_cross_attention", True, "add_cross_attention=True can't be expressed here, where it is False"),
        ("gpt2", "tie_word_embeddings", "no", "tie_word_embeddings='no' must be true or false"),
        ("gpt2", "architectures", ["GPT2DoubleHeadsModel"], "of model_type='gpt2' GPT2LMHeadModel can"),
        ("openai-gpt", "afn", "relu", "afn='relu' isn't here; gelu, silu, swish are"),
    ],
)
def test_what_cannot_be_expressed_is_named(kind, key, value, message, tmp_path):
    theirs(kind).save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        ("gpt2", "blocks.window", 4, r"blocks.window: None there, 4 here"),
        ("gpt2", "scaled", True, r"decoder.scaled: False there, True here"),
        ("gpt2", "blocks.gated", True, r"blocks.gated: False there, True here"),
        ("openai-gpt", "blocks.mlp_dim", 40, r"GPT2LMHeadModel is nearest, but has\n.*blocks.norm: 'pre' there"),
    ],
)
def test_what_computes_otherwise_is_not_theirs(kind, field, value, message, tmp_path):
    theirs(kind).save_pretrained(tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    *outer, name = field.split(".")
    part = bundle.config.objectives["words"].decoder
    for step in outer:
        part = getattr(part, step)
    setattr(part, name, value)
    with pytest.raises(UserError, match=message):
        hf_layout.write(bundle, tmp_path / "out")


def test_how_it_was_trained_goes_unsaid(tmp_path):
    theirs("gpt2").save_pretrained(tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    objective = bundle.config.objectives["words"]
    objective.label_smoothing, objective.mean = 0.1, "texts"
    objective.decoder.blocks.inits, objective.decoder.position_std = "gpt2", 0.02
    hf_layout.write(bundle, tmp_path / "out")
    again = build(hf_layout.read(tmp_path / "out").config.objectives["words"])
    assert again.decoder.blocks.hidden == 96
