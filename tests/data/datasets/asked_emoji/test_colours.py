import numpy as np
import pytest

from mmjax.data.datasets.asked_emoji.colours import colour_of, palette_tone
from mmjax.data.datasets.asked_emoji.drawings import drawing


def painted(*parts):
    """A drawing of 100 pixels, of (number, RGB, alpha)."""
    return np.concatenate([np.tile([*bytes.fromhex(tone), alpha], (n, 1)) for n, tone, alpha in parts]).astype(
        np.uint8
    )[:, None]


@pytest.mark.parametrize(
    ("parts", "colour"),
    [
        ([(100, "ea5a47", 255)], "red"),
        ([(50, "ea5a47", 255), (50, "d22f27", 255)], "red"),  # light and shade
        ([(65, "61b2e4", 255), (35, "b1cc33", 255)], "blue"),
        ([(64, "61b2e4", 255), (36, "b1cc33", 255)], None),  # under 65 %
        ([(65, "000000", 255), (35, "b1cc33", 255)], "green"),
        ([(66, "000000", 255), (34, "b1cc33", 255)], None),  # hardly more than lines
        ([(90, "ea5a47", 249), (10, "fcea2b", 255)], "yellow"),  # edges don't count
        ([(100, "ea5a47", 0)], None),
        ([(100, "f1b31c", 255)], None),  # yellow or orange
        ([(100, "ffffff", 255)], "white"),
        ([(100, "ffffff", 0)], None),
        ([(100, "93d1f0", 255)], "blue"),  # the nearest tone
    ],
)
def test_a_colour_is_the_one_of_most_filled_pixels(parts, colour):
    assert colour_of(painted(*parts)) == colour


@pytest.mark.parametrize(
    ("emoji_id", "colour"),
    [
        ("1F34E", "red"),
        ("1F34B", "yellow"),
        ("1F966", "green"),
        ("1F43B", "brown"),
        ("1F535", "blue"),
        ("1F7E3", "purple"),
        ("1F437", "pink"),
        ("1F308", None),  # rainbow
        ("1F1EB-1F1F7", None),  # a tricolour
    ],
)
def test_emoji_have_the_colours_that_people_say(emoji_id, colour):
    small, large = (colour_of(np.asarray(drawing(emoji_id, side))) for side in (32, 96))
    assert small == large == colour


@pytest.mark.parametrize(
    ("emoji_id", "colour"),
    [
        ("1F34E", "red"),
        ("1F34B", "yellow"),
        ("1F966", "green"),
        ("1F43B", "brown"),
        ("1F535", "blue"),
        ("1F437", "pink"),
    ],
)
def test_the_tone_of_a_colour_is_in_drawings_of_that_colour(emoji_id, colour):
    assert list(palette_tone(colour)) in np.asarray(drawing(emoji_id, 64).convert("RGB")).reshape(-1, 3).tolist()
