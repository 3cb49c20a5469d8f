"""A model from a workdir: what is at hand goes in, unit vectors come out, as training would have computed them."""

import copy
import inspect
import io
import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_overloads, get_type_hints

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from PIL import Image

import mmjax
from mmjax.errors import UserError
from mmjax.experiment.graph import build
from mmjax.inference.classification import Classification
from mmjax.inference.loaded_towers import compute_in
from mmjax.inference.model import Model, Vectors, load
from mmjax.interop.resolve import resolve
from mmjax.models import Blocks, Given, ResNet, TextTransformer, Trunk
from mmjax.runtime.checkpoints import restore_variables
from tests.tiny import COLOURS, RATE, SAMPLES, SIDE, draw
from tests.trained import Trained

CAPTIONS = ["a red disc", "a blue bar", "a pink cross", "", "green"]


def pictures(count=5):
    rng = np.random.default_rng(1)
    return [draw(i % len(COLOURS), i % 4, rng) for i in range(count)]


def waves(count=3):
    rng = np.random.default_rng(2)
    return [rng.integers(-9000, 9000, SAMPLES - 100 * i).astype(np.int16) for i in range(count)]


def call(function: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What no editor would let pass."""
    return function(*given, **named)


@pytest.fixture(scope="module")
def model(trained: Trained) -> Model:
    return load(trained.workdir)


@pytest.fixture(scope="module")
def whole(model: Model):
    """Everything in one batch, by the pretrainer itself: what `embed` is compared with."""
    batch = model._chains.encode(image=pictures(3), text=CAPTIONS[:3], audio=waves())
    return jax.device_get(model.experiment.pretrainer().apply(model.variables, batch, method="embed"))


def test_the_package_gives_it(trained: Trained):
    assert mmjax.load is load
    assert mmjax.Model is Model


def test_it_embeds_as_the_pretrainer_does(model: Model, whole):
    ours = model.embed(image=pictures(3), text=CAPTIONS[:3], audio=waves())
    assert ours.keys() == whole.keys()
    for modality, vectors in ours.items():
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, whole[modality], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_one_is_a_vector_and_a_list_a_matrix(model: Model, whole):
    for modality, values in {"image": pictures(3), "text": CAPTIONS[:3], "audio": waves()}.items():
        given: Any = {modality: values[1]}
        one = model.embed(**given)
        assert one.shape == (16,)
        np.testing.assert_allclose(one, whole[modality][1], atol=1e-6)
        given[modality] = [values[1]]
        assert model.embed(**given).shape == (1, 16)
        given[modality] = (value for value in values)
        generated = model.embed(**given)
        np.testing.assert_allclose(generated, whole[modality], atol=1e-6)
        given[modality] = []
        empty = model.embed(**given)
        assert empty.shape == (0, 16)
        assert empty.dtype == np.float32


def test_neither_the_batch_nor_its_padding_changes_a_vector(model: Model):
    values = pictures(9)
    at_once = model.embed(image=values, batch_size=16)
    for size in (1, 4, 9):
        np.testing.assert_allclose(model.embed(image=values, batch_size=size), at_once, atol=1e-6)
    texts = [*CAPTIONS, "a", "red disc"]
    np.testing.assert_allclose(
        model.embed(text=texts, batch_size=3), np.stack([model.embed(text=t) for t in texts]), atol=1e-6
    )


def test_a_handful_of_sizes_is_compiled(trained: Trained):
    model = load(trained.workdir, batch_size=16)
    values = pictures(40)
    compiled = model._embedder._embed._cache_size  # pyright: ignore[reportAttributeAccessIssue]
    model.embed(image=values[:1])
    devices = jax.local_device_count()
    assert model._embedder.bucket(1) == devices
    assert compiled() == 1
    model.embed(image=values[:devices])  # the same size
    assert compiled() == 1
    model.embed(image=values)  # 16, 16, and a tail of 8
    assert compiled() == (1 if devices >= 16 else 2)
    for count in range(1, 17):
        model.embed(image=values[:count])
    assert compiled() == (1 if devices >= 16 else 2)
    model.embed(text=CAPTIONS)
    assert compiled() == (2 if devices >= 16 else 3)


def test_the_devices_share_the_work_and_no_mesh_is_left(model: Model):
    model.embed(image=pictures(2))
    assert jax.sharding.get_abstract_mesh().empty
    assert model._embedder._mesh.size == jax.local_device_count() == 8
    leaf = jax.tree.leaves(model._embedder._variables)[0]
    assert len(leaf.sharding.device_set) == 8


def test_a_mesh_of_the_users_does_no_harm(model: Model, whole):
    mesh = jax.make_mesh((8,), ("mine",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(model.embed(image=pictures(3)), whole["image"], atol=1e-6)


def test_every_way_to_give_a_picture(model: Model, tmp_path):
    picture = pictures(1)[0]
    file = tmp_path / "cat.png"
    picture.save(file)
    expected = model.embed(image=picture)
    pixels = np.asarray(picture)
    ways = [str(file), file, file.read_bytes(), pixels, jnp.asarray(pixels), Image.open(file)]
    for way in ways:
        np.testing.assert_allclose(model.embed(image=way), expected, atol=1e-6)
    np.testing.assert_allclose(model.embed(image=ways), np.stack([expected] * len(ways)), atol=1e-6)
    np.testing.assert_allclose(model.embed(image=np.stack([pixels] * 3)), np.stack([expected] * 3), atol=1e-6)
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    np.testing.assert_allclose(model.embed(image=opaque), expected, atol=1e-6)


def test_grey_transparent_cmyk_palette_and_16_bit_pictures(model: Model):
    picture = pictures(1)[0]
    grey = picture.convert("L")
    as_rgb = model.embed(image=grey.convert("RGB"))
    pixels = np.asarray(grey)
    for way in (
        grey,
        pixels,
        pixels[..., None],
        pixels.astype(np.uint16) * 257,
        Image.fromarray(pixels * np.uint16(257)),
    ):
        np.testing.assert_allclose(model.embed(image=way), as_rgb, atol=1e-6)
    np.testing.assert_allclose(
        model.embed(image=picture.convert("P")), model.embed(image=picture.convert("P").convert("RGB")), atol=1e-6
    )
    np.testing.assert_allclose(
        model.embed(image=picture.convert("CMYK")), model.embed(image=picture.convert("CMYK").convert("RGB")), atol=1e-6
    )
    clear = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    np.testing.assert_allclose(
        model.embed(image=clear), model.embed(image=Image.new("RGB", (SIDE, SIDE), "white")), atol=1e-6
    )


def test_floats_of_the_models_own_size_are_taken_as_they_are(model: Model):
    pixels = model.preprocess(image=pictures(3))["image"]
    tower = model.towers["image"]
    normalised = ((pixels / 255 - np.array(tower.mean)) / np.array(tower.std)).astype(np.float32)
    expected = model.embed(image=pictures(3))
    np.testing.assert_allclose(model.embed(image=normalised), expected, atol=1e-5)
    np.testing.assert_allclose(model.embed(image=normalised[1].astype(np.float64)), expected[1], atol=1e-5)
    mixed = model.embed(image=[pixels[0], normalised[1], pixels[2]])  # two kinds of rows, in their order
    np.testing.assert_allclose(mixed, expected, atol=1e-5)
    assert model.preprocess(image=normalised)["image"].dtype == np.float32
    with pytest.raises(UserError, match=r"float array \[20, 16, 3\]: floats are taken as preprocessed.*\[16, 16, 3\]"):
        model.embed(image=np.zeros((20, 16, 3), np.float32))
    with pytest.raises(UserError, match=r"values up to 255.*give pixels as uint8"):
        model.embed(image=np.full((SIDE, SIDE, 3), 255.0))
    with pytest.raises(UserError, match="aren't finite"):
        model.embed(image=np.full((SIDE, SIDE, 3), np.nan))


def test_all_that_computes_does_in_the_dtype_that_is_asked_for(trained: Trained):
    model = load(trained.workdir, dtype="bfloat16")
    assert {tower.blocks.dtype for tower in model.towers.values()} == {"bfloat16"}
    assert "image  ViT: 16×16×3 -> 16; width 32, depth 1, patch 4;" in repr(model)
    trunk = fdl.Config(Trunk, blocks=fdl.Config(Blocks, width=8, depth=1, heads=2))
    towers = {
        "text": fdl.Config(TextTransformer, vocab=9, length=3, trunk=trunk),
        "image": fdl.Config(ResNet, layers=(1, 1, 1, 1), size=32, embed_dim=4),
        "audio": fdl.Config(Given, embed_dim=4),
    }
    compute_in(towers, "float16")
    assert (trunk.blocks.dtype, towers["image"].dtype) == ("float16", "float16")
    build(towers["audio"])  # it computes nothing


@pytest.mark.parametrize("dtype", ["bf16", "float64", "half", ""])
def test_a_dtype_that_towers_do_not_compute_in_is_an_error_at_once(dtype):
    with pytest.raises(UserError, match=f"dtype='{dtype}' is none of float32, bfloat16, float16, which towers"):
        load("nowhere at all", dtype=dtype)


def test_token_ids_are_taken_as_they_are(model: Model):
    arrays = model.preprocess(text=CAPTIONS)
    expected = model.embed(text=CAPTIONS)
    np.testing.assert_allclose(model.embed(text=arrays["text"]), expected, atol=1e-6)
    short = arrays["text"][4][arrays["text_mask"][4]]
    assert len(short) < arrays["text"].shape[1]
    np.testing.assert_allclose(model.embed(text=short), expected[4], atol=1e-6)
    with pytest.raises(UserError, match=r"holds ids from 0 to 9999; the tokenizer's are 0 to \d+"):
        model.embed(text=np.array([0, 9999]))
    with pytest.raises(UserError, match=r"ids \[9\]; ids are an array \[L\] of 1 to 8"):
        model.embed(text=np.ones(9, np.int32))


def test_a_long_text_is_cut_and_said_once(trained: Trained):
    model = load(trained.workdir)
    long = "red disc blue bar " * 20
    with pytest.warns(UserWarning, match=r"text 1 has \d+ tokens, of which the model reads the first 7"):
        cut = model.embed(text=["red", long, long + "green"])
    np.testing.assert_allclose(cut[1], cut[2], atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed(text=long)


def test_an_empty_text_is_a_text(model: Model):
    vectors = model.embed(text=["", "  ", "a red disc"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0] @ vectors[2] < 0.9999


def test_a_picture_is_seen_as_people_see_it(model: Model, trained: Trained, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = pictures(3)[2].crop((0, 0, 12, 16))
    upright, phone = tmp_path / "upright.png", tmp_path / "phone.png"
    picture.save(upright)
    picture.transpose(Image.Transpose.ROTATE_90).save(phone, exif=exif)  # as the camera held it
    expected = model.embed(image=upright)
    for way in (phone, str(phone), phone.read_bytes(), Image.open(phone), Image.open(phone).convert("RGBA")):
        np.testing.assert_allclose(model.embed(image=way), expected, atol=1e-6)
    # A model whose own preprocessing leaves pictures as they were held, as other projects' do.
    bundle = resolve(trained.workdir)
    bundle.config.data.transforms["image"][0].upright = False
    np.testing.assert_allclose(Model(bundle).embed(image=phone), expected, atol=1e-6)
    theirs = Model(bundle, upright=False)
    lying = theirs.embed(image=picture.transpose(Image.Transpose.ROTATE_90))
    np.testing.assert_allclose(theirs.embed(image=phone), lying, atol=1e-6)
    assert lying @ expected < 0.999
    assert theirs.classify(phone, labels=["red", "pink"]).probabilities.shape == (2,)
    np.testing.assert_allclose(load(trained.workdir, upright=False).embed(image=phone), expected, atol=1e-6)


def test_a_sound_that_is_clipped_is_said_once(trained: Trained):
    model, (wave,) = load(trained.workdir), waves(1)
    with pytest.warns(UserWarning, match=r"^the audio: 100% of its samples lie at full scale"):
        clipped = model.embed(audio=np.sign(wave + 0.5) * np.float32(1.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        full = model.embed(audio=(np.sign(wave + 0.5) * 32_767).astype(np.int16))
        load(trained.workdir).embed(audio=wave)
    np.testing.assert_allclose(clipped, full, atol=1e-6)


def test_a_sound_that_is_longer_than_the_model_hears_is_said_once(trained: Trained, tmp_path):
    bundle, wave = resolve(trained.workdir), np.concatenate(waves(1) * 25)[: SAMPLES * 73 // 10]
    soundfile.write(tmp_path / "long.wav", wave, RATE)
    for way, name in (
        (wave, "the audio"),
        ((wave[::2], RATE // 2), "the audio"),
        ((tmp_path / "long.wav").read_bytes(), "the audio"),
        (tmp_path / "long.wav", "audio long.wav"),
    ):
        model = Model(bundle)
        with pytest.warns(UserWarning, match=rf"^{name}: the first 0.1 of 0.7 seconds are heard, what follows is cut"):
            model.preprocess(audio=way)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.preprocess(audio=way)
            Model(bundle).preprocess(audio=wave[:SAMPLES])


def test_every_way_to_give_a_sound(model: Model, tmp_path):
    (wave,) = waves(1)
    file = tmp_path / "beep.wav"
    soundfile.write(file, wave, RATE)
    expected = model.embed(audio=wave)
    stereo = np.stack([wave, wave])
    ways = [str(file), file, file.read_bytes(), (wave, RATE), (wave / np.float32(32767), RATE), (stereo, RATE)]
    ways += [(stereo.T, RATE), (jnp.asarray(wave), np.int64(RATE)), (wave.astype(np.int32) * 2**16, RATE), wave]
    for way in ways:
        np.testing.assert_allclose(model.embed(audio=way), expected, atol=2e-4)
    assert model.embed(audio=ways).shape == (len(ways), 16)
    assert model.embed(audio=np.stack([wave, wave])).shape == (2, 16)  # of the model's own length


def test_other_rates_are_resampled(model: Model, tmp_path):
    time = np.arange(SAMPLES // 2) / 8000
    slow = (0.3 * np.sin(2 * np.pi * 440 * time) * 32767).astype(np.int16)
    file = tmp_path / "slow.wav"
    soundfile.write(file, slow, 8000)
    from_file = model.embed(audio=file)  # which the chain itself resamples
    np.testing.assert_allclose(model.embed(audio=(slow, 8000)), from_file, atol=1e-6)
    assert from_file @ model.embed(audio=(slow, RATE)) < 0.9999  # taken at the wrong rate it is another sound


def test_similarity_is_the_cosine(model: Model):
    values = pictures(3)
    vectors = model.embed(image=values, text=CAPTIONS)
    expected = vectors["image"] @ vectors["text"].T
    np.testing.assert_allclose(model.similarity(image=values, text=CAPTIONS), expected, atol=1e-6)
    np.testing.assert_allclose(model.similarity(text=CAPTIONS, image=values), expected.T, atol=1e-6)
    np.testing.assert_allclose(model.similarity(vectors["image"], text=CAPTIONS), expected, atol=1e-6)
    np.testing.assert_allclose(model.similarity(3 * vectors["image"], vectors["text"]), expected, atol=1e-6)
    assert model.similarity(image=values[0], text=CAPTIONS).shape == (5,)
    assert model.similarity(image=values[0], text="red").shape == ()
    with pytest.raises(UserError, match=r"similarity\(\) compares two sides, not 1"):
        model.similarity(image=values)
    with pytest.raises(UserError, match=r"inputs are given by name"):
        model.similarity(["a cat"], vectors["image"])
    with pytest.raises(UserError, match=r"vectors of one size, not vectors of 3 and text of 16 dimensions"):
        model.similarity(np.ones((2, 3), np.float32), text="red")


def test_probabilities_are_by_the_learned_scale(model: Model):
    cosines = model.similarity(image=pictures(3), text=CAPTIONS)
    scale = min(100.0, np.exp(float(model.params["objectives_image_text"]["log_scale"])))
    np.testing.assert_allclose(model.logits(image=pictures(3), text=CAPTIONS), scale * cosines, rtol=1e-4, atol=1e-4)
    expected = jax.nn.softmax(scale * cosines, axis=-1)
    np.testing.assert_allclose(model.probabilities(image=pictures(3), text=CAPTIONS), expected, atol=1e-4)
    with pytest.raises(UserError, match=r"no scale for audio and image: .*image_text \(image and text\)"):
        model.logits(image=pictures(1), audio=waves(1))
    vectors = model.embed(image=pictures(3), text=CAPTIONS)
    with pytest.raises(UserError, match="several objectives fit"):
        model.logits(vectors["image"], vectors["text"])
    given = model.logits(vectors["image"], vectors["text"], objective="image_text")
    np.testing.assert_allclose(given, scale * cosines, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"objective='image_txt'.*did you mean image_text"):
        model.logits(vectors["image"], vectors["text"], objective="image_txt")


def test_classification_by_labels_and_templates(model: Model):
    values, labels, templates = pictures(3), ["disc", "bar", "cross"], ["a red {}", "a {}"]
    result = model.classify(values, labels=labels, templates=templates)
    prompts = model.embed(text=[t.format(label) for label in labels for t in templates]).reshape(3, 2, -1)
    classes = prompts.mean(axis=1) / np.linalg.norm(prompts.mean(axis=1), axis=-1, keepdims=True)
    scale = min(100.0, np.exp(float(model.params["objectives_image_text"]["log_scale"])))
    expected = jax.nn.softmax(scale * model.embed(image=values) @ classes.T)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-4)
    assert result.best == [labels[i] for i in expected.argmax(axis=1)]
    one = model.classify(values[0], labels=labels, templates=templates)
    np.testing.assert_allclose(one.probabilities, expected[0], atol=1e-4)
    assert one.best == result.best[0] == one.top(1)[0][0]
    assert model.classify(audio=waves(2), labels=labels).probabilities.shape == (2, 3)
    many = model.classify(values[0], labels=labels, templates="clip80")
    assert many.probabilities.shape == (3,)


def test_what_it_is_is_printed(model: Model, trained: Trained):
    text = repr(model)
    assert text.startswith(f"mmjax.Model from {trained.workdir}, step 24")
    assert "image  ViT: 16×16×3 -> 16; width 32, depth 1, patch 4; " in text
    assert model.modalities == ("image", "text", "audio")
    assert set(model.towers) == set(model.modalities)
    assert model.experiment.steps == 24
    theirs = restore_variables(trained.workdir)
    jax.tree.map(np.testing.assert_array_equal, model.params, theirs["params"])


def test_preprocessing_is_the_chains(model: Model):
    ours = model.preprocess(image=pictures(3), text=CAPTIONS[:3], audio=waves())
    theirs = model._chains.encode(image=pictures(3), text=CAPTIONS[:3], audio=waves())
    assert set(ours) == {"image", "text", "text_mask", "audio", "audio_mask"}
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])
        assert array.dtype == theirs[name].dtype
    assert model.preprocess(image=pictures(1)[0])["image"].shape == (SIDE, SIDE, 3)
    assert model.preprocess(text=[])["text"].shape == (0, 8)


def broken(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "fine.png").write_bytes(png(pictures(1)[0]))
    return tmp_path


def png(picture):
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def test_home_is_found_in_names_of_files(model: Model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(broken(tmp_path)))
    np.testing.assert_array_equal(model.embed(image="~/fine.png"), model.embed(image=Path.home() / "fine.png"))


def test_a_bad_picture_is_named(model: Model, tmp_path):
    folder = broken(tmp_path)
    with pytest.raises(UserError, match=r"^image 1 \(broken.png\): the picture can't be decoded"):
        model.embed(image=[folder / "fine.png", str(folder / "broken.png")])
    with pytest.raises(UserError, match=r"^image broken.png: the picture can't be decoded"):
        model.embed(image=folder / "broken.png")
    with pytest.raises(UserError, match=r"^image 2 \(fine.pgn\): there is no file .*fine.pgn; did you mean fine.png\?"):
        model.embed(image=[folder / "fine.png", folder / "fine.png", folder / "fine.pgn"])
    with pytest.raises(UserError, match=r"^image 12: the picture can't be decoded"):  # in the second batch
        model.embed(image=[*pictures(12), b"no picture"], batch_size=10)
    with pytest.raises(UserError, match="lies on the web, and nothing is fetched"):
        model.embed(image="https://example.org/cat.png")
    with pytest.raises(UserError, match=r"image 0 is None; it takes a PIL image"):
        model.embed(image=[None])
    with pytest.raises(UserError, match=r"\[3, 16, 20\].*np.moveaxis\(x, 0, -1\)"):
        model.embed(image=np.zeros((3, 16, 20), np.uint8))
    with pytest.raises(UserError, match="array of int64"):
        model.embed(image=np.zeros((16, 16, 3), np.int64))
    with pytest.raises(UserError, match=r"the image is empty"):
        model.embed(image=np.zeros((0, 16, 3), np.uint8))
    with pytest.raises(UserError, match=r"image=3.5: it takes a PIL image"):
        model.embed(image=3.5)
    with pytest.raises(UserError, match=r"fine.png|is a directory|can't be read"):
        model.embed(image=folder)


def test_a_bad_sound_is_named(model: Model, tmp_path):
    (wave,) = waves(1)
    with pytest.raises(UserError, match=r"^audio 1 is empty"):
        model.embed(audio=[wave, np.zeros(0, np.int16)])
    with pytest.raises(UserError, match=r"^the audio is empty"):
        model.embed(audio=(np.zeros((0, 2)), 44_100))
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    with pytest.raises(UserError, match=r"^audio none.wav: the sound is empty"):
        model.embed(audio=tmp_path / "none.wav")
    with pytest.raises(UserError, match=r"wrong way round: give \(waveform, sample_rate\)"):
        model.embed(audio=(RATE, wave))
    with pytest.raises(UserError, match=r"floats up to 8\d+.*divide it by its full scale"):
        model.embed(audio=wave.astype(np.float32))
    with pytest.raises(UserError, match=r"^the audio: the int32 array holds values up to 8,\d+.*give them as int16"):
        model.embed(audio=(wave.astype(np.int32), RATE))
    soundfile.write(tmp_path / "loud.wav", wave.astype(np.float32), RATE, subtype="FLOAT")
    with pytest.raises(
        UserError, match=r"^audio loud.wav: the sound holds floats up to 8\d+.*divide it by its full scale"
    ):
        model.embed(audio=tmp_path / "loud.wav")
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42")
    with pytest.raises(
        UserError, match=r"^audio a.m4a: the sound can't be decoded: it is AAC or ALAC in MP4 \(m4a\), .*ffmpeg"
    ):
        model.embed(audio=tmp_path / "a.m4a")
    with pytest.raises(UserError, match="aren't finite"):
        model.embed(audio=np.full(100, np.nan))
    with pytest.raises(UserError, match=r"audio is an array \[700, 2\]: sound of several channels is \(waveform"):
        model.embed(audio=np.zeros((700, 2)))
    for rate in (0, 1e-3, 1e12, float("inf")):  # soxr would take all memory, or never end
        with pytest.raises(UserError, match=r"the sample rate is .* in Hz, from 100 to 10,000,000"):
            model.embed(audio=(wave, rate))
    with pytest.raises(UserError, match=r"^audio=an object: it takes"):  # and not where it lies in memory
        model.embed(audio=object())
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"audio 0 \(x.wav\): the sound can't be decoded"):
        model.embed(audio=[tmp_path / "x.wav"])


def test_a_bad_text_is_named(model: Model):
    with pytest.raises(UserError, match=r"text 1 is an int; it takes a string, or token ids"):
        model.embed(text=["red", 3])
    with pytest.raises(UserError, match=r"^text 0: the caption is no text"):
        model.embed(text=["\ud800"])


def test_what_the_model_lacks_is_said(model: Model):
    with pytest.raises(UserError, match=r"no 'video' tower; it embeds image, text, audio$"):
        model.embed(video=np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"no 'imgae' tower; .*did you mean image\?"):
        call(model.embed, imgae=pictures(1))
    with pytest.raises(UserError, match=r"embed\(\) needs something to embed: image=..., text=..., audio=..."):
        model.embed()
    for misspelt in (pictures(1), None):  # None is what is left out, of the model's own modalities alone
        with pytest.raises(UserError, match=r"no 'imgae' tower; it embeds image, text, audio; did you mean image\?"):
            call(model.embed, text="red", imgae=misspelt)
        with pytest.raises(UserError, match=r"no 'imgae' tower; .*did you mean image\?"):
            call(model.similarity, text="red", imgae=misspelt)
    with pytest.raises(UserError, match=r"no 'batchsize' tower; .*; did you mean batch_size\?"):
        call(model.embed, text="red", batchsize=None)
    with pytest.raises(UserError, match=r"no 'label' tower; .*; did you mean labels\?"):
        call(model.classify, pictures(1), label=["a"])
    assert call(model.embed, text="red", image=None, video=None).shape == (16,)
    with pytest.raises(UserError, match=r"classify\(\) takes one modality, not 2"):
        model.classify(pictures(1), audio=waves(1), labels=["a"])
    for labels, message in [([], "at least one label"), ("cat", "one string"), (["a", "a"], "'a' comes 2 times")]:
        with pytest.raises(UserError, match=message):
            model.classify(pictures(1), labels=labels)
    with pytest.raises(UserError, match=r"'clip81'.*did you mean clip80"):
        model.classify(pictures(1), labels=["a"], templates="clip81")
    with pytest.raises(UserError, match=r"has no \{\} where the label goes"):
        model.classify(pictures(1), labels=["a"], templates=["a photo"])
    with pytest.raises(UserError, match="batch_size=0 must be at least 1"):
        model.embed(text=["a"], batch_size=0)


def test_what_is_given_without_a_name_is_refused_with_the_ways_to_give_it(model: Model):
    ways = "{0}(image='cat.png') or {0}(text='cat.png') or {0}(audio='cat.png')"
    for name in ("embed", "preprocess"):
        with pytest.raises(UserError) as caught:
            getattr(model, name)("cat.png")
        assert str(caught.value) == f"{name}('cat.png') doesn't say what that is: {ways.format(name)}"
    with pytest.raises(UserError, match=r"takes its labels by name: classify\(..., labels=\['cat', 'dog'\]\)"):
        call(model.classify, pictures(1)[0], ["cat", "dog"])
    with pytest.raises(UserError, match="give at least one label"):
        model.classify(pictures(1)[0])


def test_what_an_editor_is_told_of_embed():
    """One modality gives an array, several a dict; of one that mmjax doesn't know only the run tells."""
    told = [(inspect.signature(f).parameters, get_type_hints(f)["return"]) for f in get_overloads(Model.embed)]
    others, hint = told.pop()
    assert (others["others"].kind, hint) == (inspect.Parameter.VAR_KEYWORD, Any)
    assert all("others" not in parameters for parameters, _ in told)
    needed = [[name for name, p in parameters.items() if p.default is p.empty] for parameters, _ in told]
    assert needed == [["self", modality] for modality in ("image", "text", "audio", "video")] + [["self"]]
    assert [hint for _, hint in told] == [Vectors] * 4 + [dict[str, Vectors]]
    assert get_type_hints(vars(Classification)["best"].fget)["return"] == str | list[str]


def test_a_pickled_model_is_the_same_model(trained: Trained):
    model = load(trained.workdir, batch_size=5, upright=False)
    expected = model.embed(image=pictures(3), text=CAPTIONS, audio=waves())  # so that something is compiled
    kept = pickle.dumps(model)
    sizes = sum(leaf.nbytes for leaf in jax.tree.leaves(model.variables))
    sizes += len(model._chains.tokenizers["text"].model)  # pyright: ignore[reportAttributeAccessIssue]
    assert sizes < len(kept) < sizes + 30_000  # all of it once, and nothing of what is compiled
    again = pickle.loads(kept)
    assert (again.batch_size, again.source, repr(again)) == (5, model.source, repr(model))
    assert not again._inputs.upright
    jax.tree.map(np.testing.assert_array_equal, again.variables, model.variables)
    for modality, vectors in again.embed(image=pictures(3), text=CAPTIONS, audio=waves()).items():
        np.testing.assert_array_equal(vectors, expected[modality])
    assert isinstance(copy.deepcopy(again), Model)


def test_files_are_read_ahead_in_order_and_the_first_that_is_bad_is_named(model: Model, tmp_path):
    values = pictures(40)
    files = [tmp_path / f"{i}.png" for i in range(40)]
    for picture, file in zip(values, files, strict=True):
        picture.save(file)
    expected = model.embed(image=values)
    mixed = [*files[:20], values[20], *files[21:]]  # one chunk isn't of files alone
    for given in (files, iter(files), mixed):
        np.testing.assert_allclose(model.embed(image=given, batch_size=3), expected, atol=1e-6)
    for place in (4, 9, 30):
        files[place].write_bytes(b"no picture")
    before = threading.active_count()
    with pytest.raises(UserError, match=r"^image 4 \(4.png\): the picture can't be decoded"):
        model.embed(image=files, batch_size=3)
    assert threading.active_count() == before


def test_a_rest_goes_with_the_size_that_is_compiled(trained: Trained):
    devices = jax.local_device_count()
    model = load(trained.workdir, batch_size=2 * devices)
    values = pictures(8 * devices + 3)
    compiled = model._embedder._embed._cache_size  # pyright: ignore[reportAttributeAccessIssue]
    many = model.embed(image=values)
    assert compiled() == 1
    np.testing.assert_allclose(many[-3:], model.embed(image=values[-3:]), atol=1e-6)
    assert compiled() == 2


def test_pictures_of_the_models_own_size_come_out_as_they_are_and_apart(model: Model):
    pixels = np.asarray(pictures(1)[0]).copy()
    seen = model.preprocess(image=pixels)["image"]
    np.testing.assert_array_equal(seen, pixels)
    assert not np.shares_memory(seen, pixels)
    with pytest.raises(UserError, match="aren't finite"):
        model.embed(image=np.where(np.arange(3) == 1, np.float32(np.nan), np.zeros((SIDE, SIDE, 3), np.float32)))
    with pytest.raises(UserError, match="values up to 40:"):
        model.embed(image=np.full((SIDE, SIDE, 3), -40.0))


def test_a_bar_is_drawn_where_asked_for(model: Model, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes anything for a terminal then
    model.embed(image=pictures(3), progress=True)
    assert "embedding image" in capsys.readouterr().err
    model.embed(image=pictures(3))
    assert not capsys.readouterr().err
