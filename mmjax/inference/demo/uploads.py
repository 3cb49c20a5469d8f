"""Limits what a visitor of the page of `mmjax demo` may send and have read: uploaded files, and no others.

A caller of the page's API may name any path. One is taken only where the real file lies below the folder of uploads, is
a regular file, and is of a bounded size; of anything else the same is said, whether it exists or not.
"""

import asyncio
import contextlib
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmjax.errors import UserError

LARGEST = 64 * 2**20  # bytes of an upload
CALL = 2**20  # bytes of any other request: it names files, and holds none
ROOM = 512 * 2**20  # bytes of all uploads together; older ones go first
KEPT = 600.0  # seconds: the page shows what was given while it is searched by
SWEEP = 60.0  # seconds between two looks
UPLOAD = "/gradio_api/upload"
# What gradio has besides and the page doesn't use: it fetches addresses, or writes files elsewhere.
CLOSED = re.compile(
    r"/(gradio_api/)?(proxy=|file=https?:|file/|process_recording|deep_link|component_server|custom_component|stream/"
    r"|run-history|vibe|undo-vibe|monitoring|profiling|dev/|login|logout)",
    re.IGNORECASE,
)
NOT_HERE = "only a file that was uploaded on this page can be searched by"


def received(folder: Path, query: Any) -> bytes:
    """The bytes of an uploaded file.

    folder: of uploads. query: its path, or gradio's description of a file, with `path` in it.

    Raises:
        UserError: it isn't a regular file below the folder, or is too large. The path isn't in the message.
    """
    path = query.get("path") if isinstance(query, Mapping) else query
    if not isinstance(path, str):
        raise UserError(f"the file: {NOT_HERE}")
    try:
        real, home = Path(os.path.realpath(path)), os.path.realpath(folder)
        if not real.is_relative_to(home):
            raise UserError(f"the file: {NOT_HERE}")
        # Not to wait for a writer, where a pipe has taken its place; nor to follow a link, where that has.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError):  # ValueError: a path with a null in it
        raise UserError(f"the file: {NOT_HERE}") from None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"the file: {NOT_HERE}")
        if found.st_size > LARGEST:
            raise UserError(f"the file: it has {found.st_size:,} bytes, more than the {LARGEST:,} that are read")
        return file.read(LARGEST)


class Uploads:
    """The folder's disk: bounded, and emptied of what has been there for a while."""

    def __init__(self, folder: Path, room: int = ROOM, kept: float = KEPT):
        self.folder, self._room, self._kept = folder, room, kept
        self._coming = 0  # bytes of uploads that are under way
        self._lock, self._ended = threading.Lock(), threading.Event()

    def admit(self, size: int) -> bool:
        """Whether there is room for so many bytes, once older files are gone; they are reserved then."""
        with self._lock:
            self._sweep(self._room - size)
            if self._used() + self._coming + size > self._room:
                return False
            self._coming += size
            return True

    def done(self, size: int) -> None:
        """Gives back what `admit` has reserved."""
        with self._lock:
            self._coming -= size

    def sweep(self) -> None:
        """Deletes what is older than `kept` seconds."""
        with self._lock:
            self._sweep(self._room)

    def keep_swept(self) -> threading.Thread:
        """Sweeps now and then, by a thread of its own, until the folder is gone."""

        def go() -> None:
            while self.folder.is_dir() and not self._ended.wait(SWEEP):
                self.sweep()

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        return thread

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was written, its size, its path; the oldest first. Files that go meanwhile are left out."""
        found = []
        for inside, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(OSError):
                    told = os.lstat(os.path.join(inside, name))
                    found.append((told.st_mtime, told.st_size, Path(inside, name)))
        return sorted(found)

    def _used(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _sweep(self, room: int) -> None:
        files, now = self._files(), time.time()
        used = self._coming + sum(size for _, size, _ in files)
        for written, size, path in files:
            # A file that is being written is young: nothing younger than a few seconds makes room for another.
            if now - written > self._kept or (used > room and now - written > min(5.0, self._kept)):
                path.unlink(missing_ok=True)
                used -= size
        for inside in self.folder.iterdir() if self.folder.is_dir() else ():
            with contextlib.suppress(OSError):  # it isn't empty
                inside.rmdir()

    def empty(self) -> None:
        """Deletes the folder, for good."""
        self._ended.set()
        shutil.rmtree(self.folder, ignore_errors=True)


class Gate:
    """ASGI middleware: what comes from pages of others is refused, what is too large is cut off, and what gradio serves
    besides the page is closed."""

    def __init__(self, app: Any, uploads: Uploads, shared: Callable[[], str | None] = lambda: None):
        """shared: the address of the public link, if there is one."""
        self.app, self._uploads, self._shared = app, uploads, shared

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return  # the page has none: an ASGI server closes what isn't accepted
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, reads = str(scope.get("path", "")), scope["method"] in ("GET", "HEAD")
        headers = {name.lower(): value for name, value in scope["headers"]}
        if CLOSED.match(path):
            await _answer(send, 404, "there is no such thing")
        elif not reads and self._foreign(scope, headers):
            await _answer(send, 403, "requests from pages of others are refused")
        elif reads:
            await self.app(scope, receive, send)
        else:
            await self._bounded(scope, receive, send, headers, path.rstrip("/") == UPLOAD)

    def _foreign(self, scope: Any, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a browser says that another page than ours asks. Programs that are no browsers say nothing."""
        if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
            return True
        origin = headers.get(b"origin")
        if origin is None:
            return False
        host = headers.get(b"host", b"").decode("latin-1").lower()
        own = [f"{scope.get('scheme', 'http')}://{host}", f"http://{host}"]
        if link := self._shared():
            parts = urlsplit(link)
            own.append(f"{parts.scheme}://{parts.netloc}".lower())
        return origin.decode("latin-1").lower() not in own

    async def _bounded(
        self, scope: Any, receive: Any, send: Any, headers: Mapping[bytes, bytes], uploads: bool
    ) -> None:
        """The request with a body that ends at its bound; of an upload, with room for it on the disk."""
        most = LARGEST if uploads else CALL
        told = headers.get(b"content-length", b"")
        size = int(told) if told.isdigit() and len(told) < 20 else most
        if size > most:
            await _answer(send, 413, f"a request of more than {most:,} bytes is refused")
            return
        if uploads and not await asyncio.to_thread(self._uploads.admit, size):
            await _answer(send, 507, "there is no room for it now: try again in a minute")
            return
        came, begun = 0, False

        async def counted() -> Any:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > most:
                raise _TooLargeError
            return message

        async def sent(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, sent)
        except _TooLargeError:
            if not begun:
                await _answer(send, 413, f"a request of more than {most:,} bytes is refused")
        finally:
            if uploads:
                self._uploads.done(size)


class _TooLargeError(Exception):
    """A body goes on beyond its bound."""


async def _answer(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
