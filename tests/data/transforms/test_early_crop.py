"""What a crop throws away isn't made; what it keeps is as it was."""

import tracemalloc

import numpy as np
import pytest

from mmjax.data.bad_example import BadExample
from mmjax.data.chains import Chains, evaluation
from mmjax.data.transforms import early_crop
from mmjax.data.transforms.early_crop import cropped_early
from mmjax.data.transforms.image import CenterCrop, ColorJitter, Decode, Resize, ResizeLonger, ResizeShorter
from tests.data.conftest import kind_of


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "crop", [CenterCrop(32), CenterCrop(32, "even"), CenterCrop(24), CenterCrop(40, fill=(7, 8, 9))]
)
@pytest.mark.parametrize("shape", [(40, 41), (33, 100), (100, 33), (7, 150), (150, 7), (1, 400), (500, 300), (32, 32)])
def test_the_part_alone_is_what_the_whole_is_cropped_to(shape, crop, monkeypatch):
    resize, picture = ResizeShorter(32), noise(*shape)
    whole = crop(resize(picture, None), None)
    (early,) = cropped_early((resize, crop))
    np.testing.assert_array_equal(early(picture, None), whole)  # of ordinary pictures bit for bit
    monkeypatch.setattr(early_crop, "ORDINARY", 0)
    part = early(picture, None)
    assert part.shape == whole.shape
    assert np.abs(part.astype(int) - whole).max() <= 1
    assert np.mean(part != whole) < 0.02


def test_a_long_strip_takes_no_gigabyte():
    chains = Chains({"image": (Decode(), ResizeShorter(224), CenterCrop(224))})
    strip = noise(1, 4_000)
    tracemalloc.start()
    try:
        row = chains.row({"id": "strip", "image": strip}, evaluation)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert row["image_valid"]
    assert peak < 10e6
    # The middle lies between two pixels, each enlarged to 224: the ends of the crop are their middles.
    assert np.abs(row["image"][:, [0, -1]].astype(int) - strip[:, [1_999, 2_000]]).max() <= 3


def test_what_would_be_too_large_is_refused_before_it_is_made():
    strip, tall = noise(1, 4_000), noise(4_000, 1)
    tracemalloc.start()
    try:
        for transform in (ResizeShorter(224), Resize(30_000), ResizeLonger(200_000)):
            assert kind_of(transform, strip if not isinstance(transform, ResizeLonger) else noise(9, 9)) == "too_large"
        with pytest.raises(
            BadExample, match=r"a picture of 4000×1 would become one of 896,000×224, more than 89,478,485"
        ):
            ResizeShorter(224)(tall, None)
        assert ResizeLonger(224)(strip, None).shape == (1, 224, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10e6


def test_other_chains_stay_as_they_are():
    chain = (Decode(), Resize(8), CenterCrop(8))
    assert cropped_early(chain) == chain
    assert len(cropped_early((Decode(), ResizeShorter(9), CenterCrop(8), ColorJitter(0.1)))) == 3


def test_colours_of_a_large_picture_are_changed_part_by_part(monkeypatch):
    from mmjax.data.transforms import image

    jitter, picture = ColorJitter(0.3, 0.3, 0.3), noise(40, 50)
    whole = jitter(picture, np.random.default_rng(1))
    monkeypatch.setattr(image, "_AT_A_TIME", 300)
    np.testing.assert_array_equal(jitter(picture, np.random.default_rng(1)), whole)
