"""Codes of patches: as a tokenizer gave them, and from mean colours; what is refused."""

import numpy as np
import pytest

from mmjax.data import Codes, ColourCodes, Spec
from mmjax.errors import UserError


def test_given_codes_pass_unchanged_whatever_holds_them():
    chain = Codes(length=4, count=8)
    for given in ([1, 7, 0, 3], [[1, 7], [0, 3]], np.array([[1, 7], [0, 3]], np.int64)):
        found = chain(given, None)
        assert found.dtype == np.int32
        assert found.tolist() == [1, 7, 0, 3]
    assert chain.spec(None) == Spec((4,), "int32", pieces=8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 2, 3], r"Codes\(length=4\) was given int64\[3\]"),
        ([1.0, 2.0, 3.0, 4.0], r"Codes\(length=4\) was given float64\[4\]"),
        ([1, 2, 8, 3], r"Codes\(count=8\) was given the code 8: codes are 0 to 7"),
        ([1, -1, 2, 3], r"was given the code -1"),
    ],
)
def test_codes_of_another_tokenizer_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        Codes(length=4, count=8)(given, None)


def test_colours_by_loops():
    """Each patch's mean in exact arithmetic, and the step of `levels` in which it lies."""
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture[:3, :3] = 255
    picture[:3, 3:6] = 0
    picture[3:, :3] = (127, 128, 85)
    chain = ColourCodes(patch=3, levels=3)
    expected = []
    for row in range(2):
        for column in range(3):
            steps = [
                int(
                    sum(int(x) for x in picture[3 * row : 3 * row + 3, 3 * column : 3 * column + 3, c].flat) * 3 // 2304
                )
                for c in range(3)
            ]
            expected.append(9 * steps[0] + 3 * steps[1] + steps[2])
    assert chain(picture, None).tolist() == expected
    assert expected[:2] == [26, 0]
    assert expected[3] == 9 * 1 + 3 * 1 + 0
    assert chain.spec(Spec((6, 9, 3), "uint8")) == Spec((6,), "int32", pieces=27)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="whose sides are multiples of patch; put Resize"):
        ColourCodes(4).spec(Spec((30, 32, 3), "uint8"))
    for make in (lambda: ColourCodes(0), lambda: ColourCodes(4, levels=1), lambda: Codes(0, 8), lambda: Codes(4, 0)):
        with pytest.raises(UserError):
            make()
