import dataclasses
import io
import math
import warnings

import fiddle
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.tokenizers.sentence_piece import SentencePiece
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.image import (
    CenterCrop,
    ColorJitter,
    Decode,
    RandomAffine,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    ResizeLonger,
    ResizeShorter,
)
from mmjax.data.transforms.text import PickCaption, Tokenize
from tests.data.conftest import kind_of, picture_bytes
from tests.faults.spoil import huge_png

AUGMENTATIONS = [RandomAffine(0.3, 30, (0.5, 2.0)), RandomFlip(1.0), ColorJitter(0.5, 0.5, 0.5)]


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture whose red is the column and whose green is the row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)


class Draws(np.random.Generator):
    """A generator whose `uniform` gives what the test says, as shares of the range."""

    def __init__(self, *shares: float):
        super().__init__(np.random.PCG64(0))
        self.shares = list(shares)

    def uniform(self, low=0.0, high=1.0, size=None):  # type: ignore[override]
        drawn = [low + (high - low) * self.shares.pop(0) for _ in range(size or 1)]
        return np.array(drawn) if size else drawn[0]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),  # a fifth of red over white
        ("LA", (0, 51), (204, 204, 204)),
        ("L", 77, (77, 77, 77)),
    ],
)
def test_decode_puts_transparent_pictures_on_white(mode, colour, expected):
    decoded = Decode()(picture_bytes(colour, mode=mode), None)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (12, 12, 3)
    np.testing.assert_array_equal(decoded[3, 4], expected)


def test_decode_reads_the_transparent_colour_of_a_palette():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=1)
    np.testing.assert_array_equal(Decode(background=(1, 2, 3))(stream.getvalue(), None)[0, 0], (1, 2, 3))


def test_decode_takes_a_16_bit_picture_an_array_and_a_pil_image():
    array = coordinates(4, 5)
    np.testing.assert_array_equal(Decode()(array, None), array)
    np.testing.assert_array_equal(Decode()(Image.fromarray(array), None), array)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "array", "32-bit"])
def test_sixteen_bits_of_grey_become_eight(format):
    levels = np.array([[0, 128, 129, 256, 257], [30_000, 32_768, 65_279, 65_407, 65_535]], np.uint16)
    expected = [[0, 0, 1, 1, 1], [117, 128, 254, 255, 255]]  # levels / 257, rounded
    value: object = levels
    if format == "32-bit":  # what older versions of PIL make of such a PNG
        value = Image.fromarray(levels.astype(np.int32))
        assert value.mode == "I"
    elif format != "array":
        stream = io.BytesIO()
        Image.fromarray(levels).save(stream, format)
        value = stream.getvalue()
    for background in ((255, 255, 255), None):
        decoded = Decode(background)(value, None)
        np.testing.assert_array_equal(decoded, np.stack([expected] * 3, axis=-1))


def test_a_transparent_level_of_sixteen_bits_becomes_the_background():
    stream = io.BytesIO()
    Image.fromarray(np.array([[257, 258, 65_535]], np.uint16)).save(stream, "PNG", transparency=258)
    assert Decode((9, 8, 7))(stream.getvalue(), None)[0].tolist() == [[1, 1, 1], [9, 8, 7], [255, 255, 255]]
    assert Decode(None)(stream.getvalue(), None)[0].tolist() == [[1, 1, 1], [1, 1, 1], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_without_a_background_the_colour_under_what_is_transparent_stays(mode):
    stream = io.BytesIO()
    if mode == "P":
        palette = Image.new("P", (4, 4), 1)
        palette.putpalette([0, 0, 0, 60, 60, 60])
        palette.save(stream, "PNG", transparency=1)
    else:
        Image.new(mode, (4, 4), (60, 60, 60, 10) if mode == "RGBA" else (60, 10)).save(stream, "PNG")
    assert Decode(background=None)(stream.getvalue(), None)[0, 0].tolist() == [60, 60, 60]


@pytest.mark.parametrize("broken", [b"", b"not a picture", picture_bytes((1, 2, 3), (50, 50))[:-40]])
def test_a_broken_picture_is_a_bad_example(broken):
    with pytest.raises(BadExample, match="can't be decoded"):
        Decode()(broken, None)


def test_a_picture_that_is_too_large_to_unpack_is_told_by_its_header():
    bomb = huge_png(60_000)
    assert len(bomb) < 100
    assert kind_of(Decode(), bomb) == "too_large"  # by PIL's own bound
    with pytest.warns(Image.DecompressionBombWarning):
        assert kind_of(Decode(), huge_png(10_000)) == "too_large"  # which lets this pass
    assert kind_of(Decode(most_pixels=100), picture_bytes((1, 2, 3), (11, 10))) == "too_large"
    assert kind_of(Decode(most_pixels=110), picture_bytes((1, 2, 3), (11, 10))) is None


@pytest.mark.parametrize(
    "value",
    [np.zeros((4, 4, 7), np.uint8), np.zeros(3, complex), np.ones((4, 4, 3)), np.ones((4, 4), int), "a file's name", 3],
)
def test_what_is_no_picture_at_all_is_undecodable_too(value):
    assert kind_of(Decode(), value) == "undecodable"


FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "TGA")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.sampled_from(FORMATS), st.integers(0, 2**32 - 1))
def test_whatever_is_done_to_a_file_it_decodes_or_is_bad(format, seed):
    """PIL raises nearly anything on a broken file; nothing of that may end a run."""
    rng = np.random.default_rng(seed)
    contents = bytearray(picture_bytes((10, 200, 30), (24, 18), format=format))
    for _ in range(int(rng.integers(1, 8))):
        contents[rng.integers(len(contents))] = rng.integers(256)
    if rng.random() < 0.3:
        contents = contents[: rng.integers(len(contents))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, on what is odd
        assert kind_of(Decode(most_pixels=100_000), bytes(contents)) in (None, "undecodable", "too_large")


def test_resize_squashes_and_resize_shorter_keeps_the_aspect():
    picture = coordinates(20, 40)
    assert Resize(16)(picture, None).shape == (16, 16, 3)
    assert ResizeShorter(10)(picture, None).shape == (10, 20, 3)
    assert ResizeLonger(10)(picture, None).shape == (5, 10, 3)
    assert ResizeLonger(10)(coordinates(200, 4), None).shape == (10, 1, 3)
    same = coordinates(16, 16)
    assert Resize(16)(same, None) is same
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(Resize(16)(stripes, None)[4:12, 4:12]) <= 2  # antialiased: even grey, no moiré


def test_center_crop_takes_the_middle_and_says_when_it_cannot():
    cropped = CenterCrop(4)(coordinates(10, 20), None)
    np.testing.assert_array_equal(cropped[0, 0], (8, 3, 0))
    np.testing.assert_array_equal(cropped[-1, -1], (11, 6, 0))
    with pytest.raises(BadExample, match="10×3 is smaller"):
        CenterCrop(4)(coordinates(10, 3), None)


@pytest.mark.parametrize("shape", [(21, 32), (32, 21), (47, 20), (33, 100)])
def test_the_longer_side_is_rounded_down(shape):
    for size in (10, 16, 31):
        high, wide, _ = ResizeShorter(size)(coordinates(*shape), None).shape
        assert min(high, wide) == size
        assert max(high, wide) == math.floor(size * max(shape) / min(shape))


@pytest.mark.parametrize(
    ("side", "size", "down", "even"),
    # Odd differences: Hugging Face's integer division, and torchvision's round(), half to even. Below the size it is
    # how much is filled before the picture: Hugging Face (PIL) fills more there, torchvision less.
    [
        (10, 4, 3, 3),
        (9, 4, 2, 2),
        (7, 4, 1, 2),
        (5, 4, 0, 0),
        (4, 4, 0, 0),
        (3, 4, -1, 0),
        (3, 6, -2, -1),
        (2, 6, -2, -2),
    ],
)
def test_where_a_crop_starts(side, size, down, even):
    picture = coordinates(side, side) + 1
    black = (0, 0, 0)
    for crop, start in ((CenterCrop(size, fill=black), down), (CenterCrop(size, "even", fill=black), even)):
        cropped = crop(picture, None)
        assert cropped.shape == (size, size, 3)
        columns = [start + i + 1 if 0 <= start + i < side else 0 for i in range(size)]
        shown = cropped[size // 2, :, 0].tolist()
        assert shown == columns
        assert cropped[:, size // 2, 1].tolist() == columns


def test_a_crop_larger_on_one_side_only_fills_there():
    cropped = CenterCrop(6, fill=(7, 8, 9))(coordinates(3, 10), None)
    assert cropped[0].tolist() == [[7, 8, 9]] * 6
    np.testing.assert_array_equal(cropped[2:5], coordinates(3, 10)[:, 2:8])


@settings(max_examples=50, deadline=None)
@given(st.integers(8, 200), st.integers(8, 200), st.integers(0, 2**32 - 1), st.floats(0.3, 1.0))
@example(height=65, width=72, seed=0, least=1.0)  # no draw fits
def test_a_random_crop_has_its_size_and_lies_within_its_area(height, width, seed, least):
    crop = RandomResizedCrop(32, area=(least, 1.0), method="nearest")
    picture = coordinates(height, width)
    result = crop(picture, np.random.default_rng(seed))
    assert result.shape == (32, 32, 3)
    seen = [int(np.ptp(result[..., channel])) + 1 for channel in (0, 1)]
    if 3 / 4 < width / height < 4 / 3 and min(height, width) > 64:
        # Of n pixels shown in 32, nearest-neighbour sampling misses up to n / 32 at each end, and sides are rounded.
        assert seen[0] * seen[1] <= height * width
        assert (seen[0] + width / 16 + 1) * (seen[1] + height / 16 + 1) >= least * height * width
    np.testing.assert_array_equal(crop(picture, None), crop(picture, None))


@pytest.mark.parametrize(("height", "width", "high", "wide"), [(10, 30, 10, 13), (30, 10, 13, 10), (10, 12, 10, 12)])
def test_where_no_draw_fits_the_random_crop_is_the_largest_middle_of_such_an_aspect(height, width, high, wide):
    """torchvision's rule. Of these, no part but that one has the whole area, or nearly."""
    crop = RandomResizedCrop(40, area=(1.0, 1.0), aspect=(3 / 4, 4 / 3), method="nearest")
    left, top = (width - wide) // 2, (height - high) // 2
    for seed in range(20):
        shown = crop(coordinates(height, width), np.random.default_rng(seed))
        assert (shown[..., 0].min(), shown[..., 0].max()) == (left, left + wide - 1)
        assert (shown[..., 1].min(), shown[..., 1].max()) == (top, top + high - 1)


def test_the_random_crop_of_evaluation_is_the_middle_square():
    result = RandomResizedCrop(10, method="nearest")(coordinates(10, 30), None)
    np.testing.assert_array_equal(result, coordinates(10, 30)[:, 10:20])


def test_affine_moves_turns_and_scales_about_the_middle():
    dot = np.full((41, 41, 3), 255, np.uint8)
    dot[19:22, 29:32] = 0  # 10 to the right of the middle

    def centre(picture):
        weight = 255.0 - picture[..., 0]
        rows, columns = np.mgrid[:41, :41]
        return (weight * columns).sum() / weight.sum() - 20, (weight * rows).sum() / weight.sum() - 20

    assert centre(dot) == pytest.approx((10, 0))
    # Draws: shift right, shift down, turn, as shares of [-1, 1]; then the scale's share of its range.
    moved = RandomAffine(translate=0.2)(dot, Draws(0.0, 1.0, 0.5, 0.0))
    assert centre(moved) == pytest.approx((10 - 0.2 * 41, 0.2 * 41), abs=0.1)
    turned = RandomAffine(degrees=90)(dot, Draws(0.5, 0.5, 1.0, 0.0))
    assert centre(turned) == pytest.approx((0, 10), abs=0.1)  # clockwise as rows grow downwards
    smaller = RandomAffine(scale=(0.5, 1.0))(dot, Draws(0.5, 0.5, 0.5, 0.0))
    assert centre(smaller) == pytest.approx((5, 0), abs=0.2)
    assert moved[-1, -1].tolist() == [255, 255, 255]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_colour_jitter_equals_brightness_saturation_contrast_in_turn(seed):
    picture = np.random.default_rng(seed).integers(60, 160, (6, 5, 3)).astype(np.uint8)
    factors = 1 + np.array([0.2, 0.3, 0.4]) * np.random.default_rng(seed).uniform(-1, 1, 3)
    brightness, contrast, saturation = factors
    luma = np.array([0.299, 0.587, 0.114])
    expected = picture.astype(np.float64) * brightness
    grey = (expected @ luma)[..., None]
    expected = grey + saturation * (expected - grey)
    mean = (expected @ luma).mean()
    expected = np.clip(mean + contrast * (expected - mean), 0, 255)
    result = ColorJitter(0.2, 0.3, 0.4)(picture, np.random.default_rng(seed))
    assert np.abs(result - expected).max() <= 0.51


def test_flip_mirrors_left_and_right_as_often_as_it_says():
    picture = coordinates(3, 4)
    np.testing.assert_array_equal(RandomFlip(1.0)(picture, np.random.default_rng(0)), picture[:, ::-1])
    rng = np.random.default_rng(0)
    flipped = sum(RandomFlip(0.25)(picture, rng)[0, 0, 0] == 3 for _ in range(1000))
    assert 200 < flipped < 300


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda a: type(a).__name__)
def test_in_evaluation_an_augmentation_is_the_identity_in_training_it_is_not(augmentation):
    picture = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    np.testing.assert_array_equal(augmentation(picture, None), picture)
    first, again = (augmentation(picture, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != picture).any()
    assert augmentation.random


def test_transforms_are_plain_enough_for_fiddle():
    for transform in (Decode((1, 2, 3)), Resize(8), RandomAffine(0.1), Tokenize(SentencePiece(64), 8), PickCaption()):
        fields = {field.name: getattr(transform, field.name) for field in dataclasses.fields(transform)}
        assert fiddle.build(fiddle.Config(type(transform), **fields)) == transform
        assert isinstance(transform, Transform)
        with pytest.raises(dataclasses.FrozenInstanceError):
            transform.size = 3  # type: ignore[attr-defined]
