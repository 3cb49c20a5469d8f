"""How much of a sound a chain keeps, and how that is said."""

import pytest

from mmjax.data.transforms.audio import CropOrPad, DecodeAudio, PickUtterance, RandomSpeed
from mmjax.data.transforms.spans import heard, partly, seconds


def test_a_chain_keeps_its_samples_at_its_rate():
    assert heard((PickUtterance(), DecodeAudio(8_000), RandomSpeed(), CropOrPad(20_000))) == 2.5
    assert heard((DecodeAudio(),)) is None  # all of it
    assert heard((CropOrPad(20_000),)) is None  # of waveforms at a rate that nothing says
    assert heard(()) is None


@pytest.mark.parametrize(
    ("most", "whole", "said"),
    [
        (2.5, 7.31, "the first 2.5 of 7.3 seconds are heard"),
        (2.5, 2.53, "the first 2.50 of 2.53 seconds are heard"),  # as many places as tell them apart
        (0.01, 7.0, "the first 0.01 of 7.00 seconds are heard"),
        (2.5, 2.5004, None),  # resampled
        (2.5, 1.0, None),
        (None, 9.0, None),
        (2.5, None, None),
    ],
)
def test_what_is_cut_off_is_said_in_seconds(most, whole, said):
    assert partly(most, whole) == said


def test_seconds_are_counted():
    assert [seconds(each) for each in (1, 1.5, 10.0)] == ["1 second", "1.5 seconds", "10 seconds"]
