import numpy as np
import pytest

from mmjax.data import CutCells, DecodeVideo, EachFrame, PooledPixels, Resize
from mmjax.data.transforms.values import Masked
from mmjax.errors import UserError


def test_cells_of_each_clip_row_by_row_and_their_frames_in_order():
    frames = np.random.default_rng(0).integers(0, 255, (6, 4, 9, 3), dtype=np.uint8)
    mask = np.arange(6) < 5
    cut = CutCells(rows=2, columns=3, frames=2)
    found = cut(Masked(frames, mask), None)
    place = 0
    for clip in range(3):
        for row in range(2):
            for column in range(3):
                for within in range(2):
                    number = 2 * clip + within
                    cell = frames[number, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
                    np.testing.assert_array_equal(found.values[place], cell)
                    assert found.mask[place] == mask[number]
                    place += 1
    assert place == len(found.values)


def test_pooled_they_are_a_feature_for_each_cell_of_each_clip():
    frames = np.zeros((4, 4, 6, 3), np.uint8)
    frames[3, 2:, 4:] = 255  # the last cell becomes white in the second clip
    chain = (CutCells(2, 3, frames=2), PooledPixels(grid=1, frames=2))
    value = Masked(frames, np.ones(4, bool))
    for step in chain:
        value = step(value, None)
    expected = np.zeros((12, 6))
    expected[11] = [0.5] * 3 + [1.0] * 3
    np.testing.assert_allclose(value.values, expected)
    spec = None
    for step in (DecodeVideo(4), EachFrame((Resize(6),)), *chain):
        spec = step.spec(spec)
    assert spec is not None
    assert spec.shape == value.values.shape


@pytest.mark.parametrize(
    ("cells", "shape"),
    [((3, 3, 2), (4, 4, 6, 3)), ((2, 4, 2), (4, 4, 6, 3)), ((2, 3, 3), (4, 4, 6, 3)), ((2, 3, 2), (4, 6, 3))],
)
def test_what_does_not_divide_is_told(cells, shape):
    with pytest.raises(UserError, match=rf"CutCells\(rows={cells[0]}.* was given"):
        CutCells(*cells)(Masked(np.zeros(shape, np.uint8), np.ones(4, bool)), None)
    with pytest.raises(UserError, match="CutCells"):
        CutCells(*cells).spec(DecodeVideo(4).spec(None))  # frames of any size
    with pytest.raises(UserError, match="DecodeVideo"):
        CutCells(*cells).spec(None)
    with pytest.raises(UserError, match="must be at least 1"):
        CutCells(cells[0], 0, 1)
