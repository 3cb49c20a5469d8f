"""Features of clips by loops; motion has a sign; what is refused."""

import numpy as np
import pytest

from mmjax.data import BadExample, DecodeVideo, PooledPixels, Spec, VideoInput
from mmjax.data.transforms.contract import VARIES
from mmjax.data.transforms.values import Masked, prefix_mask
from mmjax.errors import UserError

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 7, 9, 3), dtype=np.uint8)
ALL = np.ones(6, bool)


def cells_by_loops(frame: np.ndarray, grid: int) -> np.ndarray:
    height, width = frame.shape[:2]
    found = []
    for row in range(grid):
        for column in range(grid):
            pixels = [
                frame[y, x].astype(np.float64) / 255
                for y in range(row * height // grid, (row + 1) * height // grid)
                for x in range(column * width // grid, (column + 1) * width // grid)
            ]
            found.append(np.mean(pixels, axis=0))
    return np.concatenate(found)


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_a_frame_s_cells_by_loops(grid: int):
    step = PooledPixels(grid=grid)
    found = step(Masked(FRAMES, ALL), None)
    np.testing.assert_allclose(found.values, [cells_by_loops(frame, grid) for frame in FRAMES], atol=1e-6)
    assert found.values.dtype == np.float32
    assert found.mask.all()
    assert step.spec(DecodeVideo(6).spec(None)).shape == found.values.shape


@pytest.mark.parametrize("frames", [2, 3, 6])
def test_a_clip_is_the_mean_and_the_change(frames: int):
    cells = np.stack([cells_by_loops(frame, 2) for frame in FRAMES])
    expected = []
    for clip in range(6 // frames):
        part, half = cells[clip * frames : (clip + 1) * frames], frames // 2
        expected.append([*part.mean(0), *(part[frames - half :].mean(0) - part[:half].mean(0))])
    step = PooledPixels(grid=2, frames=frames)
    found = step(Masked(FRAMES, ALL), None)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert step.spec(DecodeVideo(6).spec(None)).shape == found.values.shape == (6 // frames, 24)


def test_frames_in_reverse_order_change_the_sign_of_the_change_alone():
    step = PooledPixels(grid=2, frames=6)
    forth, back = (step(Masked(frames, ALL), None).values[0] for frames in (FRAMES, FRAMES[::-1]))
    np.testing.assert_allclose(back[:12], forth[:12], atol=1e-6)
    np.testing.assert_allclose(back[12:], -forth[12:], atol=1e-6)
    assert np.abs(forth[12:]).max() > 0.01


def test_a_clip_that_a_video_does_not_fill_is_padding():
    found = PooledPixels(grid=2, frames=2)(Masked(FRAMES, prefix_mask(6, 3)), None)
    assert found.mask.tolist() == [True, False, False]
    assert not found.values[1:].any()
    with pytest.raises(BadExample, match="of 1 frames there is no clip of 2"):
        PooledPixels(frames=2)(Masked(FRAMES, prefix_mask(6, 1)), None)


def test_what_it_says_of_its_features():
    made = PooledPixels(grid=4, frames=3).spec(Spec((6, VARIES, VARIES, 3), "uint8", masked=True, kind=VideoInput))
    assert made._replace(kind=VideoInput) == Spec((2, 96), "float32", masked=True, kind=VideoInput)
    assert issubclass(made.kind, VideoInput)  # a file is read as before ...
    assert not any((made.kind.draws, made.kind.moves, made.kind.amount))  # ... and what a batch holds can't be shown


def test_what_cannot_be_is_refused():
    for wrong in ({"grid": 0}, {"frames": 0}):
        with pytest.raises(UserError, match="both must be at least 1"):
            PooledPixels(**wrong)
    with pytest.raises(UserError, match=r"PooledPixels\(frames=4\) was given 6 frames, which aren't whole clips"):
        PooledPixels(frames=4).spec(DecodeVideo(6).spec(None))
    with pytest.raises(UserError, match=r"was given \[3, 4\], and reads frames"):
        PooledPixels().spec(Spec((3, 4), "float32"))
    with pytest.raises(UserError, match="follows frames: DecodeVideo"):
        PooledPixels().spec(None)
    with pytest.raises(UserError, match="frames of float32"):
        PooledPixels(grid=2)(Masked(FRAMES.astype(np.float32), ALL), None)
    with pytest.raises(BadExample, match="have no 8x8 cells"):
        PooledPixels(grid=8)(Masked(FRAMES, ALL), None)
