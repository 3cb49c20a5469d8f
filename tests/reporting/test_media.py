"""Pictures and sounds as data URIs, within a budget; what is broken is said to be."""

import base64
import io
import re

import numpy as np
import soundfile
from PIL import Image

from mmjax.reporting.media import Media
from tests.reporting.made import png, wav


def media(raw, budget: int = 10**7, count: int = 3) -> Media:
    return Media(raw, [f"caption {i}" for i in range(count)], [f"id {i}" for i in range(count)], "0", [budget])


def content(markup: str) -> bytes:
    return base64.b64decode(re.findall(r'src="data:[^,]*,([^"]*)"', markup)[0])


def test_a_picture_is_made_small_and_has_a_text():
    shown = media(lambda row, column: png(row, 300)).show(1, "image", 96)
    assert 'alt="picture of: caption 1"' in shown
    with Image.open(io.BytesIO(content(shown))) as picture:
        assert picture.size == (96, 96)


def test_a_sound_is_cut_and_kept_once():
    page = media(lambda row, column: wav(row, seconds=12))
    links = [page.show(1, "audio"), page.show(1, "audio")]
    assert links[0] == links[1]
    sounds = page.sounds()
    assert sounds is not None
    assert sounds.count("<audio") == 1
    assert re.search(r'href="#([^"]+)"', links[0]).group(1) in re.findall(r'id="([^"]+)"', sounds)  # pyright: ignore
    samples, rate = soundfile.read(io.BytesIO(content(sounds)))
    assert len(samples) / rate == 10


def test_what_has_no_space_is_left_out_and_counted():
    one = media(lambda row, column: png(row, 300)).uri(0, 96)
    assert one is not None
    page = media(lambda row, column: png(row, 300), budget=len(one) * 3 // 2)
    shown = [page.show(row, "image", 96) for row in range(3)]
    assert sum("<img" in each for each in shown) == 1
    assert page.left_out == 2
    assert "no picture: caption 2" in shown[2]


def test_what_is_missing_or_broken_is_named():
    assert "no picture: caption 0" in media(lambda row, column: None).show(0, "image")
    assert "no picture: caption 0" in media(lambda row, column: b"no picture").show(0, "image")
    assert "♪ caption 0" in media(lambda row, column: b"no sound").show(0, "audio")
    assert media(lambda row, column: None).sounds() is None


def test_an_example_without_a_caption_goes_by_its_id():
    page = Media(lambda row, column: None, [None, ""], ["a.png", "b.png"], "0", [0])
    assert [page.caption(row) for row in (0, 1)] == ["a.png", "b.png"]
    assert Media(lambda row, column: None, [], [7], "0", [0]).caption(0) == "7"


def test_few_pixels_are_drawn_large():
    shown = media(lambda row, column: np.full((8, 8, 3), 200, np.uint8)).show(0, "image", 96)
    with Image.open(io.BytesIO(content(shown))) as picture:
        assert picture.size == (96, 96)
