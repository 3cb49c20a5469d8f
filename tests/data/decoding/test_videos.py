"""What a video is told to be, and what isn't one: every failure is a BadExample that names it."""

import contextlib
import io
import math
import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.error import FFmpegError
from av.stream import Disposition
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding.video_frames import frames_at
from mmjax.data.decoding.video_sound import sound_between
from mmjax.data.decoding.videos import VideoFacts, video_facts
from mmjax.errors import UserError
from tests.data.conftest import picture_bytes, sound_bytes, tone
from tests.data.decoding.clips import Clip, number_of, numbered
from tests.data.decoding.sounding import sounding

USES = {
    "facts": video_facts,
    "frames": lambda content: frames_at(content, [0.0]),
    "sound": lambda content: sound_between(content, 0.0, 0.1, 16_000),
}


def refused(content, use="frames"):
    with pytest.raises(BadExample) as bad:
        USES[use](content)
    return str(bad.value), bad.value.kind


def test_facts(tmp_path):
    content = sounding(seconds=2, sounds=("aac", "libmp3lame"))
    facts = VideoFacts(2.0, 100, 60, 25.0, "h264", ("aac", "mp3"))
    assert video_facts(content) == facts
    (tmp_path / "a.bin").write_bytes(content)
    assert video_facts(str(tmp_path / "a.bin")) == facts


@pytest.mark.parametrize("container", ["mp4", "matroska", "flv", "mpegts"])
def test_seconds_count_from_the_first_frame(container):
    facts = video_facts(Clip(container=container, times=range(100, 150)).made())
    assert facts.seconds == pytest.approx(2.0, abs=0.05)
    assert facts.rate == pytest.approx(25)


def test_seconds_of_a_container_that_counts_from_0_and_has_no_tags():
    content = Clip(container="matroska", times=range(100, 150)).made()
    assert video_facts(content.replace(b"DURATION", b"XURATION")).seconds == pytest.approx(2.0)


def test_facts_that_a_stream_does_not_tell():
    facts = video_facts(Clip("libvpx-vp9", "webm", container_options={"live": "1"}).made())
    assert facts.seconds is None
    assert (facts.codec, facts.sounds) == ("vp9", ())


def test_a_path_is_taken_to_the_letter(tmp_path):
    """FFmpeg would read a pattern of names, or a protocol, out of it."""
    content = Clip(frames=3).made()
    for name in ("frame%03d.png", "concat:a|b", "a b#?.mp4"):
        (tmp_path / name).write_bytes(content)
        assert number_of(frames_at(str(tmp_path / name), [0.05])[0][0]) == 1


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"it is empty (0 bytes)"),
        (b"a text, and not a film of letters", "it is text"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "it is text ('#EXTM3U')"),
        (b"ffconcat version 1.0\nfile a.mp4\n", "it is text"),
        (picture_bytes((1, 2, 3), (64, 64)), "it is PNG, no video"),
        (picture_bytes((1, 2, 3), (64, 64), format="JPEG"), "it is JPEG, no video"),
        (picture_bytes((1, 2, 3), (64, 64), format="AVIF"), "it is AVIF, no video"),
        (sound_bytes(tone(440)), "it is FLAC, no video"),
        (sound_bytes(tone(440, 0.5), format="MP3"), "it is MP3, no video"),
        (bytes(range(128, 256)) * 50, "it is of no known format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_video(content, message, use):
    told, kind = refused(content, use)
    assert told.startswith(f"the video can't be decoded: {message}")
    assert kind == "undecodable"
    assert "object at 0x" not in told


def test_an_animated_picture_is_none():
    stream = io.BytesIO()
    Image.new("L", (32, 32)).save(stream, "GIF", save_all=True, append_images=[Image.new("L", (32, 32), 99)])
    assert "it is GIF, no video" in refused(stream.getvalue())[0]


@pytest.mark.parametrize("use", USES)
def test_a_sound_with_a_cover_is_none(use):
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as out:
        cover, sound = out.add_stream("mjpeg", rate=1), out.add_stream("aac", rate=16_000)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
        out.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        out.mux(sound.encode(frame))
        out.mux(sound.encode())
    assert refused(stream.getvalue(), use) == (
        "the file holds no video: it has sound alone, or a picture that stands still",
        "empty",
    )


def test_a_sound_alone_in_a_container_for_videos_is_none():
    assert refused(sounding(seconds=1, pictures=None))[1] == "empty"


def test_a_file_that_is_not_there(tmp_path):
    told, kind = refused(str(tmp_path / "gone.mp4"))
    assert (kind, "gone.mp4" in told) == ("undecodable", True)
    assert refused(str(tmp_path))[1] == "undecodable"


def test_what_is_neither_bytes_nor_a_path():
    with pytest.raises(UserError, match="bytes, or as the path"):
        frames_at(3, [0.0])  # type: ignore


@pytest.mark.parametrize(
    ("module", "message"),
    [(None, r"needs PyAV: pip install 'mmjax\[video\]'"), (SimpleNamespace(__version__="17.9"), "too old")],
)
@pytest.mark.parametrize("use", USES)
def test_pyav_is_missing_or_old(module, message, use, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", module)
    with pytest.raises(UserError, match=message):
        USES[use](b"")


@pytest.mark.parametrize("codec", [("libvpx-vp9", "webm", b"V_VP9", b"V_ZZ9"), ("libx264", "mp4", b"avc1", b"zzzz")])
@pytest.mark.parametrize("use", ["facts", "frames"])
def test_a_codec_without_a_decoder(codec, use):
    name, container, old, new = codec
    content = Clip(name, container, frames=5).made()
    place = content.rindex(old)
    told, kind = refused(content[:place] + new + content[place + len(old) :], use)
    assert kind == "undecodable"
    assert "no decoder for the codec of its video track" in told


def test_the_sound_of_pictures_without_a_decoder():
    content = sounding(seconds=1)
    place = content.rindex(b"avc1")
    found = sound_between(content[:place] + b"zzzz" + content[place + 4 :], 0.0, 0.5, 48_000)
    np.testing.assert_array_equal(found, sound_between(content, 0.0, 0.5, 48_000))


def test_a_file_without_its_index():
    content = Clip().made()
    told, kind = refused(content[: content.index(b"moov")])
    assert (kind, "it is MP4, but broken, cut off" in told) == ("undecodable", True)


def test_a_bare_stream_has_no_times():
    told, _ = refused(Clip(container="h264").made())
    assert "a bare stream of H.264 or H.265" in told
    assert "ffmpeg -framerate RATE" in told


@pytest.mark.parametrize(("container", "options"), [("mp4", {"movflags": "empty_moov"}), ("avi", {})])
@pytest.mark.parametrize("use", ["facts", "frames"])
def test_a_video_with_no_frame(container, options, use):
    stream = io.BytesIO()
    with (
        av.open(io.BytesIO(Clip(container="matroska", frames=1).made()), "r") as given,
        av.open(stream, "w", format=container, options=options) as out,
    ):
        out.add_stream_from_template(given.streams.video[0])
        out.start_encoding()
    assert refused(stream.getvalue(), use) == ("the video holds no frame that can be decoded", "empty")


def last_before_the_end(content):
    """The time of the last frame that can be decoded."""
    found = [0.0]
    with av.open(io.BytesIO(content), "r") as file:
        track = file.streams.video[0]
        with contextlib.suppress(FFmpegError):
            found.extend(float((frame.pts or 0) * (track.time_base or 0)) for frame in file.decode(track))
    return max(found)


CUT = {
    "matroska": Clip(container="matroska", frames=100, options={"g": "25", "bf": "2"}),
    "vp9": Clip("libvpx-vp9", "webm", frames=100, options={"g": "25"}),
    "mpeg4": Clip("mpeg4", "avi", frames=100, options={"g": "25"}),
    "mp4": Clip(frames=100, options={"g": "25", "bf": "2"}, container_options={"movflags": "faststart"}),
    "fragments": Clip(frames=100, options={"g": "25"}, container_options={"movflags": "frag_keyframe+empty_moov"}),
}


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_is_cut_off_in_the_middle(name, tmp_path):
    content = CUT[name].made(tmp_path / "whole")  # FFmpeg moves an index to the front of files that have a name
    content = content[: len(content) // 2]
    frames, _ = frames_at(content, [0.0, 0.4, 0.8])
    assert [number_of(frame) for frame in frames] == [0, 10, 20]
    last = last_before_the_end(content)
    for asked in ([3.5], [0.4, 3.5], [3.96], [0.4, 3.0, 3.9], [last + 0.3], [0.4, last + 0.3]):
        with pytest.raises(BadExample, match="the video") as bad:
            frames_at(content, asked)
        assert bad.value.kind == "undecodable"


def broken(clip, number):
    """A clip whose packet `number`, in the order of decoding, holds other bytes; and the times of all in seconds."""
    content = bytearray(clip.made())
    with av.open(io.BytesIO(bytes(content)), "r") as file:
        track = file.streams.video[0]
        base = track.time_base or 0
        packets = [(packet.pos or 0, packet.size, float((packet.pts or 0) * base)) for packet in file.demux(track)]
    place, size, _ = packets[number]
    first = place + (size // 3 if clip.codec in ("libx264", "mpeg4") else 0)  # the head of what else is told at once
    for i in range(first, place + size - 1):
        content[i] ^= 0xA5
    return bytes(content), [time for _, _, time in packets[:-1]]


def noisy(number, width, height):
    noise = np.random.default_rng(number).integers(-30, 31, (height, width, 3))
    return np.clip(numbered(number, width, height) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "clip",
    [
        Clip(frames=100, options={"g": "25", "bf": "2", "x264-params": "b-adapt=0"}),
        Clip("libx265", frames=100, options={"x265-params": "keyint=25:min-keyint=25:bframes=0"}),
        Clip("mpeg4", "matroska", frames=100, options={"g": "25", "sc_threshold": "1000000000"}),
    ],
    ids=lambda clip: clip.codec,
)
def test_a_packet_that_is_broken(clip):
    content, times = broken(clip._replace(picture=noisy), 40)
    start = min(times)
    frames, _ = frames_at(content, [0.0, 0.8, 1.2])
    assert [number_of(frame) for frame in frames] == [0, 20, 30]
    frames, _ = frames_at(content, [2.04, 3.0])  # in groups behind it
    assert [number_of(frame) for frame in frames] == [51, 75]
    for asked in ([times[40] - start], [0.0, times[40] - start, 3.0], [times[44] - start]):
        with pytest.raises(BadExample, match="the video is broken at") as bad:
            frames_at(content, asked)
        assert bad.value.kind == "undecodable"


def test_a_group_behind_one_that_is_broken_at_its_end():
    """It is reached without a jump."""
    content, _ = broken(Clip(frames=100, options={"g": "25", "bf": "0"}, picture=noisy), 47)
    frames, _ = frames_at(content, [1.8, 1.84, 2.0, 2.04])
    assert [number_of(frame) for frame in frames] == [45, 46, 50, 51]
    for asked in ([1.92], [1.84, 1.96, 2.0]):
        with pytest.raises(BadExample, match="the video is broken at 1"):
            frames_at(content, asked)


@pytest.mark.filterwarnings("error")
def test_any_damage_is_a_bad_example_and_ffmpeg_is_silent(capfd):
    made = [
        sounding(seconds=1),
        sounding(seconds=1, container="matroska", sounds=("flac",)),
        sounding(seconds=1, container="mpegts", sounds=("mp2",)),
        Clip("mpeg4", "avi", frames=25).made(),
        Clip("libvpx-vp9", "webm", frames=10).made(),
    ]
    capfd.readouterr()
    draw, said, fine = np.random.default_rng(0), [], 0
    for content in made:
        damaged = [content[: len(content) * i // 8] for i in range(1, 8)]
        for most in (200, len(content)):
            for _ in range(5):
                array = bytearray(content)
                for place in draw.integers(0, min(most, len(content)), 6):
                    array[place] = draw.integers(256)
                damaged.append(bytes(array))
        for part in damaged:
            for use in USES.values():
                try:
                    use(part)
                    fine += 1
                except BadExample as bad:
                    said.append(str(bad))
    assert min(len(said), fine) > 20
    assert [text for text in said if " at 0x" in text] == []
    assert capfd.readouterr() == ("", "")


def test_the_facts_of_what_is_not_square_or_not_upright():
    def prepare(track):
        track.sample_aspect_ratio = 2
        track.set_display_rotation(90)

    facts = video_facts(Clip(prepare=prepare).made())
    assert (facts.width, facts.height) == (60, 200)
    assert math.isclose(facts.seconds or 0, 2.4)
