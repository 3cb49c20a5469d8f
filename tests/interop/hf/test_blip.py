"""BLIP: the same scores of both heads, loss and gradients, there and back; the published size by shape."""

import dataclasses
import json
import re
from typing import Any

import fiddle as fdl
import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from flax.traverse_util import flatten_dict  # noqa: E402

from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer  # noqa: E402
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json  # noqa: E402
from mmjax.data.transforms.text import PickCaption, Tokenize  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.inference.model import load  # noqa: E402
from mmjax.interop import bundle as bundles  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.hf import usage  # noqa: E402
from tests.data import vocabularies  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZE: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
IDS = np.array(
    [
        [101, 105, 107, 102, 110, 111, 102, 0, 0],
        [101, 119, 102, 0, 0, 0, 0, 0, 0],
        [101, 110, 111, 112, 104, 113, 114, 115, 102],
    ],
    np.int32,
)
MASK = IDS != 0
PAIRS = [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0), (1, 0)]  # the rows of picture and text


def config(vocab=120, **changes):
    text = SIZE | {"vocab_size": vocab, "max_position_embeddings": 9, "encoder_hidden_size": 24}
    text |= {"bos_token_id": 118, "sep_token_id": 102}
    vision = SIZE | {"num_attention_heads": 2, "image_size": 12, "patch_size": 4}
    return transformers.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16, **changes)


def model():
    return twins.random_model(transformers.BlipForImageTextRetrieval, config())


def batch(bundle):
    """Ours, and what theirs takes."""
    pictures, pixels = twins.pixels(bundle, 12)
    there = {f"{name}_valid": np.ones(3, bool) for name in ("text", "image")}
    ours = {"text": IDS, "text_mask": MASK, "image": pictures, "index": np.arange(3), **there}
    theirs = {"input_ids": torch.tensor(IDS).long(), "attention_mask": torch.tensor(MASK.astype(np.int64))}
    return ours, theirs | {"pixel_values": pixels}


def test_both_heads(tmp_path):
    bundle, theirs = twins.there_and_back(model(), tmp_path)
    ours, given = batch(bundle)
    module = build(bundle.config).pretrainer()
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(lambda v, b: module.apply(v, b, "matching", method="predict"))(bundle.variables, ours)
    matched = theirs(**given).itm_score
    assert np.ptp(matched.detach().numpy(), axis=0).min() > 0.1  # the pictures and texts matter
    twins.close(logits, matched)
    twins.close(twins.cosines(bundle, ours["image"], IDS, MASK), theirs(**given, use_itm_head=False).itm_score)
    kept = load(bundles.save(bundle, tmp_path / "kept"))
    found = kept.match(image=list(ours["image"]), text=list(IDS))
    twins.close(found, torch.softmax(matched, dim=1)[:, 1])


def test_gradients_of_both_heads(tmp_path):
    """Through the matching head of chosen pairs, and the cosines of all: of self-attention and MLPs the sum of both
    readings', of cross-attention that of the grounded one."""
    bundle, theirs = twins.there_and_back(model(), tmp_path)
    ours, given = batch(bundle)
    module = build(bundle.config).pretrainer()
    weights = np.random.default_rng(3).normal(size=(len(PAIRS), 2)).astype(np.float32)
    cosine_weights = np.random.default_rng(4).normal(size=(3, 3)).astype(np.float32)
    rows = np.array(PAIRS)

    def loss(params):
        with jax.default_matmul_precision("highest"):
            tokens = module.apply({"params": params}, ours, "matching", method="kept_tokens")
            pairs = tuple((x[rows[:, i]], mask[rows[:, i]]) for i, (x, mask) in enumerate(tokens))
            logits = module.apply({"params": params}, pairs, "matching", method="matched")
            units = module.apply({"params": params}, ours, method="embed")
            return (logits * weights).sum() + (units["image"] @ units["text"].T * cosine_weights).sum()

    value, gradients = jax.jit(jax.value_and_grad(loss))(bundle.variables["params"])
    picked = {name: x[rows[:, int(name != "pixel_values")]] for name, x in given.items()}
    total = (theirs(**picked).itm_score * torch.tensor(weights)).sum()
    total = total + (theirs(**given, use_itm_head=False).itm_score * torch.tensor(cosine_weights)).sum()
    twins.close(value, total)
    total.backward()
    table = theirs.text_encoder.embeddings.word_embeddings
    assert table.padding_idx == 0
    assert not table.weight.grad[0].any()  # which is seen by none
    twins.same_gradients(bundle, flatten_dict(gradients, sep="/"), theirs, tmp_path)


def test_the_published_size():
    """In closed form: of a picture's tower, a text's with a cross-attention in each of its layers, both projections,
    and the matching head."""
    width, depth, side, patch, vocab, joint = 768, 12, 384, 16, 30_524, 256
    linear, mlp, norm = width**2 + width, 8 * width**2 + 5 * width, 2 * width
    image = 3 * patch**2 * width + width + width + (1 + (side // patch) ** 2) * width
    image += depth * (4 * linear + mlp + 2 * norm) + norm
    text = (vocab + 512) * width + norm + depth * (8 * linear + mlp + 3 * norm)
    heads = 2 * (width * joint + joint) + 2 * width + 2
    found = twins.fits_by_shape(transformers.BlipForImageTextRetrieval, transformers.BlipConfig())
    assert found == image + text + heads


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("text_config.is_decoder", False, r"text_config: is_decoder=False can't be expressed here, where it is True"),
        ("vision_config.hidden_size", 32, r"vision_config.hidden_size=32 can't be read by a text .*hidden_size=24"),
        ("text_config.hidden_act", "relu", r"text_config: hidden_act='relu' isn't here"),
        ("architectures", ["BlipModel"], r"of model_type='blip' BlipForImageTextRetrieval, .* can"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, tmp_path):
    model().save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")


def test_what_reads_otherwise_is_not_theirs(tmp_path):
    model().save_pretrained(tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    bundle.config.towers["text"].fused_first = 119
    with pytest.raises(UserError, match=r"is nearest, but has\n  towers.text.fused_first: None there, 119 here"):
        hf_layout.write(bundle, tmp_path / "out")
    bundle.config.towers["text"].fused_first = None
    bundle.config.fusions["grounded"].pooling = "mean"
    with pytest.raises(UserError, match=r"fusions.grounded.pooling: 'first' there, 'mean' here"):
        hf_layout.write(bundle, tmp_path / "out")


def test_the_processor_s_pictures(tmp_path):
    """Scaled to squares; where nothing is said, as for the released models."""
    model().save_pretrained(tmp_path / "theirs")
    bundle = hf_layout.read(tmp_path / "theirs")
    said = {"image_processor_type": "BlipImageProcessor", "size": {"height": 12, "width": 12}, "resample": 3}
    said |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_resize": True, "do_convert_rgb": True}
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(said))
    again = hf_layout.read(tmp_path / "theirs")
    assert bundle.config.data.transforms["image"] == again.config.data.transforms["image"]
    assert bundle.config.towers["image"].mean != again.config.towers["image"].mean == (0.5, 0.5, 0.5)
    wide = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    ours = wide
    for step in [build(step) for step in again.config.data.transforms["image"]]:
        ours = step(ours, None)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "theirs", backend="pil")
    theirs = processor(wide, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose((ours / 255 - 0.5) / 0.25, theirs, atol=1e-5)


def test_the_code_of_the_card_runs(tmp_path, monkeypatch, capsys):
    vocabularies.write_bert(tmp_path)
    tokenizer = SubwordTokenizer(tokenizer_json(tmp_path))
    sized = config(vocab=max(tokenizer.vocab_size, 120))
    twins.random_model(transformers.BlipForImageTextRetrieval, sized).save_pretrained(tmp_path / "theirs")
    bundle = hf_layout.read(tmp_path / "theirs")
    cut = fdl.Config(Tokenize, fdl.Config(Subwords, sized.text_config.vocab_size), 9, bos=True, empty="keep")
    bundle.config.data.transforms["text"] = (fdl.Config(PickCaption, empty="keep"), cut)
    bundle = dataclasses.replace(bundle, tokenizers={"text": tokenizer})
    hf_layout.write(bundle, tmp_path / "out")
    code = re.search(r"```python\n(.*?)```", usage.how_to_load(tmp_path / "out", hf_layout.near(bundle)), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    assert "itm_score" in capsys.readouterr().out
