"""Regions: read, filled and cut with their labels; cells of a grid, pixel by pixel; bad ones are named."""

from typing import Any

import numpy as np
import pytest

from mmjax.data import BadExample, GatherRegions, GridRegions, ReadRegions
from mmjax.data.chains import Chains, evaluation
from mmjax.data.transforms.contract import Transform
from mmjax.data.transforms.values import Cut
from mmjax.errors import UserError

READ = ReadRegions(features=3, most=4, classes={"objects": 5}, distributions={"detected": 2})


def stored(count: int, **others: Any) -> dict[str, Any]:
    random = np.random.default_rng(count)
    corners = np.sort(random.uniform(size=(count, 2, 2)), axis=1).reshape(count, 4)
    share = random.uniform(size=count)
    found = {
        "features": random.normal(size=(count, 3)).astype(np.float16),
        "boxes": corners,
        "objects": np.arange(count) % 6 - 1,
        "objects_confidence": random.uniform(size=count),
        "detected": np.stack([share, 1 - share], axis=1),
    }
    return {name: x for name, x in (found | others).items() if x is not None}


@pytest.mark.parametrize("count", [1, 4, 7])
def test_regions_are_filled_up_and_the_first_ones_stay(count: int) -> None:
    given = stored(count)
    row, cuts = Chains({"regions": (READ,)}).row_and_cuts({"id": "a", "regions": given}, evaluation)
    real = min(count, 4)
    assert cuts == (("regions",) if count > 4 else ())
    assert {name: (x.shape, x.dtype.name) for name, x in row.items() if not name.endswith("_bad")} == {
        "regions": ((4, 7), "float32"),
        "regions_mask": ((4,), "bool"),
        "regions_valid": ((), "bool"),
        "regions_objects": ((4,), "int32"),
        "regions_objects_confidence": ((4,), "float32"),
        "regions_detected": ((4, 2), "float32"),
    }
    np.testing.assert_array_equal(row["regions_mask"], np.arange(4) < real)
    expected = np.concatenate([given["features"], given["boxes"]], axis=1)[:real].astype(np.float32)
    np.testing.assert_array_equal(row["regions"][:real], expected)
    np.testing.assert_array_equal(row["regions_objects"][:real], given["objects"][:real])
    np.testing.assert_array_equal(row["regions_detected"][:real], given["detected"][:real].astype(np.float32))
    for name, padding in (("regions", 0), ("regions_objects", -1), ("regions_objects_confidence", 0)):
        assert (row[name][real:] == padding).all()


def test_without_confidence_all_are_sure_and_one_array_will_do() -> None:
    labels = READ(stored(2, objects_confidence=None), None).labels
    np.testing.assert_array_equal(labels["objects_confidence"], [1, 1, 0, 0])
    given = stored(7)
    packed = np.concatenate([given["features"], given["boxes"]], axis=1)
    plain = ReadRegions(features=3, most=4)
    found = plain(packed, None).value
    assert isinstance(found, Cut)
    assert found.whole == 7
    np.testing.assert_array_equal(found.values, plain(given, None).value[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (stored(2) | {"boxes": np.full((2, 4), 3.0)}, "as parts, from 0 to 1, of the picture"),
        (stored(2) | {"boxes": [[0.5, 0, 0.2, 1]] * 2}, "left, upper, right, lower"),
        (stored(2) | {"boxes": np.zeros((3, 4))}, r"boxes of the regions are \[3, 4\], and not \[2, 4\]"),
        (stored(2) | {"features": np.zeros((2, 5))}, r"features of the regions are \[2, 5\], and not \[n, 3\]"),
        (stored(2) | {"features": np.full((2, 3), np.nan)}, "features of the regions have numbers that aren't finite"),
        (stored(2) | {"features": [["a"] * 3] * 2}, "features of the regions are no numbers"),
        (stored(2) | {"objects": [0, 5]}, "objects of the regions are no numbers of classes, -1 or 0 to 4"),
        (stored(2) | {"detected": [[0.5, 0.6], [1, 0]]}, "detected is no distribution"),
        (stored(2, detected=None), "the regions have no detected; they have features, boxes, objects"),
        (stored(0), "the picture has no regions"),
        (np.zeros((2, 6)), r"neither a dict .* nor an array \[n, 7\]"),
    ],
)
def test_bad_regions_are_named(given: Any, message: str) -> None:
    with pytest.raises(BadExample, match=message):
        READ(given, None)


def test_columns_become_the_input() -> None:
    gather = GatherRegions(of=("features", "boxes", "objects"))
    record = {"id": "a", "features": 1, "boxes": 2, "objects": None, "text": "t"}
    assert gather(dict(record), None) == record | {"regions": {"features": 1, "boxes": 2}}
    assert gather({"id": "a", "features": None, "boxes": 2}, None)["regions"] is None
    assert gather.columns(("id", "features", "boxes")) == ("id", "features", "boxes", "regions")
    assert gather.columns(("id",)) == ("id",)


def test_cells_of_a_grid_pixel_by_pixel() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 10, 3), np.uint8)
    grid = GridRegions(rows=2, columns=3, levels=2)
    row = Chains({"regions": (grid,)}).row({"id": "a", "regions": picture}, evaluation)
    assert row["regions_mask"].all()
    tops, lefts = [0, 3, 7], [0, 3, 6, 10]
    for cell in range(6):
        r, c = divmod(cell, 3)
        pixels = [picture[y, x] for y in range(tops[r], tops[r + 1]) for x in range(lefts[c], lefts[c + 1])]
        values = np.array(pixels, np.float64) / 255
        box = [lefts[c] / 10, tops[r] / 7, lefts[c + 1] / 10, tops[r + 1] / 7]
        expected = [*values.mean(axis=0), *np.sqrt(((values - values.mean(axis=0)) ** 2).mean(axis=0)), *box]
        np.testing.assert_allclose(row["regions"][cell], expected, rtol=1e-5)
        counts = np.zeros(8)
        for red, green, blue in pixels:
            counts[4 * (red >= 128) + 2 * (green >= 128) + (blue >= 128)] += 1
        np.testing.assert_allclose(row["regions_colours"][cell], counts / len(pixels), rtol=1e-6)
        assert row["regions_colour"][cell] == np.argmax(counts)
        np.testing.assert_allclose(row["regions_colour_confidence"][cell], counts.max() / len(pixels), rtol=1e-6)


def test_a_grid_s_levels_are_equal_ranges() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    colours = GridRegions(rows=1, columns=1, levels=3)(ramp, None).labels["colours"][0]
    np.testing.assert_allclose(colours[[0, 13, 26]], [86 / 256, 85 / 256, 85 / 256], rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: ReadRegions(features=0, most=2), r"ReadRegions\(features=0\)"),
        (lambda: ReadRegions(features=2, most=2, classes={"objects": 0}), r"ReadRegions\(objects=0\)"),
        (lambda: GridRegions(levels=0), r"GridRegions\(levels=0\)"),
        (lambda: GridRegions()(np.zeros((4, 4, 3), np.float32), None), r"uint8\[H, W, 3\], and was given float32"),
    ],
)
def test_what_can_t_be_is_an_error(made: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made()


def test_a_picture_smaller_than_the_grid_is_bad() -> None:
    with pytest.raises(BadExample, match="has no 4x4 cells"):
        GridRegions()(np.zeros((3, 8, 3), np.uint8), None)
    assert isinstance(GridRegions(), Transform)
