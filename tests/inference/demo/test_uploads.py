"""The page's API under attack: nothing is read but what was uploaded, and nothing fills the disk."""

import io
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmjax.data.kinds import kind_of
from mmjax.errors import UserError
from mmjax.inference.demo import page, uploads
from mmjax.inference.demo.search import Item, Place
from mmjax.inference.demo.server import HOST
from mmjax.inference.demo.uploads import Gate, Uploads, received
from tests.evaluate.report.made import png, wav
from tests.ports import unused_port

REFUSED = "only a file that was uploaded on this page can be searched by"


class Found:
    """An index that remembers what it was asked."""

    def __init__(self):
        self.items = {"image": [Item("image", "mine.png", "mine.png", "", lambda: png(0))]}
        self.vectors, self.bad, self.queries = {}, [], ["text", "image", "audio"]
        silent = SimpleNamespace(data=SimpleNamespace(transforms={}))
        self.place = Place("pictures", "pictures", [])
        self.model = SimpleNamespace(source="a model", experiment=silent, kinds={}, writes=())
        self.asked: list[Any] = []

    def kind(self, modality):
        return kind_of(modality, {})

    def search(self, modality, query, count):
        self.asked.append(query)
        return {"image": [(0, 0.5)]}


class Served:
    """The page, served; its API by plain HTTP."""

    def __init__(self, url: str, found: Found, shown: Any):
        httpx = pytest.importorskip("httpx")
        self.url, self.found, self.folder = url, found, shown.uploads.folder
        self.http = httpx.Client(base_url=url, timeout=20)

    def upload(self, content: bytes, name: str = "a.png", **headers: str) -> Any:
        return self.http.post("/gradio_api/upload", files={"files": (name, io.BytesIO(content))}, headers=headers)

    def ask(self, modality: str, query: Any, route: str = "run") -> str:
        """What the page shows for a raw payload."""
        answer = self.http.post(f"/gradio_api/{route}/{modality}", json={"data": [query]})
        if route == "run":
            return answer.text
        event = answer.json().get("event_id", "")
        return self.http.get(f"/gradio_api/call/{modality}/{event}").text


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    pytest.importorskip("gradio")
    found, port = Found(), unused_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")
        shown = page.build_page(found)  # pyright: ignore[reportArgumentType]
        page._launch(shown, found, port, False)  # pyright: ignore[reportArgumentType]
        yield Served(f"http://{HOST}:{port}", found, shown)
        shown.close(verbose=False)
        shown.uploads.empty()


def as_file(path: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def test_what_was_uploaded_is_searched_by(served: Served):
    for modality, content in (("image", png(1)), ("audio", wav(1))):
        answer = served.upload(content, f"a {modality}.bin")
        assert answer.status_code == 200
        for route in ("run", "call"):
            served.found.asked.clear()
            assert "Nearest to this" in served.ask(modality, as_file(answer.json()[0]), route)
            assert served.found.asked == [content]  # its bytes, and no name that a model could look for
    assert "Nearest to “a cat”" in json.loads(served.ask("text", "a cat"))["data"][0]


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_a_visitor_reads_nothing_that_was_not_uploaded(served: Served, modality, tmp_path):
    (tmp_path / "secret-picture.png").write_bytes(png(0))
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink(tmp_path / "secret-picture.png", served.folder / f"link-{modality}.png")
    os.symlink(tmp_path, served.folder / f"folder-{modality}")
    os.mkfifo(served.folder / f"pipe-{modality}.png")
    inside = served.folder / f"link-{modality}.png"
    attacks = [
        str(tmp_path / "secret-picture.png"),
        str(tmp_path / "secret-picturf.png"),  # of which a hint would name the neighbour
        str(tmp_path / "pipe.png"),
        str(tmp_path),
        str(inside),
        str(served.folder / f"folder-{modality}" / "secret-picture.png"),
        str(served.folder / f"pipe-{modality}.png"),
        f"{served.folder}/../{tmp_path.name}/secret-picture.png",
        str(served.folder),
        "gs://mmjax-nowhere/a.png",
        "https://nowhere.invalid/a.png",
        "/proc/self/environ",
        "/dev/zero",
        "/etc/passwd\0.png",
        "~/.ssh/id_rsa",
        *(7, ["a.png"], {"path": None}, {"path": ["x"]}, {"url": "https://nowhere.invalid/a.png"}, True),
    ]
    served.found.asked.clear()
    began, texts = time.monotonic(), set()
    for attack in attacks:
        for query in (attack, as_file(attack), {"path": attack}):  # gradio looks at what it calls a file alone
            text = served.ask(modality, query)
            assert "secret" not in text, attack
            assert "did you mean" not in text, attack
            texts.add(text if REFUSED not in text else REFUSED)
    assert served.found.asked == []  # nothing of it reached the model
    assert REFUSED in texts
    assert all(text == REFUSED or '"error"' in text or "detail" in text for text in texts), texts
    assert time.monotonic() - began < 15  # no pipe was waited for
    for name in (f"link-{modality}.png", f"folder-{modality}", f"pipe-{modality}.png"):
        (served.folder / name).unlink()


def test_whether_a_file_exists_is_not_told(served: Served, tmp_path):
    (tmp_path / "there.png").write_bytes(png(0))
    there, lacking = (
        re.sub(r'"(duration|average_duration)":[\d.e-]+', "", served.ask("image", as_file(str(tmp_path / name))))
        for name in ("there.png", "lacking.png")
    )
    assert there == lacking


def test_uploads_and_calls_of_other_pages_are_refused(served: Served):
    before = sum(1 for _ in served.folder.rglob("*"))
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://{HOST}:1"},
        {"Origin": f"{served.url}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": served.url, "Sec-Fetch-Site": "same-site"},
    ):
        assert served.upload(png(2), **headers).status_code == 403, headers
        answer = served.http.post("/gradio_api/run/text", json={"data": ["a"]}, headers=headers)
        assert answer.status_code == 403, headers
    assert sum(1 for _ in served.folder.rglob("*")) == before
    assert served.upload(png(3), Origin=served.url).status_code == 200


def test_what_is_too_large_is_cut_off(served: Served, monkeypatch):
    monkeypatch.setattr(uploads, "LARGEST", 10_000)
    monkeypatch.setattr(uploads, "CALL", 2_000)
    before = sum(file.stat().st_size for file in served.folder.rglob("*"))
    assert served.upload(b"x" * 20_000).status_code == 413

    def pieces() -> Iterator[bytes]:  # without a length
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(50):
            yield b"x" * 1_000
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert served.http.post("/gradio_api/upload", content=pieces(), headers=headers).status_code == 413
    assert sum(file.stat().st_size for file in served.folder.rglob("*")) <= before + 12_000
    assert served.http.post("/gradio_api/run/text", json={"data": ["x" * 5_000]}).status_code == 413


def test_other_doors_of_gradio_are_closed(served: Served):
    for path in (
        "file=https://nowhere.invalid/a.png",
        "proxy=https://nowhere.hf.space/a",
        "deep_link?session_hash=a",
        "monitoring/summary",
    ):
        answer = served.http.get(f"/gradio_api/{path}")
        assert (answer.status_code, answer.text) == (404, "there is no such thing"), path
    for path in ("process_recording", "component_server"):
        assert served.http.post(f"/gradio_api/{path}", content=b"").status_code == 404


def test_only_regular_files_below_the_folder_of_a_bounded_size(tmp_path, monkeypatch):
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"abc")
    assert received(folder, str(folder / "a.png")) == b"abc"
    os.symlink(folder, tmp_path / "alias")  # a temporary folder may lie behind a link
    assert received(tmp_path / "alias", {"path": str(tmp_path / "alias" / "a.png")}) == b"abc"
    monkeypatch.setattr(uploads, "LARGEST", 2)
    with pytest.raises(UserError, match="it has 3 bytes, more than the 2 that are read"):
        received(folder, str(folder / "a.png"))
    sibling = tmp_path / "uploads-of-others"
    sibling.mkdir()
    (sibling / "b.png").write_bytes(b"b")
    with pytest.raises(UserError, match=REFUSED) as told:
        received(folder, str(sibling / "b.png"))
    assert "b.png" not in str(told.value)
    os.symlink(sibling, folder / "link")
    monkeypatch.setattr(uploads, "LARGEST", 100)
    for path in ("link/b.png", "../uploads-of-others/b.png"):
        with pytest.raises(UserError, match=REFUSED):
            received(folder, str(folder / path))


def test_the_disk_of_uploads_is_bounded_and_emptied(tmp_path):
    kept = Uploads(tmp_path, room=1_000, kept=600)

    def put(name: str, size: int, age: float) -> Path:
        path = tmp_path / name / "a.png"
        path.parent.mkdir()
        path.write_bytes(b"x" * size)
        when = time.time() - age
        os.utime(path, (when, when))
        return path

    old, older, young = put("old", 400, 60), put("older", 400, 120), put("young", 100, 0)
    assert kept.admit(100)  # 900 are there, and it fits
    assert old.exists()
    assert kept.admit(300)
    assert not older.parent.exists()  # the oldest went, and its folder
    assert old.exists()
    assert not kept.admit(900)  # while the other two are under way, and the youngest is being written
    assert young.exists()
    kept.done(100)
    kept.done(300)
    gone = put("gone", 1, 700)
    kept.sweep()
    assert not gone.exists()
    assert young.exists()
    kept.empty()
    assert not tmp_path.exists()


def test_a_thread_sweeps_as_long_as_the_folder_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "SWEEP", 0.01)
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "a").write_bytes(b"x")
    os.utime(folder / "a", (0, 0))
    kept = Uploads(folder)
    thread = kept.keep_swept()
    deadline = time.monotonic() + 10
    while (folder / "a").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not (folder / "a").exists()
    kept.empty()
    thread.join(10)
    assert not thread.is_alive()


def test_where_there_is_no_room_uploads_wait(tmp_path):
    testclient = pytest.importorskip("starlette.testclient")
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = testclient.TestClient(Gate(app, Uploads(tmp_path, room=10), lambda: "https://a.gradio.live"))
    for size, origin, status in (
        (20, "", 507),
        (1, "", 200),
        (1, "https://a.gradio.live", 200),
        (1, "https://b.x", 403),
    ):
        headers = {"Origin": origin} if origin else {}
        answer = client.post("/gradio_api/upload", content=b"x" * size, headers=headers)
        assert answer.status_code == status, (size, origin)
    assert reached == ["/gradio_api/upload"] * 2


def test_a_pipe_in_the_folder_to_search_is_left_out(tmp_path):
    from mmjax.inference.demo.search import folder

    (tmp_path / "a.png").write_bytes(png(0))
    os.mkfifo(tmp_path / "b.png")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "c.png"))
        assert [item.name for item in folder(tmp_path).items] == ["a.png"]
