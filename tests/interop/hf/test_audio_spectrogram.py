"""AST: the same features and embeddings from the same waveform, there and back; the published size by shape."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.errors import UserError  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from mmjax.models.towers.kaldi_fbank import KaldiFbank  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
FIELDS = SIZES | {"max_length": 44, "num_mel_bins": 40, "patch_size": 16, "time_stride": 10, "frequency_stride": 8}


def sounds(*lengths):
    """Noise with a tone that glides, as int16."""
    rng = np.random.default_rng(0)
    made = []
    for length in lengths:
        glide = np.sin(2 * np.pi * np.cumsum(np.linspace(200, 3000, length)) / 16_000)
        made.append((6000 * glide + 800 * rng.standard_normal(length) + 100).astype(np.int16))
    return made


def padded(waveforms, length):
    rows, mask = np.full((len(waveforms), length), 77, np.int16), np.zeros((len(waveforms), length), bool)
    for row, filled, sound in zip(rows, mask, waveforms, strict=True):
        row[: len(sound)], filled[: len(sound)] = sound[:length], True
    return rows, mask


def extractor(**changes):
    found = transformers.ASTFeatureExtractor(**{"num_mel_bins": 40, "max_length": 44} | changes)
    assert hasattr(found, "mel_filters"), "theirs without torchaudio is meant"
    return found


@pytest.mark.parametrize("mels", [40, 128])
def test_the_front_end(mels):
    """Golden: their extractor, which follows Kaldi."""
    (sound,) = sounds(16_000)
    theirs = extractor(num_mel_bins=mels, max_length=98)(sound / np.float32(32768), 16_000)["input_values"][0]
    front = KaldiFbank(mels=mels, mean=-4.2677393, std=2 * 4.5689974)
    ours = np.asarray(jax.jit(front)(sound[None]))[0]
    assert ours.shape == theirs.shape == (98, mels)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.fixture(scope="module")
def ast(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ast")
    model = twins.random_model(transformers.ASTModel, transformers.ASTConfig(**FIELDS))
    (folder / "theirs").mkdir()
    extractor(mean=-5.0, std=3.0).save_pretrained(folder / "theirs")
    return (*twins.there_and_back(model, folder), folder)


def test_embeddings_of_waveforms(ast):
    """Shorter and longer than the model's length, and from the other's features."""
    bundle, model, folder = ast
    waveforms = sounds(7_280, 3_000, 9_000)
    ours = twins.embed(bundle, "audio", *padded(waveforms, 7_280))
    again = transformers.ASTFeatureExtractor.from_pretrained(folder / "ours")
    assert again.to_dict() == extractor(mean=-5.0, std=3.0).to_dict()
    features = again([sound / np.float32(32768) for sound in waveforms], 16_000, return_tensors="pt")
    theirs = model(features["input_values"]).pooler_output
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-4 * np.abs(theirs.detach().numpy()).max())


def test_states_and_gradients_from_the_same_features(ast):
    """Without the front ends between, to the last digits."""
    bundle, model, folder = ast
    tower = hf_layout.built(hf_layout.Parts(bundle.config.towers, {})).towers["audio"]
    x, mask = padded(sounds(7_280, 3_000), 7_280)
    params = bundle.variables["params"]["towers_audio"]
    patches, _ = jax.jit(lambda params: tower.apply({"params": params}, x, mask, method="patches"))(params)
    front = tower.spectrogram
    real = np.asarray(jax.jit(front.frame_mask)(mask))
    features = np.where(real[..., None], jax.jit(front)(x), front.silence)
    assert patches.shape[1] == 3 * 4

    def loss(params):
        return (tower.apply({"params": params}, x, mask) ** 2).sum()

    with jax.default_matmul_precision("highest"):
        value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    theirs = (model(torch.tensor(np.asarray(features))).pooler_output ** 2).sum()
    twins.close(value, theirs)
    theirs.backward()
    flat = flatten_dict({"towers_audio": gradients}, sep="/")
    twins.same_gradients(bundle, flat, model, folder)


def test_the_one_that_classifies(tmp_path):
    """Its last layer travels beside the encoder."""
    config = transformers.ASTConfig(**FIELDS, id2label={i: f"LABEL_{i}" for i in range(5)})
    model = twins.random_model(transformers.ASTForAudioClassification, config)
    bundle, again = twins.there_and_back(model, tmp_path)
    assert bundle.extras["classifier.dense.weight"].shape == (5, 24)
    features = torch.randn(2, 44, 40)
    np.testing.assert_array_equal(again(features).logits.detach(), model(features).logits.detach())


def test_the_published_size():
    """MIT/ast-finetuned-audioset-10-10-0.4593, without the layer that classifies."""
    assert twins.fits_by_shape(transformers.ASTModel, transformers.ASTConfig()) == 86_187_264


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("config.json", "qkv_bias", False, "qkv_bias=False can't be expressed here, where it is True"),
        ("preprocessor_config.json", "sampling_rate", 8000, "sampling_rate=8000 can't be expressed"),
        ("preprocessor_config.json", "num_mel_bins", 64, "num_mel_bins=64, but in config.json it is 40"),
    ],
)
def test_what_cannot_be_expressed_is_named(ast, tmp_path, file, key, value, message):
    hf_layout.write(ast[0], tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value}, file)
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")
