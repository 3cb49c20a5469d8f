"""CLIPModel: the same embeddings, logits and gradients, there and back; published sizes by shape."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.errors import UserError  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
TEXT = SIZES | {"vocab_size": 99, "max_position_embeddings": 7, "bos_token_id": 97, "eos_token_id": 98}
IMAGE = SIZES | {"hidden_size": 36, "image_size": 8, "patch_size": 4}
IDS = np.array([[97, 5, 98, 0, 0, 0, 0], [97, 4, 3, 6, 98, 0, 0], [97, 1, 2, 3, 4, 5, 98]])
MASK = np.array([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]], bool)


def config(**changes):
    text, image = ({**fields, **changes} for fields in (TEXT, IMAGE))
    return transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=10)


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def clip(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    model = twins.random_model(transformers.CLIPModel, config(hidden_act=request.param))
    return (*twins.there_and_back(model, folder), folder)


def batch_of(image):
    rows = np.ones(len(image), bool)
    return {"image": image, "text": IDS, "text_mask": MASK, "image_valid": rows, "text_valid": rows}


def scale_of(bundle):
    return bundle.variables["params"]["objectives_contrastive"]["log_scale"]


def test_embeddings_logits_loss_and_gradients(clip):
    bundle, model, folder = clip
    image, values = twins.pixels(bundle, 8)
    out = model(input_ids=torch.tensor(IDS), pixel_values=values, return_loss=True)
    twins.close(twins.embed(bundle, "image", image), model.get_image_features(values).pooler_output)
    twins.close(twins.embed(bundle, "text", IDS, MASK), model.get_text_features(torch.tensor(IDS)).pooler_output)
    twins.close(twins.cosines(bundle, image, IDS, MASK) * np.exp(scale_of(bundle)), out.logits_per_image)
    if model.config.vision_config.hidden_act != "quick_gelu":
        return  # once is enough: it compiles for seconds
    loss, gradients = twins.loss_and_gradients(bundle, batch_of(image))
    twins.close(loss, out.loss)
    model.zero_grad()
    out.loss.backward()
    twins.same_gradients(bundle, gradients, model, folder)


def test_the_end_of_a_text_by_the_rule_of_2022(tmp_path):
    """There `eos_token_id` is 2, and the highest id is meant."""
    model = twins.random_model(transformers.CLIPModel, config())
    model.config.text_config.eos_token_id = model.text_model.config.eos_token_id = model.text_model.eos_token_id = 2
    bundle, again = twins.there_and_back(model, tmp_path)
    twins.close(twins.embed(bundle, "text", IDS, MASK), model.get_text_features(torch.tensor(IDS)).pooler_output)
    twins.close(twins.embed(bundle, "text", IDS, MASK), again.get_text_features(torch.tensor(IDS)).pooler_output)


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("projection", [True, False])
def test_a_tower_alone(modality, projection, tmp_path):
    kind, fields = {"image": ("Vision", IMAGE), "text": ("Text", TEXT)}[modality]
    config = getattr(transformers, f"CLIP{kind}Config")(**fields, projection_dim=10)
    name = f"CLIP{kind}Model" + ("WithProjection" if projection else "")
    bundle, model = twins.there_and_back(twins.random_model(getattr(transformers, name), config), tmp_path)
    if modality == "image":
        image, values = twins.pixels(bundle, 8)
        ours, out = twins.embed(bundle, "image", image), model(values)
    else:
        ours, out = twins.embed(bundle, "text", IDS, MASK), model(torch.tensor(IDS))
    twins.close(ours, out[0] if projection else out.pooler_output)


PUBLISHED = {
    "base 32": (151_277_313, {}, {}, 512),
    "base 16": (149_620_737, {}, {"patch_size": 16}, 512),
    "large 14": (
        427_616_513,
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
        },
        768,
    ),
    "large 14 at 336": (
        427_944_193,
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "image_size": 336,
        },
        768,
    ),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes(size):
    parameters, text, image, projection = PUBLISHED[size]
    config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=projection)
    assert twins.fits_by_shape(transformers.CLIPModel, config) == parameters


def test_a_scale_above_the_clip_is_not_clipped(tmp_path):
    model = twins.random_model(transformers.CLIPModel, config())
    with torch.no_grad():
        model.logit_scale.fill_(4.7)
    bundle, _ = twins.there_and_back(model, tmp_path)
    assert bundle.config.objectives["contrastive"].scale_max == np.inf
    bundle.config.objectives["contrastive"].scale_max = 100.0  # now it is, here and in what is written
    hf_layout.write(bundle, tmp_path / "clipped")
    clipped = transformers.CLIPModel.from_pretrained(tmp_path / "clipped")
    np.testing.assert_allclose(clipped.logit_scale.exp().item(), 100, rtol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "clop", r"model_type='clop' isn't here; what can be read is clip, [\w, -]+$"),
        ("architectures", ["CLIPForImageClassification"], r"'CLIPForImageClassification'.*CLIPModel can"),
        ("architectures", -1, r"architectures=-1 is no list of names of classes"),
        ("text_config.hidden_act", "relu", r"text_config: hidden_act='relu' isn't here; gelu, [\w, ]+ are$"),
        ("vision_config.num_channels", 4, r"vision_config: num_channels=4 can't be expressed here, where it is 3"),
        ("vision_config.patch_size", [4, 2], r"patch_size=\[4, 2\] must be one number"),
        ("vision_config.patch_size", [], r"patch_size=\[\] must be one number"),
        ("text_config.hidden_act", ["gelu"], r"text_config: hidden_act=\['gelu'\] is"),
        ("text_config.hidden_size", "x", r"text_config: hidden_size='x' is no value of it, as 512 would be"),
        ("text_config.num_hidden_layers", -1, r"text_config: num_hidden_layers=-1 is no value of it"),
        ("vision_config.layer_norm_eps", "small", r"vision_config: layer_norm_eps='small' is no value of it"),
        ("vision_config.registers", 4, r"vision_config: registers=4 isn't known here"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, tmp_path):
    twins.random_model(transformers.CLIPModel, config()).save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")


def test_what_has_no_class_there_is_named(clip, tmp_path):
    bundle, _, folder = clip
    wanted = hf_layout.read(folder / "theirs")
    wanted.config.towers["image"].pooling = "mean"
    with pytest.raises(UserError, match=r"CLIPModel is nearest, but has\n  towers.image.pooling: 'cls' there, 'mean'"):
        hf_layout.write(wanted, tmp_path / "it")
    wanted.config.towers["image"].pooling, wanted.config.towers["text"].positions = "cls", "rotary"
    with pytest.raises(UserError, match=r"towers.text.positions: 'learned' there, 'rotary'"):
        hf_layout.write(wanted, tmp_path / "it")
    wanted.config.towers["text"].positions, wanted.config.towers["image"].blocks.out_bias = "learned", False
    with pytest.raises(UserError, match=r"towers.image.blocks.out_bias: True there, False"):
        hf_layout.write(wanted, tmp_path / "it")
    with pytest.raises(UserError, match="is there already"):
        hf_layout.write(bundle, folder)
