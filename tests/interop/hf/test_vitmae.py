"""ViTMAE: the same states, reconstruction loss and gradients with the same mask, there and back; sizes by shape."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.interop import weight_files  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.objectives.encoded import EncodedKept  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
DECODER = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
FIELDS = SIZES | {f"decoder_{name}": value for name, value in DECODER.items()} | {"image_size": 16, "patch_size": 4}
TABLES = ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed")


def config(**changes):
    return transformers.ViTMAEConfig(**FIELDS | changes)


def random_model(cls, config):
    """With the tables of positions that published files hold; a fresh model of theirs has zeros in their place."""
    from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

    model = twins.random_model(cls, config)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            side, width = round((parameter.shape[1] - 1) ** 0.5), parameter.shape[2]
            rows_first = build_2d_sinusoidal_position_embedding(side, side, width, cls_token=True)
            parameter.data = torch.cat([rows_first[:, width // 2 :], rows_first[:, : width // 2]], dim=1)[None]
            assert name.endswith(("position_embeddings", "decoder_pos_embed"))
    return model


def predictions(bundle, image, keep):
    """What our decoder says of every patch."""
    tower, objective = build(bundle.config.towers["image"]), build(bundle.config.objectives["masked"])

    @jax.jit
    def run(params):
        tokens, mask = tower.apply({"params": params["towers_image"]}, image, None, keep, method="tokens")
        patches, real = tower.patches(image)
        encoded = EncodedKept(tokens, mask, tokens[:, 0], tower.prefix, patches, real, keep, tower.grid(image))
        return objective.apply({"params": params["objectives_masked"]}, encoded, method="predictions")

    with jax.default_matmul_precision("highest"):
        return run(bundle.variables["params"])


def noise_that_keeps(keep, patches):
    """What their random numbers must be for the patches `keep` to stay."""
    noise = np.ones((len(keep), patches), np.float32)
    np.put_along_axis(noise, np.asarray(keep), 0, axis=1)
    return torch.from_numpy(noise)


@pytest.mark.parametrize("normalised", [True, False])
def test_reconstruction_with_the_same_mask(normalised, tmp_path):
    ratio = 0.75 if normalised else 0.7  # 4 of 16 patches stay; of 4.8, theirs keeps 4 and ours would keep 5
    model = random_model(transformers.ViTMAEForPreTraining, config(norm_pix_loss=normalised, mask_ratio=ratio))
    bundle, model = twins.there_and_back(model, tmp_path, computed=TABLES)
    image, values = twins.pixels(bundle, 16)
    batch = {"image": image, "image_valid": np.ones(3, bool), "index": np.arange(3)}
    module = build(bundle.config).pretrainer()
    key = jax.random.key(5)
    view = module.objectives["masked"].views()[0]
    step_key = module.apply({}, method=lambda self: self.make_rng("mask"), rngs={"mask": key})
    keep = jax.jit(view.masking.draw)(view.key(step_key), np.arange(3), np.ones((3, 16), bool))
    assert keep.shape == (3, 4)
    theirs = model(values, noise=noise_that_keeps(keep, 16))
    if not normalised:  # the gradient once is enough: it compiles for seconds
        twins.close(twins.loss_of(bundle, batch, rngs={"mask": key})(bundle.variables["params"]), theirs.loss)
        twins.close(predictions(bundle, image, keep), theirs.logits)
        return
    loss, gradients = twins.loss_and_gradients(bundle, batch, rngs={"mask": key})
    twins.close(loss, theirs.loss)
    theirs.loss.backward()
    twins.same_gradients(bundle, gradients, model, tmp_path)


def test_the_encoder_alone(tmp_path):
    model = random_model(transformers.ViTMAEModel, config(mask_ratio=0.0))
    bundle, again = twins.there_and_back(model, tmp_path, computed=("embeddings.position_embeddings",))
    image, values = twins.pixels(bundle, 16)
    again.config.mask_ratio = 0.0  # of pretraining: an encoder alone has none
    states = again(values, noise=torch.arange(16.0).repeat(3, 1)).last_hidden_state
    twins.close(twins.embed(bundle, "image", image), states[:, 0])


def test_the_names_of_version_4_are_written(tmp_path):
    model = random_model(transformers.ViTMAEForPreTraining, config())
    twins.there_and_back(model, tmp_path, computed=TABLES)
    names = weight_files.read(tmp_path / "ours")
    for layer in ("vit.encoder.layer.1", "decoder.decoder_layers.1"):
        for part in ("attention.attention.query", "attention.output.dense", "intermediate.dense", "output.dense"):
            assert f"{layer}.{part}.weight" in names


PUBLISHED = {
    "base": ({}, 111_655_680),
    "large": (
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        329_239_296,
    ),
    "huge": (
        {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
        656_613_964,
    ),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes(size):
    fields, parameters = PUBLISHED[size]
    config = transformers.ViTMAEConfig(**fields)
    assert twins.fits_by_shape(transformers.ViTMAEForPreTraining, config) == parameters


def test_what_cannot_be_expressed_is_named(tmp_path):
    model = random_model(transformers.ViTMAEForPreTraining, config())
    with torch.no_grad():
        model.decoder.decoder_pos_embed[0, 3, 5] += 0.01
    model.save_pretrained(tmp_path / "moved")
    with pytest.raises(UserError, match=r"decoder.decoder_pos_embed isn't the table of sines and cosines"):
        hf_layout.read(tmp_path / "moved")
    twins.edited(tmp_path / "moved", {"qkv_bias": False})
    with pytest.raises(UserError, match=r"qkv_bias=False can't be expressed here"):
        hf_layout.read(tmp_path / "moved")
