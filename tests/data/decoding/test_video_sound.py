"""Sound lies where the pictures' clock says, to one sample, whatever the container does to its times."""

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
import soxr

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.loudness import to_int16
from mmjax.data.decoding.video_sound import sound_between
from mmjax.data.decoding.videos import video_facts
from mmjax.errors import UserError
from tests.data.decoding.clips import Clip
from tests.data.decoding.sounding import clicks, sounding

RATE, TIMES = 48_000, (0.5, 2.0, 5.5, 5.7, 9.25)
NOISE = np.clip(np.random.default_rng(0).normal(0, 0.2, 12 * RATE), -1, 1)

# Of containers that keep exact times, or milliseconds with a first frame at 0, or 1/90,000 s. AVI and Flash video tell
# nothing of an encoder's delay, or have it in milliseconds.
KEPT = [
    ("aac", "mp4", "libx264", 48_000),
    ("aac", "mp4", "libx264", 44_100),
    ("libmp3lame", "mp4", "libx264", 44_100),
    ("libopus", "mp4", "libx264", 48_000),
    ("libopus", "webm", "libvpx-vp9", 48_000),
    ("aac", "matroska", "libx264", 44_100),
    ("flac", "matroska", "libx264", 44_100),
    ("pcm_s16le", "matroska", "libx264", 44_100),
    ("pcm_s16le", "mov", "libx264", 48_000),
    ("pcm_s16le", "avi", "mpeg4", 48_000),
    ("aac", "mpegts", "libx264", 48_000),
    ("mp2", "mpegts", "mpeg2video", 48_000),
    ("mp2", "mpeg", "mpeg2video", 44_100),
]


def loudest(samples, place, around):
    """Where the loudest sample is near a place, in samples behind it."""
    first = max(place - around, 0)
    return first + int(np.argmax(np.abs(samples[first : place + around].astype(int)))) - place


@pytest.mark.parametrize(("codec", "container", "pictures", "own"), KEPT)
def test_a_click_is_where_it_was_made(codec, container, pictures, own):
    """To one sample: lossy codecs smear a click, and its loudest sample stays or moves by one."""
    content = sounding(
        clicks(TIMES, 12, own), seconds=12, rate=own, sounds=(codec,), container=container, pictures=pictures
    )
    for rate in (own, 16_000):
        for start, end in ((0.0, 12.0), (0.4, 0.7), (5.25, 6.0), (9.0113, 9.3)):
            found = sound_between(content, start, end, rate)
            assert found.shape == (round((end - start) * rate),)
            assert found.dtype == np.int16
            for time in TIMES:
                if start <= time < end:
                    place = round((time - start) * rate)
                    assert abs(loudest(found, place, rate // 20)) <= 1
                    assert abs(found[max(0, place - 1) : place + 2].astype(int)).max() > 5_000


@pytest.mark.parametrize("container", ["matroska", "mov"])
@pytest.mark.parametrize("codec", ["flac", "pcm_s16le"])
def test_lossless_sound_is_exact(codec, container):
    if (codec, container) == ("flac", "mov"):
        container = "mp4"
    content = sounding(NOISE, seconds=12, sounds=(codec,), container=container)
    whole = np.rint(NOISE * 32_767).astype(np.int16)
    for start, end in ((0.0, 1.0), (0.35, 0.36), (4.0, 5.0), (7.777, 8.5), (11.9, 12.2)):
        found = sound_between(content, start, end, RATE)
        wanted = np.pad(whole, (0, RATE))[round(start * RATE) :][: round((end - start) * RATE)]
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_resampled_windows_are_as_the_whole_resampled(rate):
    content = sounding(NOISE, seconds=12, sounds=("flac",), container="matroska")
    whole = to_int16(soxr.resample(np.rint(NOISE * 32_767).astype(np.float32) / 32_768, RATE, rate))
    for start, end in ((0.5, 2.0), (5.0, 6.0), (9.5, 10.0)):
        found = sound_between(content, start, end, rate)
        wanted = whole[round(start * rate) :][: len(found)]
        assert np.abs(found.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize(("codec", "container"), [("aac", "mp4"), ("libmp3lame", "matroska"), ("libopus", "matroska")])
def test_windows_that_tile_a_sound(codec, container):
    """Also where each is decoded from a place of its own. AAC would draw noise at random, but not for a tone."""
    time = np.arange(12 * RATE) / RATE
    tone = 0.4 * np.sin(2 * np.pi * (200 + 50 * time) * time)
    content = sounding(tone, seconds=12, sounds=(codec,), container=container)
    edges = [0.0, 0.7, 3.111, 3.5, 7.2, 9.87, 12.0]
    parts = [sound_between(content, a, b, RATE) for a, b in itertools.pairwise(edges)]
    whole = sound_between(content, 0.0, 12.0, RATE)
    joined = np.concatenate(parts)
    # Opus' decoder carries a state on, which fades.
    assert np.abs(joined.astype(int) - whole).max() <= (8 if codec == "libopus" else 1)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_sound_that_begins_later_than_the_pictures(container):
    codec = "flac" if container == "matroska" else "mp2" if container == "mpegts" else "aac"
    content = sounding(clicks((0.5,), 2, RATE), seconds=2, sounds=(codec,), container=container, delay=0.75)
    found = sound_between(content, 0.0, 2.0, RATE)
    assert abs(loudest(found, round(1.25 * RATE), RATE // 4)) <= 1
    assert not found[: round(0.7 * RATE)].any()
    assert not sound_between(content, -0.5, 0.5, RATE).any()


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_pictures_that_begin_later_than_the_sound(container):
    """The clock is the pictures'; what sounds before them has negative times."""
    content = sounding(clicks((0.5, 1.5), 3, RATE), seconds=3, sounds=("flac",), container=container, pictures_from=1.0)
    assert loudest(sound_between(content, 0.0, 1.0, RATE), RATE // 2, RATE // 4) == 0
    assert loudest(sound_between(content, -1.0, 0.0, RATE), RATE // 2, RATE // 4) == 0


@pytest.mark.parametrize(("codec", "container"), [("flac", "matroska"), ("aac", "mp4"), ("aac", "matroska")])
def test_a_gap_is_silence(codec, container):
    content = sounding(clicks((0.5, 3.25), 5, RATE), seconds=5, sounds=(codec,), container=container, gap=(1.0, 3.0))
    for start, end in ((0.0, 5.0), (2.0, 4.0)):
        found = sound_between(content, start, end, RATE)
        assert abs(loudest(found, round((3.25 - start) * RATE), RATE // 4)) <= (1 if codec == "aac" else 0)
        silent = found[round((1.2 - start) * RATE) if start == 0.0 else 0 : round((2.9 - start) * RATE)]
        assert not silent.any()


def test_behind_the_end_is_silence():
    found = sound_between(sounding(seconds=2), 1.0, 5.0, 16_000)
    assert found.shape == (64_000,)
    assert found[:15_000].any()
    assert not found[17_000:].any()


def test_tracks():
    content = sounding(0.5 * np.ones(2 * RATE), seconds=2, sounds=("pcm_s16le", "flac"), container="matroska")
    assert video_facts(content).sounds == ("pcm_s16le", "flac")
    loud, quiet = (int(np.median(sound_between(content, 0.5, 1.0, RATE, track=track))) for track in (0, 1))
    assert (loud, quiet) == (round(0.5 * 32_767), round(0.25 * 32_767))
    with pytest.raises(
        BadExample, match=r"track=2 isn't there: the video has 2 tracks of sound, counted from 0"
    ) as bad:
        sound_between(content, 0.0, 1.0, RATE, track=2)
    assert bad.value.kind == "unfit"


def test_a_video_without_sound():
    with pytest.raises(BadExample, match="the video has no sound") as bad:
        sound_between(Clip(frames=5).made(), 0.0, 1.0, RATE)
    assert bad.value.kind == "empty"


@pytest.mark.parametrize("channels", [2, 6])
@pytest.mark.parametrize(("codec", "container"), [("pcm_s16le", "mov"), ("flac", "matroska")])
def test_channels_become_their_mean(channels, codec, container):
    levels = np.linspace(-0.1, 0.5, channels)
    samples = np.sin(np.arange(RATE) / 20)[:, None] * levels
    content = sounding(samples, seconds=1, sounds=(codec,), container=container)
    found = sound_between(content, 0.2, 0.8, RATE)
    wanted = (samples.mean(1) * 32_767)[round(0.2 * RATE) : round(0.8 * RATE)]
    assert np.abs(found - wanted).max() <= 1


def test_too_much_sound():
    content = sounding(seconds=2)
    for rate in (16_000, 96_000):
        most = max(RATE, rate)
        assert len(sound_between(content, 0.0, 1.0, rate, most_samples=most)) == rate
        with pytest.raises(BadExample, match="more than most_samples") as bad:
            sound_between(content, 0.0, 1.0, rate, most_samples=most - 1)
        assert bad.value.kind == "too_large"


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_sound_that_is_cut_off(container, tmp_path):
    whole = sounding(NOISE, seconds=12, sounds=("flac",), container=container)
    if container == "mp4":
        whole = sounding(NOISE, seconds=12, sounds=("flac",), container=container, path=tmp_path / "a.mp4")
    content = whole[: len(whole) // 2]
    np.testing.assert_array_equal(sound_between(content, 1.0, 3.0, RATE), sound_between(whole, 1.0, 3.0, RATE))
    for start, end in ((1.0, 11.0), (9.0, 9.5)):
        with pytest.raises(BadExample, match="the video") as bad:
            sound_between(content, start, end, RATE)
        assert bad.value.kind == "undecodable"


@pytest.mark.parametrize(
    ("start", "end", "rate", "track"),
    [(1, 0, 16_000, 0), (0, float("nan"), 16_000, 0), (0, float("inf"), 16_000, 0), (0, 1, 0, 0), (0, 1, 16_000, -1)],
)
def test_bad_arguments(start, end, rate, track):
    with pytest.raises(UserError):
        sound_between(sounding(seconds=1), start, end, rate, track=track)


def test_an_empty_stretch():
    assert sound_between(sounding(seconds=1), 0.5, 0.5, 16_000).shape == (0,)


def test_another_process_gives_the_same_bytes(tmp_path):
    content = sounding(NOISE, seconds=12, sounds=("aac",))
    (tmp_path / "a.mp4").write_bytes(content)
    code = (
        "import sys, hashlib; from mmjax.data.decoding.video_sound import sound_between; "
        "print(hashlib.sha256(sound_between(sys.argv[1], 6.123, 7.5, 16000).tobytes()).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "a.mp4"], capture_output=True, text=True, check=True)
    here = sound_between(content, 6.123, 7.5, 16_000)
    assert told.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()
