"""Preprocessing beside Hugging Face's and open_clip's: golden pictures, and the projects themselves where installed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.data.chains import chain_specs
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.image import (
    CenterCrop,
    Decode,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    ResizeLonger,
    ResizeShorter,
)
from mmjax.errors import UserError
from mmjax.interop.preprocessing.image import (
    CLIP,
    HALVES,
    NOTHING,
    from_hugging_face,
    from_open_clip,
    to_hugging_face,
    to_open_clip,
)
from tests.data.golden.make import (
    HUGGING_FACE,
    OPEN_CLIP,
    by_hugging_face,
    by_open_clip,
    let_torchvision_load,
    pictures,
)

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
SIDES = [*(("hugging_face", name) for name in HUGGING_FACE), *(("open_clip", name) for name in OPEN_CLIP)]
PLAIN = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


def ours(by: str, name: str) -> tuple[Transform, ...]:
    made = from_hugging_face(HUGGING_FACE[name]) if by == "hugging_face" else from_open_clip(OPEN_CLIP[name])
    assert chain_specs({"image": made.transforms})["image"].dtype == "uint8"
    return made.transforms


def run(chain: tuple[Transform, ...], value) -> np.ndarray:
    for transform in chain:
        value = transform(value, None)
    return value


@pytest.mark.parametrize(("by", "name"), SIDES, ids=[name for _, name in SIDES])
def test_golden_pictures_come_out_as_the_other_project_makes_them(by, name):
    chain = ours(by, name)
    expected = np.asarray(Image.open(GOLDEN / f"as_{name}.png"))
    files = [next(path for path in GOLDEN.glob(f"{picture}.*")) for picture in pictures()]
    parts = np.split(expected, len(files))
    for file, part in zip(files, parts, strict=True):
        result = run(chain, file.read_bytes())
        assert result.shape == part.shape
        assert np.abs(result.astype(int) - part.astype(int)).max() <= 1, file.name


@pytest.mark.parametrize(("by", "name"), SIDES, ids=[name for _, name in SIDES])
def test_pictures_of_many_sizes_beside_the_other_project(by, name):
    pytest.importorskip("transformers" if by == "hugging_face" else "open_clip", exc_type=ImportError)
    chain, rng = ours(by, name), np.random.default_rng(0)
    for height in (9, 16, 17, 33, 62):
        for width in (11, 16, 18, 47, 64):
            picture = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
            expected = (by_hugging_face if by == "hugging_face" else by_open_clip)(name, picture)
            np.testing.assert_array_equal(run(chain, picture), expected, err_msg=f"{height}×{width}")


# As openai/clip-vit-base-patch32 has had it since 2021.
OLDEST = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": list(CLIP[0]),
    "image_std": list(CLIP[1]),
    "resample": 3,
    "size": 224,
}
SHORTER = (Decode(upright=False), ResizeShorter(224), CenterCrop(224))


@pytest.mark.parametrize(
    ("config", "chain", "colours"),
    [
        (OLDEST, SHORTER, CLIP),
        ({"image_processor_type": "CLIPImageProcessorFast"}, SHORTER, CLIP),
        (
            {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224, "longest_edge": None}},
            SHORTER,
            CLIP,
        ),
        (
            {"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}},
            (Decode(upright=False), Resize(384)),
            HALVES,
        ),
        (
            {"feature_extractor_type": "ViTFeatureExtractor", "size": 224},
            (Decode(upright=False), Resize(224, "bilinear")),
            HALVES,
        ),
        (
            {"image_processor_type": "ViTImageProcessor", "do_normalize": False},
            (Decode(upright=False), Resize(224, "bilinear")),
            NOTHING,
        ),
        (
            {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "image_mean": 0.5},
            (Decode(upright=False), ResizeShorter(256), CenterCrop(224)),
            (HALVES[0], CLIP[1]),
        ),
        (
            {
                "image_processor_type": "CLIPImageProcessor",
                "do_resize": False,
                "crop_size": {"height": 64, "width": 64},
            },
            (Decode(upright=False), CenterCrop(64, fill=(0, 0, 0))),
            CLIP,
        ),
    ],
)
def test_configs_of_hugging_face_of_every_age(config, chain, colours):
    made = from_hugging_face(config)
    assert (made.transforms, (made.mean, made.std)) == (chain, colours)
    assert from_hugging_face(to_hugging_face(*made)) == made


KINDS = ("CLIP", "Siglip", "ViT", "Bit")
VALUES = ("resample", "image_mean", "image_std", "size", "crop_size", "rescale_factor", "do_convert_rgb", "do_pad")


@pytest.mark.parametrize("kind", KINDS)
def test_a_null_value_is_the_default_of_the_processors_class(kind):
    config = {"image_processor_type": f"{kind}ImageProcessor"}
    plain = from_hugging_face(config)
    for name in VALUES:
        assert from_hugging_face({**config, name: None}) == plain, name
    assert from_hugging_face(dict.fromkeys(VALUES) | config) == plain


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_or_null_beside_the_processors_of_hugging_face(kind):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    let_torchvision_load()
    theirs = getattr(transformers, f"{kind}ImageProcessorPil")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 300, 3)).astype(np.uint8))
    config = {"image_processor_type": f"{kind}ImageProcessor"}
    made = from_hugging_face({**config, **dict.fromkeys(VALUES)})
    pixels = theirs()(picture)["pixel_values"][0].transpose(1, 2, 0)
    mean, std = (np.asarray(colour, np.float32) for colour in (made.mean, made.std))
    ours = (run(made.transforms, picture) / np.float32(255) - mean) / std
    np.testing.assert_allclose(ours, pixels, atol=1e-5)
    null = theirs(do_normalize=None)(picture)["pixel_values"][0].transpose(1, 2, 0)  # a switch is off
    made = from_hugging_face({**config, "do_normalize": None})
    assert (made.mean, made.std) == NOTHING
    np.testing.assert_allclose(run(made.transforms, picture) / np.float32(255), null, atol=1e-5)


def test_a_null_in_a_preprocess_cfg_is_open_clips_default():
    names = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
    assert from_open_clip(dict.fromkeys(names), size=32) == from_open_clip({}, size=32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": None}, "no image_processor_type"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, r"'Siglip2ImageProcessor' isn't here; CLIPIm[\w, ]+ are$"),
        ({"image_processor_type": "CLIP"}, "isn't here; CLIPImageProcessor, Sig"),
        ({"size": {"height": 224, "width": 336}}, "pictures are square"),
        ({"size": {"longest_edge": 224}}, "must have shortest_edge, or height and width"),
        ({"resample": 5}, r"resample=5 is none of 0 \(nearest\)"),
        ({"rescale_factor": 1.0}, "scaled by 1/255"),
        ({"do_pad": True}, "do_pad=True of a CLIP processor"),
        ({"do_center_crop": False}, "pictures of many sizes"),
        ({"resample": "bicubic"}, r"resample='bicubic' is none of 0 \(nearest\)"),
        ({"resample": [3]}, "^preprocessor_config.json holds a value that its field can't have: .*list"),
        ({"size": {"shortest_edge": "big"}}, "^preprocessor_config.json holds a value .*'big'"),
        ({"rescale_factor": "1/255"}, "^preprocessor_config.json holds a value that its field can't have"),
        ({"image_mean": [0.5]}, "3 numbers"),
        ({"image_mean": ["red", 0, 0]}, "^preprocessor_config.json holds a value .*'red'"),
        ({"image_std": [0, 0, 0]}, r"a std has numbers above 0, .*not \[0, 0, 0\]"),
    ],
)
def test_what_of_hugging_face_cannot_be_done_is_said(change, message):
    config = {"image_processor_type": "CLIPImageProcessor", **change}
    with pytest.raises(UserError, match=message):
        from_hugging_face(config)


@pytest.mark.parametrize(
    ("config", "chain"),
    [
        ({}, (Decode(None, upright=False), ResizeShorter(32), CenterCrop(32, "even"))),
        (
            {"size": [64, 64], "interpolation": "random"},
            (Decode(None, upright=False), ResizeShorter(64), CenterCrop(64, "even")),
        ),
        ({"resize_mode": "squash", "interpolation": "bilinear"}, (Decode(None, upright=False), Resize(32, "bilinear"))),
        (
            {"resize_mode": "longest", "fill_color": 9},
            (Decode(None, upright=False), ResizeLonger(32), CenterCrop(32, "even", (9, 9, 9))),
        ),
    ],
)
def test_configs_of_open_clip(config, chain):
    made = from_open_clip(config, size=32)
    assert made == (chain, *CLIP)
    assert from_open_clip(to_open_clip(*made)) == made


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"resize_mod": "squash"}, "did you mean resize_mode"),
        ({"resize_mode": "shorter"}, "resize_mode 'shorter'"),
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"mode": "L"}, "must be 'RGB'"),
        ({"std": [0.3, 0.3, -1.0]}, "a std has numbers above 0"),
        ({"fill_color": "grey"}, "^preprocess_cfg holds a value that its field can't have: .*'grey'"),
        ({"size": (224, 336)}, "pictures are square"),
    ],
)
def test_what_of_open_clip_cannot_be_done_is_said(config, message):
    with pytest.raises(UserError, match=message):
        from_open_clip(config)


def test_a_training_chain_is_written_as_it_is_in_evaluation():
    config = to_hugging_face((Decode(), RandomFlip(), Resize(64)), *PLAIN)
    assert from_hugging_face(config).transforms == (Decode(upright=False), Resize(64))
    cropped = (Decode(), RandomResizedCrop(64))
    for write in (to_hugging_face, to_open_clip):
        with pytest.raises(UserError, match="exact=False"):
            write((Decode(None), RandomResizedCrop(64)), *PLAIN)
    assert from_hugging_face(to_hugging_face(cropped, *PLAIN, exact=False)).transforms == (
        *(Decode(upright=False), ResizeShorter(64), CenterCrop(64)),
    )
    assert to_open_clip(cropped, *PLAIN, exact=False)["resize_mode"] == "shortest"
    # Less than a pixel: on a slope of 2 levels a pixel the two are less than 2 levels apart, but for the edges.
    rows, columns = np.mgrid[:101, :120]
    slope = np.stack([2 * columns, 2 * rows, rows + columns], -1).astype(np.uint8)
    apart = run(cropped[1:], slope).astype(int) - run((ResizeShorter(64), CenterCrop(64)), slope).astype(int)
    assert 0 < np.abs(apart[:, 2:-2]).max() <= 2 * 101 / 64


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ((Decode(background=(0, 0, 0)), Resize(8)), "background"),
        ((Decode(), ResizeShorter(8), CenterCrop(8, "even")), "crop"),
        ((Decode(), ResizeLonger(8), CenterCrop(8, "down", (7, 7, 7))), "crop|fill"),
        ((Decode(), Resize(8), Resize(9)), "resize once"),
    ],
)
def test_what_hugging_face_cannot_say_is_no_config(chain, message):
    with pytest.raises(UserError, match=message):
        to_hugging_face(chain, *PLAIN)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ((Decode(), Resize(8)), "background"),
        ((Decode(None), ResizeShorter(8), CenterCrop(8)), "middle='even'"),
        ((Decode(None), ResizeShorter(9), CenterCrop(8, "even")), "size of its crop"),
        ((Decode(None), Resize(8, "lanczos")), "not lanczos"),
    ],
)
def test_what_open_clip_cannot_say_is_no_config(chain, message):
    with pytest.raises(UserError, match=message):
        to_open_clip(chain, *PLAIN)
