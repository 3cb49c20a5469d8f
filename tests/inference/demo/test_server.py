"""Pictures and sounds as a browser gets them, a free port, and a policy that keeps the page to itself."""

import io
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from mmjax.data.kinds import kind_of
from mmjax.errors import UserError
from mmjax.inference.demo import server
from mmjax.inference.demo.search import Item
from mmjax.inference.demo.server import HOST, free_port, jpeg, sound
from tests.data.decoding.clips import Clip
from tests.data.decoding.sounding import sounding
from tests.evaluate.report.made import png, wav


def item(content: bytes | None, modality: str = "image", path: Path | None = None) -> Item:
    return Item(modality, "name", "key", "", lambda: content, path)


def test_the_port_that_is_asked_for_or_the_next_free_one(monkeypatch):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port} can't be had: Address already in use; without --port"):
            free_port(port)
        monkeypatch.setattr(server, "PORT", port)
        assert free_port(None) > port
        monkeypatch.setattr(server, "TRIES", 1)
        with pytest.raises(UserError, match=f"no port from {port} to {port} is free"):
            free_port(None)
    assert free_port(port) == port


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_by_an_exception(number, capfd):
    """So that what is temporary goes; by themselves they end the process where it stands."""
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end, server.ended_by_signals():
        signal.raise_signal(number)
    assert end.value.code == 0
    assert capfd.readouterr().err == f"\n{number.name}: the page ends\n"
    assert signal.getsignal(number) == before


def test_pictures_are_jpeg_of_a_size_that_a_page_bears():
    def opened(content: bytes, side: int) -> Image.Image:
        made = jpeg(item(content), side)
        assert made is not None
        return Image.open(io.BytesIO(made))

    large = io.BytesIO()
    Image.new("RGBA", (900, 300), (0, 0, 0, 0)).save(large, "PNG")
    thumbnail = opened(large.getvalue(), 320)
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (320, 107))
    assert thumbnail.getpixel((5, 5)) == (255, 255, 255)  # what is transparent is white
    assert opened(png(1, side=16), 320).size == (160, 160)  # each pixel is to be seen
    assert jpeg(item(b"no picture"), 320) is None
    assert jpeg(item(None), 320) is None


def test_sounds_that_browsers_do_not_play_become_wav(tmp_path):
    assert sound(item(wav(0), "audio")) == (wav(0), "audio/wav")
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros((100, 2)), 8000, format="AIFF")
    content, kind = sound(item(stream.getvalue(), "audio"))
    assert (kind, (content or b"")[:4]) == ("audio/wav", b"RIFF")
    assert soundfile.info(io.BytesIO(content or b"")).channels == 2
    assert sound(item(b"no sound", "audio")) == (None, "")
    assert sound(item(None, "audio")) == (None, "")
    for subtype in ("FLOAT", "PCM_24"):  # which libsndfile doesn't scale to 16 bits by itself
        stream = io.BytesIO()
        soundfile.write(stream, np.full(100, 0.5), 8000, format="AIFF", subtype=subtype)
        content, _ = sound(item(stream.getvalue(), "audio"))
        samples, _ = soundfile.read(io.BytesIO(content or b""), dtype="int16")
        assert set(samples.tolist()) == {16_384}


def test_a_picture_is_shown_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held with its left side up
    stream = io.BytesIO()
    Image.new("RGB", (90, 60)).save(stream, "JPEG", exif=exif)
    made = Image.open(io.BytesIO(jpeg(item(stream.getvalue()), 320) or b""))
    assert made.size == (60, 90)
    assert made.getexif().get(0x0112, 1) == 1


def test_a_video_is_served_as_it_is_or_as_webm_with_a_picture_of_it(tmp_path):
    testclient = pytest.importorskip("starlette.testclient")
    from starlette.applications import Starlette

    content, other = Clip(frames=30).made(), sounding(seconds=1, container="matroska", sounds=("flac",))
    file = tmp_path / "a.mp4"
    file.write_bytes(content)
    found: Any = SimpleNamespace(
        items={"video": [item(content, "video", file), item(other, "video"), item(b"no video", "video")]},
        kind=lambda name: kind_of(name, {}),
    )
    client = testclient.TestClient(Starlette(routes=server.media_routes(found)))
    whole = client.get("/media/video/0")
    assert (whole.headers["content-type"], whole.content) == ("video/mp4", content)
    made = client.get("/media/video/1")
    assert made.headers["content-type"] == "video/webm"
    with av.open(io.BytesIO(made.content), "r") as opened:
        assert [stream.codec_context.name for stream in opened.streams] == ["vp9", "opus"]
        assert sum(1 for _ in opened.decode(video=0)) == 12  # a second of it
    for row in (0, 1):
        small = client.get(f"/media/video/{row}?small")
        assert small.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(small.content)).size == (320, 192)  # four frames of 5 : 3
    for path in ("video/2", "video/2?small"):
        assert client.get(f"/media/{path}").status_code == 404


def test_a_row_is_served_and_nothing_else(tmp_path):
    testclient = pytest.importorskip("starlette.testclient")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    file = tmp_path / "a.wav"
    file.write_bytes(wav(3))
    (tmp_path / "secret.txt").write_text("secret")
    found: Any = SimpleNamespace(
        items={"image": [item(png(0)), item(None)], "audio": [item(None, "audio", file), item(wav(1), "audio")]},
        kind=lambda name: kind_of(name, {}),
    )
    app = Starlette(routes=server.media_routes(found), middleware=[Middleware(server.Policy)])
    client = testclient.TestClient(app)
    answer = client.get("/media/image/0?small")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/media/audio/0").content == wav(3)
    part = client.get("/media/audio/0", headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, wav(3)[4:8])
    assert client.get("/media/audio/1").content == wav(1)
    for path in ("image/1", "image/2", "image/-1", "text/0", "image/..%2fsecret.txt", "audio/secret.txt", "video/0"):
        answer = client.get(f"/media/{path}")
        assert answer.status_code == 404, path
        assert "secret" not in answer.text
