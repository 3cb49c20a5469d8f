"""Frames keep their proportions, fill their size, and are cropped where it was drawn."""

import numpy as np
import pytest

from mmjax.data import CropFrame
from mmjax.errors import UserError


def ramp(high: int, wide: int) -> np.ndarray:
    """A picture whose red says the column, and whose green says the row."""
    picture = np.zeros((high, wide, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, wide).astype(np.uint8)
    picture[..., 1] = np.linspace(0, 255, high).astype(np.uint8)[:, None]
    return picture


def test_in_evaluation_it_is_the_middle_in_proportion() -> None:
    wide = CropFrame(20, 30)(ramp(40, 120), None)
    assert wide.shape == (20, 30, 3)
    assert np.abs(wide[:, [0, -1], 0] / 255 - [0.25, 0.75]).max() < 0.02  # 60 of 120 columns
    assert wide[0, :, 1].max() < 12
    assert wide[-1, :, 1].min() > 243
    high = CropFrame(20, 30)(ramp(120, 30), None)
    assert np.abs(high[[0, -1], :, 1] / 255 - np.array([[5 / 12], [7 / 12]])).max() < 0.02
    assert (high[:, 0, 0].max(), high[:, -1, 0].min()) == (0, 255)


def test_a_frame_of_that_size_stays_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for rng in (None, np.random.default_rng(1)):
        np.testing.assert_array_equal(CropFrame(20, 30)(picture, rng), picture)


def test_in_training_factor_and_place_are_drawn() -> None:
    step, picture = CropFrame(40, 60, scale=(1.5, 2.0)), ramp(80, 120)
    shares, lefts = [], []
    for seed in range(60):
        found = step(picture, np.random.default_rng(seed)).astype(float) / 255
        columns, rows = found[20, :, 0], found[:, 30, 1]
        shares.append(columns[-1] - columns[0])
        assert rows[-1] - rows[0] == pytest.approx(shares[-1], abs=0.04)
        lefts.append(columns[0] / (1 - shares[-1]))
        assert (
            step(picture, np.random.default_rng(seed)).tobytes() == step(picture, np.random.default_rng(seed)).tobytes()
        )
    assert 0.47 < min(shares) < 0.53 < 0.62 < max(shares) < 0.69  # 1 / 2 to 1 / 1.5
    assert min(lefts) < 0.15 < 0.85 < max(lefts)


def test_its_array_is_known_and_wrong_fields_are_named() -> None:
    assert CropFrame(20, 30).spec(None).shape == (20, 30, 3)
    with pytest.raises(UserError, match=r"CropFrame\(height=0\): it is a whole number of pixels"):
        CropFrame(0, 3)
    with pytest.raises(UserError, match=r"CropFrame\(width=True\)"):
        CropFrame(3, True)
    for scale in ((0.9, 1.1), (1.2, 1.1)):
        with pytest.raises(UserError, match="two factors from 1 on, the smaller one first"):
            CropFrame(3, 3, scale)
