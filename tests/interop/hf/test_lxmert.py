"""LXMERT: the same tokens, embedding, losses of its heads and gradients, there and back; published sizes by shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.interop import bundle as bundles  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.hf import lxmert, usage  # noqa: E402
from mmjax.objectives.contract import View  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

FEATURES, OBJECTS, ATTRIBUTES = 7, 11, 5
FIELDS: dict[str, Any] = {
    **{"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3, "l_layers": 3, "r_layers": 1},
    **{"x_layers": 2, "vocab_size": 120, "max_position_embeddings": 9, "visual_feat_dim": FEATURES},
    **{"num_object_labels": OBJECTS, "num_attr_labels": ATTRIBUTES, "num_qa_labels": 13},
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
TABLES = ("position", "type")  # whose first row there is taken for padding: it has no gradient


def config(**changes):
    return transformers.LxmertConfig(**FIELDS | changes)


def batch(regions=(36, 36, 36)):
    """Ours, and what theirs takes; regions: how many are real."""
    random = np.random.default_rng(1)
    corners = np.sort(random.uniform(size=(3, 36, 2, 2)), axis=2).reshape(3, 36, 4)
    rows = np.concatenate([random.normal(size=(3, 36, FEATURES)), corners], axis=2).astype(np.float32)
    boxes = np.arange(36) < np.array(regions)[:, None]
    ours: dict[str, Any] = {"text": IDS, "text_mask": MASK, "text_types": TYPES, "regions": rows, "regions_mask": boxes}
    for name, count in (("objects", OBJECTS), ("attributes", ATTRIBUTES)):
        ours[f"regions_{name}"] = random.integers(0, count, (3, 36)).astype(np.int32)
        ours[f"regions_{name}_confidence"] = random.uniform(0.1, 1, (3, 36)).astype(np.float32)
    ours |= {f"{name}_valid": np.ones(3, bool) for name in ("text", "regions")} | {"index": np.arange(3)}
    theirs = {"input_ids": torch.tensor(IDS).long(), "token_type_ids": torch.tensor(TYPES).long()}
    theirs |= {"attention_mask": torch.tensor(MASK).float(), "visual_attention_mask": torch.tensor(boxes).float()}
    return ours, theirs | {"visual_feats": torch.tensor(rows[..., :-4]), "visual_pos": torch.tensor(rows[..., -4:])}


def as_theirs(gradients):
    """Ours, without the rows that are padding there. No word that counts is of id 0."""
    flat: dict[str, Any] = flatten_dict(gradients, sep="/")
    for table in TABLES:
        path = f"towers_text/{table}"
        flat[path] = jnp.asarray(flat[path]).at[0].set(0)
    return flat


def test_tokens_embedding_and_gradients(tmp_path):
    """Of sentences and pictures of all lengths."""
    bundle, model = twins.there_and_back(twins.random_model(transformers.LxmertModel, config()), tmp_path)
    given, theirs = batch(regions=(36, 1, 20))
    out = model(**theirs)
    expected = {"text": out.language_output, "regions": out.vision_output, "pooled": out.pooled_output}
    random = np.random.default_rng(2)
    weights = {name: random.normal(size=x.shape).astype(np.float32) for name, x in expected.items()}
    for name, mask in (("text", MASK), ("regions", given["regions_mask"])):
        weights[name] *= mask[..., None]
    torch.stack([(x * torch.tensor(weights[name])).sum() for name, x in expected.items()]).sum().backward()
    module = build(bundle.config).pretrainer()

    def loss(params):
        with jax.default_matmul_precision("highest"):
            fused = module.apply({"params": params}, given, lxmert.FUSION, method="fused")
        found = {"text": fused.parts[0].tokens, "regions": fused.parts[1].tokens, "pooled": fused.embedding}
        return sum((x * weights[name]).sum() for name, x in found.items()), found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(bundle.variables["params"])
    for name, mask in (("text", MASK), ("regions", given["regions_mask"]), ("pooled", slice(None))):
        twins.close(np.asarray(found[name])[mask], expected[name].detach().numpy()[mask])
    twins.same_gradients(bundle, as_theirs(gradients), model, tmp_path)
    kept = bundles.read(bundles.save(bundle, tmp_path / "kept"))
    for path, array in flatten_dict(bundle.variables, sep="/").items():
        np.testing.assert_array_equal(flatten_dict(kept.variables, sep="/")[path], array)


def test_the_heads_of_pretraining(tmp_path):
    """Their losses of hidden words, and of hidden regions, and the logits of belonging together; the gradient of the
    sum. Theirs are means over all regions, times a normaliser and each region's confidence."""
    made = config()
    model = twins.random_model(transformers.LxmertForPreTraining, made)
    bundle, model = twins.there_and_back(model, tmp_path)
    assert set(bundle.extras) == set(lxmert.ANSWERS)
    module, (given, theirs) = build(bundle.config).pretrainer(), batch()
    rngs, weights = {"mask": jax.random.key(0)}, np.array([[1, -2], [0.5, 1], [-1, 3]], np.float32)

    def loss(params):
        with jax.default_matmul_precision("highest"):
            _, metrics = module.apply({"params": params}, given, train=False, rngs=rngs)
            logits = module.apply({"params": params}, given, "matched", method="predict")
        return metrics["masked/loss"] + metrics["boxes/loss"] + (logits * weights).sum(), (metrics, logits)

    (value, (metrics, logits)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(bundle.variables["params"])
    key = module.apply({}, method=lambda module: module.make_rng("mask"), rngs=rngs)
    words, boxes = build(bundle.config.objectives["masked"]).corrupt, build(bundle.config.objectives["boxes"]).corrupt
    seen, chosen = (np.asarray(x) for x in words.draw(View("text", words).key(key), given["index"], IDS, MASK))
    features = given["regions"][..., :-4]
    hidden, taken = (
        np.asarray(x)
        for x in boxes.draw(View("regions", boxes).key(key), given["index"], features, given["regions_mask"])
    )
    assert chosen.any()
    assert taken.any()
    labels = torch.tensor(np.where(chosen, IDS, -100)).long()
    masked = model(**theirs | {"input_ids": torch.tensor(seen).long()}, labels=labels)
    twins.close(metrics["masked/loss"], masked.loss)
    share = taken * (taken.size / taken.sum() / made.visual_loss_normalizer)
    targets = {
        lxmert.TARGETS[name]: (
            torch.tensor(given[f"regions_{name}"]).long(),
            torch.tensor((share * given[f"regions_{name}_confidence"]).astype(np.float32)),
        )
        for name in ("objects", "attributes")
    } | {"feat": (torch.tensor(features), torch.tensor(share.astype(np.float32)))}
    regions = model(**theirs | {"visual_feats": torch.tensor(hidden)}, obj_labels=targets)
    twins.close(metrics["boxes/loss"], regions.loss)
    matched = model(**theirs).cross_relationship_score
    twins.close(logits, matched)
    total = masked.loss + regions.loss + (matched * torch.tensor(weights)).sum()
    twins.close(value, total)
    total.backward()
    twins.same_gradients(bundle, as_theirs(gradients), model, tmp_path)


def test_a_model_without_answers(tmp_path):
    """What was trained here has no head of answers, and there none either."""
    twins.random_model(transformers.LxmertForPreTraining, config()).save_pretrained(tmp_path / "whole")
    bundle = hf_layout.read(tmp_path / "whole")
    bundle.extras.clear()
    hf_layout.write(bundle, tmp_path / "out")
    again, report = transformers.LxmertForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert not again.config.task_qa
    assert hf_layout.read(tmp_path / "out").extras == {}


@pytest.mark.parametrize("architecture", ["LxmertModel", "LxmertForPreTraining"])
def test_published_sizes(architecture):
    """The first as many as the experiment says; the heads in closed form, the words' tied, and without answers."""
    width, vocab, targets = 768, 30_522, 1_600 + 400 + 2_048
    heads = 2 * (width**2 + 3 * width) + vocab + targets * (width + 1) + 2 * (width + 1)
    found = twins.fits_by_shape(getattr(transformers, architecture), transformers.LxmertConfig())
    assert found == 207_936_768 + (heads if architecture == "LxmertForPreTraining" else 0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("visual_pos_dim", 5, r"visual_pos_dim=5 can't be expressed here, where it is 4"),
        ("visual_attr_loss", False, r"visual_attr_loss=False can't be expressed here, where it is True"),
        ("hidden_act", "gelu_new", r"hidden_act='gelu_new' can't be in the heads here: it is 'gelu'"),
        ("architectures", ["LxmertForQuestionAnswering"], r"'LxmertForQuestionAnswering'.* LxmertModel, LxmertForPre"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, tmp_path):
    twins.random_model(transformers.LxmertForPreTraining, config()).save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")


def test_other_streams_are_none_of_theirs(tmp_path):
    twins.random_model(transformers.LxmertModel, config()).save_pretrained(tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    bundle.config.fusions[lxmert.FUSION].shared = False
    with pytest.raises(UserError, match=r"LxmertModel is nearest, but has\n  fusions.cross.shared: True there"):
        hf_layout.write(bundle, tmp_path / "out")


def test_the_code_of_the_card_runs(tmp_path, monkeypatch, capsys):
    twins.random_model(transformers.LxmertModel, config()).save_pretrained(tmp_path / "it")
    bundle = hf_layout.read(tmp_path / "it")
    code = usage.how_to_load(hf_layout.write(bundle, tmp_path / "out"), hf_layout.near(bundle))
    monkeypatch.chdir(tmp_path)
    exec(code.split("```python\n")[1].split("```")[0], {})
    assert "pooled_output" in capsys.readouterr().out
