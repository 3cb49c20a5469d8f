"""Pictures and sounds as data URIs, within a budget; what is broken is said to be."""

import base64
import io
import re
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

from mmjax.evaluate.contract import Embedded
from mmjax.evaluate.report.media import Media
from tests.data.decoding.sounding import sounding
from tests.evaluate.report.made import png, wav


def media(raw, budget: int = 10**7, count: int = 3) -> Media:
    return Media(raw, known([f"caption {i}" for i in range(count)]), "0", [budget])


def known(captions: list[Any], ids: list[Any] | None = None) -> Embedded:
    named = {"text": captions} if captions else {}
    return Embedded({}, {}, {"id": ids or [f"id {i}" for i in range(len(captions))], **named})


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


def test_a_video_is_a_picture_that_leads_to_where_it_plays():
    page = media(lambda row, column: sounding(seconds=12))
    shown = [page.show(1, "video"), page.show(1, "video")]
    assert shown[0] == shown[1]
    assert "picture of: caption 1" in shown[0]
    clips = page.clips()
    assert clips is not None
    assert clips.count("<video") == 1
    assert re.search(r'href="#([^"]+)"', shown[0]).group(1) in re.findall(r'id="([^"]+)"', clips)  # pyright: ignore
    with av.open(io.BytesIO(content(clips)), "r") as opened:
        assert [stream.codec_context.name for stream in opened.streams] == ["vp9", "opus"]
        assert sum(1 for _ in opened.decode(video=0)) == 10 * 12


def test_a_video_without_space_or_that_is_broken_is_said_to_be():
    poor = media(lambda row, column: sounding(seconds=2), budget=5_000)
    shown = poor.show(0, "video")
    assert ("<img" in shown, "href" in shown, poor.clips()) == (True, False, None)
    broken = media(lambda row, column: b"no video")
    assert "no picture: caption 0" in broken.show(0, "video")
    assert broken.clips() is None


def test_a_video_that_is_stored_as_frames_is_shown_and_played():
    page = media(lambda row, column: [png(number, 32) for number in range(4)] if row else [b"no picture"])
    assert "href" in page.show(1, "video")
    assert "no picture: caption 0" in page.show(0, "video")
    clips = page.clips()
    assert clips is not None
    with av.open(io.BytesIO(content(clips)), "r") as opened:
        assert sum(1 for _ in opened.decode(video=0)) == 4


def test_many_sounds_are_folded_and_counted():
    few, many = (media(lambda row, column: wav(row), count=20) for _ in range(2))
    for page, count in ((few, 12), (many, 13)):
        for row in range(count):
            page.show(row, "audio")
    assert "<summary>12 sounds, all that are shown above</summary>" in str(few.sounds())
    assert '<details class="folded" open>' in str(few.sounds())
    assert "<summary>13 sounds, all that are shown above</summary>" in str(many.sounds())
    assert '<details class="folded">' in str(many.sounds())


def test_a_sound_that_the_model_hears_in_part_says_so():
    lasting = {0: 0.5, 1: 2.53, 2: 12.0}
    page = Media(lambda row, column: wav(row, lasting[row]), known(["a", "b", "c"]), "0", [10**7], heard={"audio": 2.5})
    for row in lasting:
        page.show(row, "audio")
    sounds = str(page.sounds())
    assert (
        "3 sounds, all that are shown above; 2 of them last longer than the 2.5 seconds that the model hears" in sounds
    )
    assert '<span class="name">a</span>' in sounds
    assert '<span class="name">b<small>the first 2.50 of 2.53 seconds are heard</small></span>' in sounds
    assert '<span class="name">c<small>the first 2.5 of 12.0 seconds are heard</small></span>' in sounds


def test_what_has_no_space_is_left_out_and_counted():
    one = media(lambda row, column: png(row, 300)).uri(0, "image", 96)
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
    page = Media(lambda row, column: None, known([None, ""], ["a.png", "b.png"]), "0", [0])
    assert [page.caption(row) for row in (0, 1)] == ["a.png", "b.png"]
    assert Media(lambda row, column: None, known([], [7]), "0", [0]).caption(0) == "7"


def test_few_pixels_are_drawn_large():
    shown = media(lambda row, column: np.full((8, 8, 3), 200, np.uint8)).show(0, "image", 96)
    with Image.open(io.BytesIO(content(shown))) as picture:
        assert picture.size == (96, 96)
