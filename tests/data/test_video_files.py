"""Files of video that are written: what was given comes back, at its times, and the same bytes in any process."""

import builtins
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from mmjax.data.datasets.emoji_stories.drawing import painted_frames
from mmjax.data.datasets.emoji_stories.narration import FRAME_RATE, FRAME_SAMPLES, SOUND_RATE, narrated
from mmjax.data.datasets.emoji_stories.telling import sentence
from mmjax.data.datasets.spoken_emoji.catalogue import Utterance
from mmjax.data.video_files import video_file
from mmjax.errors import UserError
from tests.data.datasets.emoji_stories.made import GOAT, MET, NAMES, ROCKET, read

ROOT = Path(__file__).parents[2]
LENGTHS = [30] * 5
CONTAINERS = ("mp4", "webm")


def drawn():
    return painted_frames(MET._replace(events=MET.events[:5]), [GOAT, ROCKET], LENGTHS, 2)


def said():
    sentences = [sentence(event, NAMES) for event in MET.events[:5]]
    return narrated(sentences, LENGTHS, Utterance("en-us+m7", 175, 50, 50))


def made(frames, sound, container):
    return video_file(frames, FRAME_RATE, sound, SOUND_RATE, container)


@pytest.fixture(scope="module")
def frames():
    return drawn()


@pytest.fixture(scope="module")
def narration():
    return said()


@pytest.fixture(scope="module", params=CONTAINERS)
def both(request, frames, narration):
    return request.param, read(made(frames, narration.sound, request.param))


def test_a_file_has_the_codecs_of_its_container(both):
    container, found = both
    video, audio = found.codecs
    assert ("264" in video, "aac" in audio) == ((True, True) if container == "mp4" else (False, False))
    assert ("vp9" in video, "opus" in audio) == ((False, False) if container == "mp4" else (True, True))


def test_every_frame_is_there_at_its_time_and_close_to_what_was_drawn(both, frames):
    _, found = both
    assert found.frames.shape == frames.shape
    np.testing.assert_allclose(found.times, np.arange(len(frames)) / FRAME_RATE, atol=2e-3)
    errors = ((found.frames.astype(float) - frames) ** 2).mean((1, 2, 3))
    psnr = 10 * np.log10(255**2 / errors)
    assert psnr.min() > 27
    assert psnr.mean() > 31


def test_the_sound_has_its_length_and_is_where_it_was(both, narration):
    """Encoders delay the sound, and containers say by how much."""
    _, found = both
    assert found.begin == pytest.approx(0, abs=2e-3)
    assert len(found.sound) / found.rate == pytest.approx(len(narration.sound) / SOUND_RATE, abs=0.05)
    heard = found.sound[:: found.rate // SOUND_RATE].astype(float)
    size = 2 * max(len(heard), len(narration.sound))
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(narration.sound.astype(float), size))
    lags = np.fft.irfft(product)
    lag = int(np.argmax(lags))
    assert abs(lag if lag < size / 2 else lag - size) < 0.002 * SOUND_RATE
    shared = min(len(heard), len(narration.sound))
    assert np.corrcoef(heard[:shared], narration.sound[:shared])[0, 1] > 0.95


ENCODE = """
import hashlib
from tests.data.test_video_files import CONTAINERS, drawn, made, said
print(*(hashlib.sha256(made(drawn(), said().sound, each)).hexdigest() for each in CONTAINERS))
"""


def test_another_process_gives_the_same_bytes_whatever_its_memory_holds(frames, narration):
    """glibc fills memory that is allocated with what it is told: an encoder that reads such is seen to."""
    ours = [hashlib.sha256(made(frames, narration.sound, each)).hexdigest() for each in CONTAINERS]
    for filled in ("85", "170"):
        environment = {**os.environ, "MALLOC_PERTURB_": filled}
        found = subprocess.run(
            [sys.executable, "-c", ENCODE], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
        )
        assert found.stdout.split() == ours


@pytest.mark.parametrize("container", CONTAINERS)
def test_there_are_key_frames_to_seek_to(frames, narration, container):
    file = io.BytesIO(made(frames, narration.sound, container))
    with av.open(file, "r") as opened:
        keys = [float((packet.pts or 0) * packet.time_base) for packet in opened.demux(video=0) if packet.is_keyframe]
    assert keys[0] == 0
    assert max(np.diff([*keys, len(frames) / FRAME_RATE])) <= 3.01


def test_a_sound_of_another_length_is_told(frames):
    with pytest.raises(UserError, match=r"150 frames takes 300000 samples of sound, not 299999"):
        made(frames, np.zeros(150 * FRAME_SAMPLES - 1, np.int16), "mp4")


def test_without_pyav_the_extra_is_named(monkeypatch, frames):
    imported = builtins.__import__

    def without(name, *others, **more):
        if name == "av":
            raise ImportError("no av")
        return imported(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"needs PyAV, which isn't installed: pip install 'mmjax\[video\]'"):
        made(frames, np.zeros(150 * FRAME_SAMPLES, np.int16), "mp4")


def test_an_encoder_that_is_lacking_is_named(monkeypatch, frames):
    from mmjax.data import video_files

    lacking = video_files._CODECS["mp4"]._replace(video="libx999")
    monkeypatch.setitem(video_files._CODECS, "mp4", lacking)
    with pytest.raises(UserError, match=r"this build of PyAV lacks the encoder .*libx999"):
        made(frames, np.zeros(150 * FRAME_SAMPLES, np.int16), "mp4")


def test_a_file_without_sound_of_another_rate_and_odd_size():
    frames = np.random.default_rng(0).integers(0, 256, (6, 33, 51, 3), np.uint8)
    for container in CONTAINERS:
        with av.open(io.BytesIO(video_file(frames, 5, None, SOUND_RATE, container)), "r") as opened:
            assert [stream.type for stream in opened.streams] == ["video"]
            times = [(frame.time, frame.width, frame.height) for frame in opened.decode(video=0)]
        assert times == [(pytest.approx(number / 5, abs=2e-3), 50, 32) for number in range(6)]
