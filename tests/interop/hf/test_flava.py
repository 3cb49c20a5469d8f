"""FLAVA: the same embeddings, tokens and gradients, there and back, with hidden patches too; its size by shape."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.data.transforms.image import Resize  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.hf.flava import EXTRAS, SCALE  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZES: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
FIELDS: dict[str, Any] = {
    "image_config": SIZES | {"hidden_size": 24, "image_size": 12, "patch_size": 4},
    "text_config": SIZES | {"hidden_size": 18, "vocab_size": 120, "max_position_embeddings": 9},
    "multimodal_config": SIZES | {"hidden_size": 12, "num_hidden_layers": 1},
    "projection_dim": 20,
    "hidden_size": 12,
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
HIDDEN = np.random.default_rng(3).random((3, 9)) < 0.4


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Ours and theirs, which has gone through ours and back; what each reads; and the folder."""
    folder = tmp_path_factory.mktemp("flava")
    model = twins.random_model(transformers.FlavaModel, transformers.FlavaConfig(**FIELDS))
    bundle, model = twins.there_and_back(model, folder)
    pictures, pixels = twins.pixels(bundle, 12)
    there = {f"{name}_valid": np.ones(3, bool) for name in ("text", "image")}
    ours = {"image": pictures, "text": IDS, "text_mask": MASK, "text_types": TYPES, "index": np.arange(3), **there}
    theirs = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK.astype(np.int64))}
    return bundle, model, ours, theirs | {"token_type_ids": torch.tensor(TYPES), "pixel_values": pixels}, folder


def read(bundle, params, batch, hidden):
    """Embeddings of both towers, the fused tokens, their embedding, and the towers' tokens after the last norm."""
    bound = {
        name: build(config).bind({"params": params[f"towers_{name}"]}) for name, config in bundle.config.towers.items()
    }
    fusion = build(bundle.config.fusions["multimodal"])

    def of(tower, *given, **told):
        tokens, mask = tower.tokens(*given, **told)
        return tokens, mask, tower.pool(tokens, mask), tower.normed(tokens)

    image = of(bound["image"], batch["image"], hidden=hidden)
    text = of(bound["text"], batch["text"], batch["text_mask"], types=batch["text_types"])
    fused, embedding = fusion.apply({"params": params["fusions_multimodal"]}, {"image": image[:2], "text": text[:2]})
    tokens = jnp.concatenate([fused["image"][0], fused["text"][0]], axis=1)
    return {"image": image[2], "text": text[2], "image_tokens": image[3], "text_tokens": text[3],
            "tokens": tokens, "embedding": embedding}  # fmt: skip


def theirs_of(model, given, hidden):
    out = model(**given, bool_masked_pos=None if hidden is None else torch.tensor(hidden))
    return {
        "image": model.image_projection(out.image_embeddings)[:, 0],
        "text": model.text_projection(out.text_embeddings)[:, 0],
        "image_tokens": out.image_embeddings,
        "text_tokens": out.text_embeddings,
        "tokens": out.multimodal_embeddings[:, 1:],
        "embedding": out.multimodal_output.pooler_output,
    }


REAL = {"text_tokens": MASK, "tokens": np.concatenate([np.ones((3, 10), bool), MASK], axis=1)}


@pytest.mark.parametrize("hidden", [None, HIDDEN], ids=["whole", "hidden"])
def test_everything_that_is_computed(hidden, both):
    """Embeddings, tokens after the last norms, fused tokens, the pooler; where padding is, theirs compute something."""
    bundle, model, ours, theirs, _ = both
    with jax.default_matmul_precision("highest"):
        found = jax.jit(lambda params: read(bundle, params, ours, hidden))(bundle.variables["params"])
    for name, expected in theirs_of(model, theirs, hidden).items():
        real = REAL.get(name, np.ones(expected.shape[:-1], bool))
        twins.close(np.asarray(found[name])[real], expected.detach().numpy()[real])
    embedded = jax.jit(lambda v: build(bundle.config).pretrainer().apply(v, ours, method="embed"))(bundle.variables)
    expected = theirs_of(model, theirs, None)["text"].detach().numpy()
    twins.close(embedded["text"], expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_every_gradient(both):
    """Of one random sum of all outputs, for every parameter, the mask token's among them."""
    bundle, model, ours, theirs, folder = both
    random = np.random.default_rng(0)
    shapes = {name: value.shape for name, value in theirs_of(model, theirs, HIDDEN).items()}
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {name: weights[name] * real[..., None] for name, real in REAL.items()}

    def loss(params):
        found = read(bundle, params, ours, HIDDEN)
        return sum(jnp.sum(found[name] * weights[name]) for name in weights)

    with jax.default_matmul_precision("highest"):
        gradients = jax.jit(jax.grad(loss))(bundle.variables["params"])
    gradients: Any = flatten_dict(gradients, sep="/")
    model.zero_grad()
    out = theirs_of(model, theirs, HIDDEN)
    torch.stack([(out[name] * torch.tensor(weights[name])).sum() for name in weights]).sum().backward()
    assert np.abs(gradients["towers_image/mask"]).max() > 0
    twins.same_gradients(bundle, gradients, model, folder)


def test_what_has_no_place_is_kept_or_made(both, tmp_path):
    """The poolers of the towers alone and the logit scale; a model that was made here gets such as change nothing."""
    bundle, model, _, theirs, _ = both
    assert set(bundle.extras) == set(EXTRAS)
    assert bundle.extras[SCALE] == model.logit_scale.detach().numpy()
    bundle.extras.clear()
    hf_layout.write(bundle, tmp_path / "bare")
    bare, report = transformers.FlavaModel.from_pretrained(tmp_path / "bare", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert bare.logit_scale.item() == pytest.approx(2.6592)
    assert not bare.text_model.pooler.dense.weight.any()
    out, again = (theirs_of(each.eval(), theirs, None) for each in (model, bare))
    for name, value in out.items():
        assert torch.equal(value, again[name]), name


def test_published_sizes():
    """The whole model's 241,356,289, without two poolers that nothing reads, and without the logit scale."""
    found = twins.fits_by_shape(transformers.FlavaModel, transformers.FlavaConfig())
    assert found == 241_356_289 - 2 * (768**2 + 768) - 1


def test_its_processor(tmp_path):
    """The released preprocessor_config.json: scaled to a square, and CLIP's colours."""
    model = twins.random_model(transformers.FlavaModel, transformers.FlavaConfig(**FIELDS))
    model.save_pretrained(tmp_path)
    said = {"feature_extractor_type": "FlavaFeatureExtractor", "size": 12, "crop_size": 12, "do_resize": True}
    said |= {"do_center_crop": True, "do_normalize": True, "resample": 3, "codebook_size": 112, "codebook_resample": 1}
    said |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    bundle = hf_layout.read(tmp_path)
    assert bundle.config.towers["image"].mean == (0.48145466, 0.4578275, 0.40821073)
    assert build(bundle.config.data.transforms["image"][-1]) == Resize(12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multimodal_config.use_cls_token": False}, r"multimodal_config: use_cls_token=False can't be expressed here"),
        ({"text_config.qkv_bias": False}, r"text_config: qkv_bias=False can't be expressed here"),
        ({"architectures": ["FlavaForPreTraining"]}, r"\['FlavaForPreTraining'\] can't be read; .* FlavaModel"),
    ],
)
def test_what_cannot_be_expressed_is_named(changes, message, both, tmp_path):
    both[1].save_pretrained(tmp_path)
    twins.edited(tmp_path, changes)
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path)


def test_another_fusion_is_not_theirs(both, tmp_path):
    bundle = both[0]
    bundle.config.fusions["multimodal"].kinds = True
    try:
        with pytest.raises(UserError, match=r"FlavaModel is nearest, but has\n  fusions.multimodal.kinds: False there"):
            hf_layout.write(bundle, tmp_path / "out")
    finally:
        bundle.config.fusions["multimodal"].kinds = False
