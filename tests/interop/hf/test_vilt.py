"""ViLT: the same tokens, embeddings, logits, loss and gradients, there and back; published sizes by shape."""

import dataclasses
import json
import re
from typing import Any

import fiddle as fdl
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.data.tokenizers.subwords import Subwords, SubwordTokenizer  # noqa: E402
from mmjax.data.tokenizers.tokenizer_json import tokenizer_json  # noqa: E402
from mmjax.data.transforms.text import PickCaption, Tokenize  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.inference.model import load  # noqa: E402
from mmjax.interop import bundle as bundles  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.hf import usage  # noqa: E402
from mmjax.objectives.contract import View  # noqa: E402
from tests.data import vocabularies  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

FIELDS: dict[str, Any] = {
    **{"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"vocab_size": 120, "max_position_embeddings": 9, "image_size": 12, "patch_size": 4},
}
IDS = np.array(
    [
        [101, 105, 107, 102, 110, 111, 102, 0, 0],
        [101, 119, 102, 0, 0, 0, 0, 0, 0],
        [101, 110, 111, 112, 104, 113, 114, 115, 102],
    ],
    np.int32,
)
MASK = IDS != 0
TYPES = np.array([[0, 0, 0, 0, 1, 1, 1, 0, 0], [0] * 9, [0] * 9], np.int32)


def config(**changes):
    return transformers.ViltConfig(**FIELDS | changes)


def batch(bundle):
    """Ours, and what theirs takes."""
    pictures, pixels = twins.pixels(bundle, FIELDS["image_size"])
    there = {f"{name}_valid": np.ones(3, bool) for name in ("text", "image")}
    ours = {"text": IDS, "text_mask": MASK, "text_types": TYPES, "image": pictures, "index": np.arange(3), **there}
    theirs = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK.astype(np.int64))}
    return ours, theirs | {"token_type_ids": torch.tensor(TYPES), "pixel_values": pixels}


def applied(bundle, *args, **kwargs):
    module = build(bundle.config).pretrainer()
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda variables, batch: module.apply(variables, batch, *args, **kwargs))(
            bundle.variables, batch(bundle)[0]
        )


def test_tokens_and_embedding(tmp_path):
    bundle, model = twins.there_and_back(twins.random_model(transformers.ViltModel, config()), tmp_path)
    found = applied(bundle, "stream", method="fused")
    out = model(**batch(bundle)[1])
    states = out.last_hidden_state.detach().numpy()
    twins.close(np.asarray(found.parts[0].tokens)[MASK], states[:, : IDS.shape[1]][MASK])
    ours, theirs = np.asarray(found.parts[1].tokens), states[:, IDS.shape[1] :]
    twins.close(ours[:, 0], theirs[:, 0])
    for mine, other in zip(ours[:, 1:], theirs[:, 1:], strict=True):  # their patches come in a random order
        order = np.abs(mine[:, None] - other).sum(axis=2).argmin(axis=1)
        assert sorted(order) == list(range(9))
        twins.close(mine, other[order])
    twins.close(found.embedding, out.pooler_output)
    kept = bundles.read(bundles.save(bundle, tmp_path / "kept"))
    for path, array in flatten_dict(bundle.variables, sep="/").items():
        np.testing.assert_array_equal(flatten_dict(kept.variables, sep="/")[path], array)
    assert any("scaled to squares" in note for note in bundle.notes)


def test_the_masked_language_head(tmp_path):
    """Their loss at chosen positions, and its gradient for every parameter; a tied table's is the sum of both uses."""
    bundle, model = twins.there_and_back(twins.random_model(transformers.ViltForMaskedLM, config()), tmp_path)
    masked = build(bundle.config.objectives["masked"])
    given, theirs = batch(bundle)
    rngs = {"mask": jax.random.key(0)}
    key = build(bundle.config).pretrainer().apply({}, method=lambda module: module.make_rng("mask"), rngs=rngs)
    words = View("text", masked.corrupt)
    seen, chosen = jax.jit(masked.corrupt.draw)(words.key(key), given["index"], IDS, MASK)
    assert np.asarray(chosen).any(axis=1).all()
    assert (np.asarray(seen) != IDS).any()
    loss, gradients = twins.loss_and_gradients(bundle, given, rngs)
    # Their own loss takes the logits of the text alone, padded or not.
    labels = torch.tensor(np.where(np.asarray(chosen), IDS, -100)).long()
    out = model(**theirs | {"input_ids": torch.tensor(np.asarray(seen))}, labels=labels)
    twins.close(loss, out.loss)
    out.loss.backward()
    twins.same_gradients(bundle, gradients, model, tmp_path)


def test_the_retrieval_head(tmp_path):
    model = twins.random_model(transformers.ViltForImageAndTextRetrieval, config())
    bundle, model = twins.there_and_back(model, tmp_path)
    logits = np.asarray(applied(bundle, "matching", method="predict"))
    score = model(**batch(bundle)[1]).logits[:, 0]
    np.testing.assert_array_equal(logits[:, 0], 0)
    twins.close(logits[:, 1], score)
    given, theirs = batch(bundle)
    plain = model(**{name: x for name, x in theirs.items() if name != "token_type_ids"}).logits[:, 0]
    found = load(tmp_path / "theirs").match(image=list(given["image"]), text=list(IDS))
    twins.close(found, torch.sigmoid(plain))
    # With two logits of its own it goes out as their difference, of which the probability is a function.
    head = bundle.variables["params"]["objectives_matching"]["match"]
    head["kernel"] = head["kernel"] + np.linspace(-1, 1, 24, dtype=np.float32)[:, None] ** 2
    head["bias"] = head["bias"] + np.float32(0.5)
    hf_layout.write(bundle, tmp_path / "moved")
    again = transformers.ViltForImageAndTextRetrieval.from_pretrained(tmp_path / "moved").eval()
    twins.close(again(**batch(bundle)[1]).logits[:, 0].detach().numpy(), score)
    bundle.config.objectives["matching"].pair = ("image", "text")
    with pytest.raises(UserError, match=r"no class of transformers computes the same"):  # the first token is the text's
        hf_layout.write(bundle, tmp_path / "other")


def test_pictures_of_its_processor_become_squares(tmp_path):
    """The released preprocessor_config.json; what is written scales to squares there too."""
    model = twins.random_model(transformers.ViltForMaskedLM, config())
    model.save_pretrained(tmp_path / "theirs")
    said = {"image_processor_type": "ViltImageProcessor", "size": {"shortest_edge": 12}, "size_divisor": 4}
    said |= {"do_pad": True, "do_resize": True, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(said))
    bundle = hf_layout.read(tmp_path / "theirs")
    assert bundle.config.towers["image"].std == (0.25, 0.25, 0.25)
    chain = [build(step) for step in bundle.config.data.transforms["image"]]
    wide = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    ours = wide
    for step in chain:
        ours = step(ours, None)
    assert ours.shape == (12, 12, 3)
    hf_layout.write(bundle, tmp_path / "ours")
    prepare = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours", backend="pil")
    theirs = prepare(wide, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose((ours / 255 - 0.5) / 0.25, theirs, atol=1e-5)


PUBLISHED = {"ViltModel": 111_595_008, "ViltForMaskedLM": 112_217_658, "ViltForImageAndTextRetrieval": 111_596_546}


@pytest.mark.parametrize("architecture", PUBLISHED)
def test_published_sizes(architecture):
    """With the head of masked words tied; the retrieval head has two logits here."""
    found = twins.fits_by_shape(getattr(transformers, architecture), transformers.ViltConfig())
    assert found == PUBLISHED[architecture]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("modality_type_vocab_size", 3, r"modality_type_vocab_size=3 can't be expressed here, where it is 2"),
        ("max_image_length", 200, r"max_image_length=200 can't be expressed here"),
        ("hidden_act", "gelu_new", r"hidden_act='gelu_new' can't be in the head"),
        ("architectures", ["ViltForTokenClassification"], r"'ViltForTokenClassification'.* ViltModel, ViltForMaskedLM"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, tmp_path):
    twins.random_model(transformers.ViltForMaskedLM, config()).save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")


def test_another_fusion_is_no_vilts(tmp_path):
    twins.random_model(transformers.ViltForMaskedLM, config()).save_pretrained(tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    bundle.config.fusions["stream"].kinds = False
    with pytest.raises(UserError, match=r"ViltForMaskedLM is nearest, but has\n  fusions.stream.kinds: True there"):
        hf_layout.write(bundle, tmp_path / "out")


def test_the_code_of_the_card_runs(tmp_path, monkeypatch, capsys):
    """It reads one text with one picture."""
    vocabularies.write_bert(tmp_path)
    tokenizer = SubwordTokenizer(tokenizer_json(tmp_path))
    sized = config(vocab_size=max(tokenizer.vocab_size, 120))
    twins.random_model(transformers.ViltForMaskedLM, sized).save_pretrained(tmp_path / "theirs")
    bundle = hf_layout.read(tmp_path / "theirs")
    cut = fdl.Config(Tokenize, fdl.Config(Subwords, sized.vocab_size), 9, bos=True, empty="keep")
    bundle.config.data.transforms["text"] = (fdl.Config(PickCaption, empty="keep"), cut)
    bundle = dataclasses.replace(bundle, tokenizers={"text": tokenizer})
    hf_layout.write(bundle, tmp_path / "out")
    code = re.search(r"```python\n(.*?)```", usage.how_to_load(tmp_path / "out", hf_layout.near(bundle)), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    assert "logits" in capsys.readouterr().out
