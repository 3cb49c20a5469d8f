"""SiglipModel: the same embeddings, logits and gradients, there and back; published sizes by shape."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.errors import UserError  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
TEXT = SIZES | {"vocab_size": 99, "max_position_embeddings": 7}
IMAGE = SIZES | {"image_size": 10, "patch_size": 4}  # as So400m/14 at 384: what fills no patch is not seen
IDS = np.array([[9, 5, 1, 1, 1, 1, 1], [7, 4, 3, 6, 1, 1, 1], [17, 11, 22, 3, 4, 5, 1]])
MASK = np.array([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]], bool)


def config(**changes):
    return transformers.SiglipConfig(text_config=TEXT | changes, vision_config=IMAGE)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    return (*twins.there_and_back(twins.random_model(transformers.SiglipModel, config()), folder), folder)


def test_embeddings_logits_loss_and_gradients(siglip):
    bundle, model, folder = siglip
    image, values = twins.pixels(bundle, 10)
    out = model(input_ids=torch.tensor(IDS), pixel_values=values, return_loss=True)
    twins.close(twins.embed(bundle, "image", image), model.get_image_features(values).pooler_output)
    twins.close(twins.embed(bundle, "text", IDS, MASK), model.get_text_features(torch.tensor(IDS)).pooler_output)
    own = bundle.variables["params"]["objectives_contrastive"]
    logits = twins.cosines(bundle, image, IDS, MASK) * np.exp(own["log_scale"]) + own["bias"]
    twins.close(logits, out.logits_per_image)
    rows = np.ones(len(image), bool)
    batch = {"image": image, "text": IDS, "text_mask": MASK, "image_valid": rows, "text_valid": rows}
    loss, gradients = twins.loss_and_gradients(bundle, batch)
    twins.close(loss, out.loss)
    model.zero_grad()
    out.loss.backward()
    twins.same_gradients(bundle, gradients, model, folder)


def test_a_head_to_another_size(tmp_path):
    """As in Siglip2's giant, whose towers are of different widths."""
    model = twins.random_model(transformers.SiglipTextModel, transformers.SiglipTextConfig(**TEXT, projection_size=10))
    bundle, again = twins.there_and_back(model, tmp_path)
    assert twins.embed(bundle, "text", IDS, MASK).shape == (3, 10)
    twins.close(twins.embed(bundle, "text", IDS, MASK), again(torch.tensor(IDS)).pooler_output)


def test_the_image_tower_alone(tmp_path):
    model = twins.random_model(transformers.SiglipVisionModel, transformers.SiglipVisionConfig(**IMAGE))
    bundle, again = twins.there_and_back(model, tmp_path)
    image, values = twins.pixels(bundle, 10)
    twins.close(twins.embed(bundle, "image", image), again(values).pooler_output)


LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
GIANT = {"hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 40, "num_attention_heads": 16}
GEMMA = {"vocab_size": 256_000}
PUBLISHED = {
    "base 16 at 224": ({}, {}),
    "base 16 at 512": ({}, {"image_size": 512}),
    "large 16 at 384": (LARGE, LARGE | {"image_size": 384}),
    "so400m 14 at 224": (SO400M | {"max_position_embeddings": 16}, SO400M | {"patch_size": 14}),
    "so400m 14 at 384": (SO400M, SO400M | {"patch_size": 14, "image_size": 384}),
    "2, base 32 at 256": (GEMMA, {"patch_size": 32, "image_size": 256}),
    "2, so400m 16 at 512": (SO400M | GEMMA, SO400M | {"image_size": 512}),
    "2, giant 16 at 384": (SO400M | GEMMA | {"projection_size": 1536}, GIANT | {"image_size": 384}),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes(size):
    text, image = PUBLISHED[size]
    config = transformers.SiglipConfig(text_config=text, vision_config=image)
    parameters = twins.fits_by_shape(transformers.SiglipModel, config)
    if size == "base 16 at 224":
        assert parameters == 203_155_970


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vision_config.vision_use_head", False, r"vision_use_head=False can't be expressed here, where it is True"),
        (
            "model_type",
            "siglip2",
            r"'siglip2' is SigLIP 2 .*\(NaFlex\); its image tower isn't here",
        ),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, siglip, tmp_path):
    hf_layout.write(siglip[0], tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")
