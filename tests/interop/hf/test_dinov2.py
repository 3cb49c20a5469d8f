"""DINOv2: the same embedding and gradients, there and back; positions of another size; sizes by shape."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.errors import UserError  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.interop.hf.dinov2 import MASK, positions_at  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "mlp_ratio": 2, "layerscale_value": 0.5}
FIELDS = SIZES | {"image_size": 28, "patch_size": 7}


def random_model(**changes):
    return twins.random_model(transformers.Dinov2Model, transformers.Dinov2Config(**FIELDS | changes))


def test_the_embedding_is_the_class_tokens(tmp_path):
    bundle, again = twins.there_and_back(random_model(), tmp_path)
    image, values = twins.pixels(bundle, 28)
    twins.close(twins.embed(bundle, "image", image), again(values).pooler_output)
    scales = bundle.variables["params"]["towers_image"]["transformer"]["blocks"]["scale_mlp"]["scale"]
    np.testing.assert_array_equal(scales[1], again.encoder.layer[1].layer_scale2.lambda1.detach().numpy())
    assert MASK in bundle.extras


def test_positions_are_brought_to_the_size_of_the_pictures(tmp_path):
    model = random_model()
    model.save_pretrained(tmp_path / "theirs")
    processor = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 48}, "crop_size": 42}
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(processor))
    bundle = hf_layout.read(tmp_path / "theirs")
    assert bundle.config.towers["image"].size == 42
    image, values = twins.pixels(bundle, 42)
    twins.close(twins.embed(bundle, "image", image), model(values).pooler_output)


@pytest.mark.parametrize(("old", "new"), [((4, 4), (6, 3)), ((37, 37), (16, 16))])
def test_positions_are_interpolated_as_pytorch_does(old, new):
    table = np.random.default_rng(0).standard_normal((1 + old[0] * old[1], 5)).astype(np.float32)
    grid = torch.from_numpy(table[1:]).reshape(1, *old, 5).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    got = positions_at(table, old, new)
    twins.close(got[1:], theirs.permute(0, 2, 3, 1).reshape(-1, 5))
    np.testing.assert_array_equal(got[0], table[0])


def test_a_model_without_a_mask_token_says_so(tmp_path):
    twins.there_and_back(random_model(use_mask_token=False), tmp_path)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["use_mask_token"] is False


PUBLISHED = {
    "small": ((384, 12, 6), 22_056_576),
    "base": ((768, 12, 12), 86_580_480),
    "large": ((1024, 24, 16), 304_368_640),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes(size):
    (width, depth, heads), parameters = PUBLISHED[size]
    config = transformers.Dinov2Config(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, image_size=518, use_mask_token=False
    )
    assert twins.fits_by_shape(transformers.Dinov2Model, config) == parameters - width  # the mask token


def test_what_cannot_be_expressed_is_named(tmp_path):
    random_model().save_pretrained(tmp_path / "theirs")
    twins.edited(tmp_path / "theirs", {"use_swiglu_ffn": True})
    with pytest.raises(UserError, match="use_swiglu_ffn=True can't be expressed here"):
        hf_layout.read(tmp_path / "theirs")
