"""Settings that can't be are refused."""

import pytest

from mmjax.data.prepare.settings import PrepareSettings
from mmjax.errors import UserError


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"seconds": 0}, "seconds=0 must be a number above 0"),
        ({"rate": float("nan")}, "rate=nan must be"),
        ({"seconds": 5, "rate": 0.3}, r"are 1.5 frames: .* as with rate=0.4"),
        ({"seconds": 1, "rate": 0.4}, r"are 0.4 frames: .* as with rate=1$"),
        ({"quality": 96}, "quality=96 must be a whole number from 1 to 95"),
        ({"short_side": 0}, "short_side=0"),
        ({"sound_rate": 700_000}, "sound_rate=700000 must be a whole number from 1 to 655,350"),
    ],
)
def test_numbers_that_cannot_be(wrong, told):
    with pytest.raises(UserError, match=told):
        PrepareSettings(**wrong)


def test_a_segment_has_a_whole_number_of_frames():
    assert PrepareSettings(seconds=0.3, rate=10).frames == 3
    assert PrepareSettings().frames == 5
