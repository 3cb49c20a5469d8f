"""A hub and a storage on this machine: what of their protocols a download takes, from folders of files."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit


class Hub:
    """repositories: by name, from branch or tag to commit, and from commit to the folder of its files.
    objects: by bucket/name, the generations in their order, a file each.
    asked: every request's method and path, in order.
    """

    def __init__(self):
        self.repositories: dict[str, tuple[dict[str, str], dict[str, Path]]] = {}
        self.objects: dict[str, dict[str, Path]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.corrupt = False

    def add(self, repository: str, commit: str, folder: Path, *branches: str) -> None:
        refs, commits = self.repositories.setdefault(repository, ({}, {}))
        refs.update(dict.fromkeys(branches, commit))
        commits[commit] = folder

    def fetched(self) -> list[str]:
        """The names of the files that were downloaded."""
        return [line.rpartition("/")[2] for line in self.asked if line.startswith("GET") and "/resolve/" in line]


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            address = urlsplit(self.path)
            path, query = unquote(address.path).strip("/"), parse_qs(address.query)
            hub.asked.append(f"{self.command} {path}")
            parts = path.split("/")
            if path in hub.objects:
                return self.stored(hub.objects[path], query.get("generation", [None])[0], body)
            api = parts[:2] == ["api", "models"]
            name = "/".join(parts[2:4] if api else parts[:2])
            if name in hub.gated:
                return self.send(403, b"", body, {"X-Error-Code": "GatedRepo"})
            if name not in hub.repositories:
                return self.send(404, b"", body, {"X-Error-Code": "RepoNotFound"})
            refs, commits = hub.repositories[name]
            rest = parts[4:] if api else parts[2:]
            revision = rest[1] if len(rest) > 1 else "main"
            commit = refs.get(revision, revision)
            if commit not in commits:
                return self.send(404, b"", body, {"X-Error-Code": "RevisionNotFound"})
            folder = commits[commit]
            if api:
                names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
                info = {"id": name, "sha": commit, "siblings": [{"rfilename": name} for name in names]}
                return self.send(200, json.dumps(info).encode(), body, {"Content-Type": "application/json"})
            file = folder / "/".join(rest[2:])
            if not file.is_file():
                return self.send(404, b"", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            content = file.read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            return self.send(200, content, body, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

        def stored(self, generations: dict[str, Path], generation: str | None, body: bool) -> None:
            generation = generation or list(generations)[-1]
            if generation not in generations:
                return self.send(404, b"", body, {})
            content = generations[generation].read_bytes()
            md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
            headers = {"x-goog-generation": generation, "x-goog-hash": f"crc32c=AAAAAA==,md5={md5}"}
            return self.send(200, content[:-1] if hub.corrupt else content, body, headers)

        def send(self, code: int, content: bytes, body: bool, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
