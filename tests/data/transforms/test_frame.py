"""One frame of a video, of its middle or of any time, for a chain of pictures."""

from typing import Any

import numpy as np
import pytest

from mmjax.data import BadExample, CopyInput, CutWindow, Decode, DecodeFrame, Resize
from mmjax.data.chains import Chains, evaluation
from mmjax.data.record_transforms import RecordTransforms
from mmjax.data.transforms.clip import Clip
from mmjax.data.transforms.image_input import PictureInput
from mmjax.errors import UserError
from tests.data.decoding.clips import number_of
from tests.data.decoding.sounding import sounding

SECONDS, RATE = 4.0, 25  # frames carry their number


@pytest.fixture(scope="module")
def content() -> bytes:
    return sounding(seconds=SECONDS, sounds=())


def test_the_middle_in_evaluation_and_any_time_of_the_window_in_training(content: bytes) -> None:
    for start, end in ((0.0, SECONDS), (1.0, 2.0)):
        clip = Clip(content, start, end)
        middle = DecodeFrame()(clip, None)
        assert (middle.ndim, middle.dtype, middle.shape[2]) == (3, np.uint8, 3)
        assert abs(number_of(middle) - RATE * (start + end) / 2) <= 1
        numbers = [number_of(DecodeFrame()(clip, np.random.default_rng(seed))) for seed in range(24)]
        assert RATE * start - 1 <= min(numbers) < RATE * (start + 0.2 * (end - start))
        assert RATE * (end - 0.2 * (end - start)) < max(numbers) <= RATE * end
        assert numbers[5] == number_of(DecodeFrame()(clip, np.random.default_rng(5)))
    height, width = DecodeFrame(short_side=16)(content, None).shape[:2]
    assert min(height, width) == 16
    with pytest.raises(UserError, match="short_side=0"):
        DecodeFrame(short_side=0)
    with pytest.raises(BadExample, match="bytes of a file, or frames"):
        DecodeFrame()(17, None)


def test_a_chain_of_pictures_reads_the_window_that_the_sound_is_of(content: bytes) -> None:
    """And a model with that chain takes pictures."""
    steps = (DecodeFrame(), Resize(8))
    chains = Chains({"image": steps})
    cutting = RecordTransforms((CutWindow(1.0), CopyInput("video", "image")), ("image",))

    def row(video: Any) -> Any:
        return chains.row(cutting({"id": "a", "video": video}, evaluation), evaluation)

    seen, gone = row(content), row(None)
    expected = Resize(8)(DecodeFrame()(Clip(content, 1.5, 2.5), None), None)
    np.testing.assert_array_equal(seen["image"], expected)
    assert (seen["image_valid"], gone["image_valid"], gone["image_bad"]) == (True, False, 0)
    spec = steps[1].spec(steps[0].spec(None))
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    found, _ = PictureInput("image", steps, spec).read(picture, "image")
    np.testing.assert_array_equal(found, Resize(8)(Decode()(picture, None), None))
