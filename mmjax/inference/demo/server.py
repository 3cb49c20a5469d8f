"""Serves the page of `mmjax demo`: a port of this machine, a policy for the browser, pictures, sounds and videos.

They are asked for by their rows: no path of a file is ever taken from the browser.
"""

import io
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from types import FrameType
from typing import Any

import soundfile
from PIL import Image

from mmjax.data.bad_example import BadExample
from mmjax.data.transforms.audio_input import SoundInput
from mmjax.data.transforms.image_input import PictureInput
from mmjax.data.transforms.input import Input
from mmjax.errors import UserError
from mmjax.inference.demo.search import Index, Item

HOST = "127.0.0.1"
PORT = 7860  # gradio's default
TRIES = 100  # number of ports tried from it on
PATIENCE, ROUNDS = 2.0, 10  # seconds for the server to end, and times that connections are cut meanwhile
SMALL, LARGE = 320, 2048  # pixels a side of a picture in a list, and by itself
THUMBNAILS = 2048  # kept in memory, about 15 kB each
# Sounds sent unchanged: other kinds become WAV, which every browser plays.
PLAYED = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg", ".oga": "audio/ogg"}
# Videos sent unchanged; others become WebM, their first minute.
WATCHED = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
MINUTE, CLIP = 60.0, 240  # seconds, and pixels of the shorter side
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; frame-ancestors 'self'"
)


def free_port(wanted: int | None) -> int:
    """Returns `wanted`, or the first free port from `PORT` on.

    Raises:
        UserError: the port is in use, or all of them are.
    """
    for port in range(PORT, PORT + TRIES) if wanted is None else (wanted,):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed is free
            try:
                probe.bind((HOST, port))
                return port
            except OSError as error:
                reason = error.strerror or str(error)
    if wanted is None:
        raise UserError(f"no port from {PORT} to {PORT + TRIES - 1} is free: --port N names another")
    raise UserError(f"--port {wanted} can't be had: {reason}; without --port the next free one is taken")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While entered, SIGTERM and SIGHUP (its terminal was closed) end the process by an exception, with exit code 0, so
    that temporary files are removed. In a thread other than the main one signals are left as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # the terminal may be gone
            os.write(2, f"\n{signal.Signals(number).name}: the page ends\n".encode())
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ended(page: Any) -> None:
    """Closes gradio's Blocks and deletes uploads, at once: connections that a browser holds open are cut, not waited
    for.
    """
    try:
        closing = threading.Thread(target=partial(page.close, verbose=False), daemon=True)
        closing.start()
        for _ in range(ROUNDS):
            closing.join(PATIENCE / ROUNDS)
            if not closing.is_alive():
                break
            _cut(page)
    finally:
        page.uploads.empty()


def _cut(page: Any) -> None:
    """Ends the connections of a page's server (uvicorn's) while it closes, from another thread than its own."""
    server: Any = getattr(page, "server", None)
    for listening in getattr(server, "servers", ()):
        for connection in list(server.server_state.connections):
            with suppress(RuntimeError):  # the loop may have ended meanwhile
                listening.get_loop().call_soon_threadsafe(connection.transport.abort)


class Policy:
    """ASGI middleware that forbids the browser to fetch from, or send to, any other server."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
                added["Referrer-Policy"] = "no-referrer"
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in added.items())]
            await send(message)

        await self.app(scope, receive, with_policy)


def media_routes(found: Index) -> list[Any]:
    """The routes `/media/<modality>/<row>`: a picture as JPEG, small with `?small`; a sound in a form that browsers
    play.
    """
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import FileResponse, Response
    from starlette.routing import Route

    small = lru_cache(THUMBNAILS)(lambda name, row: jpeg(found.items[name][row], SMALL, found.kind(name)))

    async def media(request: Request) -> Response:
        modality, row = request.path_params["modality"], request.path_params["row"]
        items = found.items.get(modality, [])
        if row >= len(items):
            return Response("there is no such thing", 404)
        item, kind = items[row], found.kind(modality)
        whole = "small" not in request.query_params
        asked = PLAYED if kind.plays else WATCHED if kind.moves and whole else {}
        if item.path is not None and item.path.suffix.lower() in asked and item.path.is_file():
            return FileResponse(item.path, media_type=asked[item.path.suffix.lower()])  # which answers for parts
        if not (kind.plays or kind.draws):
            return Response("it can't be shown", 404)
        if kind.plays:
            content, form = await run_in_threadpool(sound, item, kind)
        elif kind.moves and whole:
            content, form = await run_in_threadpool(film, item, kind), "video/webm"
        elif not whole:
            content, form = await run_in_threadpool(small, modality, row), "image/jpeg"
        else:
            content, form = await run_in_threadpool(jpeg, item, LARGE, kind), "image/jpeg"
        if content is None:
            return Response("it can't be read any more", 404)
        return Response(content, media_type=form, headers={"Cache-Control": "no-cache"})

    return [Route("/media/{modality}/{row:int}", media)]


def jpeg(item: Item, side: int, kind: type[Input] = PictureInput) -> bytes | None:
    """The picture with at most `side` pixels a side; None where it can't be read (any more)."""
    content = item.read()
    try:
        picture = Image.fromarray(kind.drawn(content)) if content is not None else None
    except BadExample:
        return None
    if picture is None:
        return None
    picture.thumbnail((side, side))
    if max(picture.size) <= side // 4:  # tiny: each pixel stays visible
        scale = side // 2 // max(picture.size)
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def film(item: Item, kind: type[Input]) -> bytes | None:
    """The video in a form that browsers play; None where it can't be read (any more)."""
    content = item.read()
    try:
        return None if content is None else kind.filmed(content, MINUTE, CLIP)
    except BadExample:
        return None


def sound(item: Item, kind: type[Input] = SoundInput) -> tuple[bytes | None, str]:
    """The sound in a form that browsers play, and its type."""
    content = item.read()
    if content is None:
        return None, ""
    for start, form in ((b"RIFF", "audio/wav"), (b"fLaC", "audio/flac"), (b"OggS", "audio/ogg")):
        if isinstance(content, bytes) and content.startswith(start):
            return content, form
    try:
        samples, rate = kind.played(content)
    except BadExample:
        return None, ""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype="PCM_16")
    return stream.getvalue(), "audio/wav"
