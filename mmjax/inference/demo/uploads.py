"""Limits what a visitor of the page of `mmjax demo` may send and have read: uploaded files, and no others.

A caller of the page's API may name any path. One is taken only where the real file lies below the folder of uploads, is
a regular file, and is of a bounded size; any other path gets the same message, whether it exists or not.
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
CALL = 2**20  # bytes of any other request: it only names files
ROOM = 512 * 2**20  # bytes of all uploads together; older ones are deleted first
KEPT = 600.0  # seconds that an upload is kept: the page shows it during the search
SWEEP = 60.0  # seconds between two sweeps
UPLOAD = "/gradio_api/upload"
# Routes of gradio that the page doesn't use: they fetch addresses, or write files elsewhere.
CLOSED = re.compile(
    r"/(gradio_api/)?(proxy=|file=https?:|file/|process_recording|deep_link|component_server|custom_component|stream/"
    r"|run-history|vibe|undo-vibe|monitoring|profiling|dev/|login|logout)",
    re.IGNORECASE,
)
NOT_HERE = "only a file that was uploaded on this page can be searched by"


def received(folder: Path, query: Any) -> bytes:
    """Reads the bytes of an uploaded file.

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
        # Neither waits for a writer, if a pipe has replaced the file, nor follows a link.
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
    """Bounds the folder's size, and deletes files after a while."""

    def __init__(self, folder: Path, room: int = ROOM, kept: float = KEPT):
        self.folder, self._room, self._kept = folder, room, kept
        self._coming = 0  # bytes of uploads in progress
        self._lock, self._ended = threading.Lock(), threading.Event()

    def admit(self, size: int) -> bool:
        """Returns whether so many bytes fit, after deleting older files; reserves them if they do."""
        with self._lock:
            self._sweep(self._room - size)
            if self._used() + self._coming + size > self._room:
                return False
            self._coming += size
            return True

    def done(self, size: int) -> None:
        """Releases the bytes that `admit` reserved."""
        with self._lock:
            self._coming -= size

    def sweep(self) -> None:
        """Deletes files older than `kept` seconds."""
        with self._lock:
            self._sweep(self._room)

    def keep_swept(self) -> threading.Thread:
        """Sweeps periodically, in a thread of its own, until the folder is deleted."""

        def go() -> None:
            while self.folder.is_dir() and not self._ended.wait(SWEEP):
                self.sweep()

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        return thread

    def _files(self) -> list[tuple[float, int, Path]]:
        """The time, size and path of each file; the oldest first. Files that are deleted meanwhile are left out."""
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
            # A file that is being written is young: none younger than a few seconds is deleted for another.
            if now - written > self._kept or (used > room and now - written > min(5.0, self._kept)):
                path.unlink(missing_ok=True)
                used -= size
        for inside in self.folder.iterdir() if self.folder.is_dir() else ():
            with contextlib.suppress(OSError):  # the folder isn't empty
                inside.rmdir()

    def empty(self) -> None:
        """Deletes the folder and stops the sweeps."""
        self._ended.set()
        shutil.rmtree(self.folder, ignore_errors=True)


class Gate:
    """ASGI middleware: refuses requests from other pages, cuts off bodies that are too large, and closes gradio's other
    routes.
    """

    def __init__(self, app: Any, uploads: Uploads, shared: Callable[[], str | None] = lambda: None):
        """shared: the address of the public link, if there is one."""
        self.app, self._uploads, self._shared = app, uploads, shared

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return  # the page has no websockets: an ASGI server closes one that isn't accepted
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
        """True if a browser reports that another page sends the request. Programs that are no browsers
        report nothing.
        """
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
    """A request's body is larger than its bound."""


async def _answer(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
