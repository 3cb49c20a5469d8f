"""The page in a browser: by typing, by a picture, by voice; and what it says where there is nothing to find."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mmjax.cli.main import main
from mmjax.data.transforms.audio_input import SoundInput
from mmjax.errors import UserError
from mmjax.inference.demo import page
from mmjax.inference.demo.search import Item
from mmjax.inference.demo.server import HOST
from mmjax.inference.model import load
from tests.evaluate.report.made import wav
from tests.evaluate.report.test_page import browse
from tests.ports import unused_port
from tests.tiny import write_shapes
from tests.trained import Trained

ATTACK = "{{value}} ${1+1} <img src=x onerror=alert(1)>.png"
READY = "document.querySelector('#query textarea, #query input') && document.querySelector('.hits img') && 'ready'"
FIRST = "document.querySelector('.hits.image .name').title"


def tab(name: str) -> list[Any]:
    """Scripts that open a tab."""
    find = f"[...document.querySelectorAll('button[role=tab]')].find(b => b.innerText === '{name}')"
    return [f"(t => t ? (t.id = 'wanted-{name}') : null)({find})", ["click", f"#wanted-{name}"]]


def heading(part: str) -> str:
    """A script that waits until the line above the results has `part` in it, and gives the line."""
    line = "document.querySelector('#results p')"
    return f"(p => p && p.innerText.includes({json.dumps(part)}) ? p.innerText : null)({line})"


@dataclass(frozen=True)
class Served:
    url: str
    folder: Path
    said: str
    page: Any


@pytest.fixture(scope="module")
def served(trained: Trained, tmp_path_factory) -> Iterator[Served]:
    """The tiny run's page on a folder of all shapes, a bad file, and one of a name that is no name."""
    pytest.importorskip("gradio")
    pytest.importorskip("PySide6.QtWebEngineCore", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("served")
    write_shapes(folder)
    (folder / "broken.png").write_text("no picture")
    (folder / ATTACK).write_bytes((folder / "red-disc-4.png").read_bytes())
    screen, port = io.StringIO(), unused_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("GRADIO_TEMP_DIR", "")
        console = Console(file=screen, width=200)
        made = page.serve(str(trained.workdir), str(folder), port=port, console=console, wait=False)
        yield Served(f"http://{HOST}:{port}/", folder, screen.getvalue(), made)
        made.close(verbose=False)


def test_typed_played_clicked_and_hinted(served: Served, trained: Trained):
    seen = browse(
        served.url,  # pyright: ignore[reportArgumentType]
        READY,
        ["type", "#query textarea, #query input", "a blue bar\n"],
        heading("blue"),
        FIRST,
        "document.querySelector('.hits.image img').naturalWidth || null",
        "document.querySelectorAll('.hits.image li').length + ' ' + document.querySelectorAll('.hits.audio li').length",
        "(a => { a.play(); return a.currentTime > 0 ? a.duration : null; })(document.querySelector('audio'))",
        ["click", ".hits.image li:nth-child(3) .like"],
        heading(".png"),
        FIRST,
        "(i => { i.value = ''; i.dispatchEvent(new Event('input', {bubbles: true})); return 1; })"
        "(document.querySelector('#query textarea, #query input'))",
        ["click", "#search"],
        heading("Type what"),
        "document.querySelector('.head').innerText",
        "document.documentElement.scrollWidth <= innerWidth ? 'fits' : 'too wide'",
        patience=20,
    )
    _, line, first, width, counts, seconds, like, itself, _, hint, head, fits = seen["results"]
    files = sorted(served.folder.glob("*-?.png"))
    cosines = load(trained.workdir).similarity(image=files, text="a blue bar")
    assert line == "Nearest to “a blue bar”"
    assert first == files[int(cosines.argmax())].name
    assert (width, counts) == (160, "12 8")
    assert 0 < seconds < 0.2
    assert like == f"Nearest to {itself}"
    assert hint == page.hint(served.page.found, "text")
    assert "Search 121 pictures and 120 sounds" in head
    assert "1 file could not be read" in head
    assert fits == "fits"
    assert seen["requests"] == []  # of anyone but this server
    assert not [said for said in seen["console"] if "Security Policy" in said or "Uncaught" in said]


def test_by_a_picture_and_by_one_that_is_none(served: Served):
    upload = "#picture button[aria-dropeffect]"
    seen = browse(
        served.url,  # pyright: ignore[reportArgumentType]
        READY,
        *tab("Picture"),
        f"document.querySelector('{upload}') && 'there'",
        ["click", upload, str(served.folder / "green-cross-2.png")],
        heading("this picture"),
        FIRST,
        "document.querySelector('.hits.image .score').innerText",
        ["click", "#picture button[aria-label=Clear], #picture button[aria-label='Remove Image']"],
        heading("Drop a picture"),
        f"document.querySelector('{upload}') && 'there'",
        ["click", upload, str(served.folder / "broken.png")],
        heading("can't be searched by"),
        *tab("Voice"),  # whose own hint takes the error's place
        heading("Say what"),
        "document.querySelectorAll('#results .wrong').length",
        patience=20,
    )
    assert seen["results"][3:6] == ["Nearest to this picture", "green-cross-2.png", "1.000"]
    *_, error, _, hint, wrong = seen["results"]
    assert error.startswith("This can't be searched by: the picture can't be decoded")
    assert (hint, wrong) == (page.hint(served.page.found, "audio"), 0)
    assert seen["requests"] == []


def test_by_voice(served: Served):
    seen = browse(
        served.url,  # pyright: ignore[reportArgumentType]
        READY,
        *tab("Voice"),
        "document.querySelector('#sound button.record') && 'there'",
        ["click", "#sound button.record"],
        "(window.began ??= Date.now()) < Date.now() - 1500 ? 'spoken' : null",
        ["click", "#sound button.stop-button"],
        heading("this sound"),
        "document.querySelectorAll('.hits.audio .score').length",
        patience=20,
    )
    line, count = seen["results"][-2:]
    assert re.fullmatch(r"Nearest to this sound \(the first 0\.1 of [1-9]\.\d seconds are heard\)", line)
    assert count == 8
    assert seen["requests"] == []


def test_on_a_phone_names_are_text(served: Served):
    seen = browse(
        served.url,  # pyright: ignore[reportArgumentType]
        READY,
        FIRST,
        "document.querySelectorAll('.hits .name img').length",
        "document.documentElement.scrollWidth <= innerWidth ? 'fits' : 'too wide'",
        width=390,
        dark=True,
        patience=20,
    )
    ready, first, injected, fits = seen["results"]
    assert (ready, injected, fits) == ("ready", 0, "fits")
    assert first in (ATTACK, "blue-bar-0.png")
    assert ATTACK in [item.name for item in served.page.found.items["image"]]


def test_only_this_machine_is_answered_and_says_what_it_serves(served: Served):
    httpx = pytest.importorskip("httpx")
    assert httpx.get(served.url).status_code == 200
    assert httpx.get(served.url, headers={"Host": "elsewhere.example"}).status_code == 400
    assert httpx.get(f"{served.url}gradio_api/file={served.folder / 'red-bar-0.png'}").status_code == 403
    assert "121 pictures and 120 sounds; 1 file could not be read in " in served.said
    assert "left out: broken.png: the picture can't be decoded" in served.said
    assert f"the page is at {served.url[:-1]}" in served.said
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_a_name_that_looks_like_a_template_is_shown_as_it_is(served: Served):
    html = page._safe(page.first_shown(served.page.found))
    assert "{" not in html
    assert "$" not in html
    row = [item.name for item in served.page.found.items["image"]].index(ATTACK)
    seen = browse(
        served.url,  # pyright: ignore[reportArgumentType]
        READY,
        f"(b => {{ b.dataset.row = {row}; return 'set'; }})(document.querySelector('.hits.image .like'))",
        ["click", ".hits.image .like"],
        heading("1+1"),
        f"[...document.querySelectorAll('.name')].map(n => n.title).find(t => t === {json.dumps(ATTACK)}) ?? null",
        "document.querySelectorAll('img[onerror]').length",
        patience=20,
    )
    assert seen["results"][2:] == [f"Nearest to {page.short(ATTACK)}", ATTACK, 0]


def test_rows_that_are_not_there(served: Served):
    for row in (-1, 10_000, "0", None, 1.0):
        assert "there any more" in page.like(served.page.found, "image", row)
    assert "there any more" in page.like(served.page.found, "video", 0)


def test_ctrl_c_ends_it_at_once_and_a_start_says_what_it_does(trained: Trained, monkeypatch, tmp_path, capfd):
    """While a browser holds a connection open, as it does as long as the page is shown."""
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("gradio")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    port = unused_port()
    pressed_at, open_ = [], contextlib.ExitStack()

    def pressed(seconds):
        address = f"http://{HOST}:{port}/gradio_api/heartbeat/of-a-browser"
        answer = open_.enter_context(httpx.stream("GET", address, timeout=20))
        assert next(answer.iter_lines()) is not None  # it answers until then
        pressed_at.append(time.monotonic())
        raise KeyboardInterrupt

    def terminated(seconds):
        assert list(tmp_path.glob("mmjax-demo-*"))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(page, "time", SimpleNamespace(sleep=pressed))
    with open_:
        assert main(["demo", str(trained.workdir), "--port", str(port)]) == 0
        assert time.monotonic() - pressed_at[0] < 3
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), 5)
    said = capfd.readouterr().out
    assert said.endswith("\nthe page ends\n")
    assert list(tmp_path.glob("mmjax-demo-*")) == []
    capfd.readouterr()
    monkeypatch.setattr(page, "time", SimpleNamespace(sleep=terminated))
    with pytest.raises(SystemExit) as end:
        main(["demo", str(trained.workdir), "--port", str(port)])
    assert end.value.code == 0
    assert list(tmp_path.glob("mmjax-demo-*")) == []
    again = capfd.readouterr()
    assert again.err.endswith("SIGTERM: the page ends\n")
    assert [line.partition(":")[0] for line in again.out.splitlines()] == [
        "starting",
        f"reading {trained.workdir}",
        "looking through its own test data",
        f"{trained.workdir} names its data",
        "24 pictures embedded before",  # by the start before this one
        "22 sounds embedded before",
        "preparing the first search",
        "24 pictures and 22 sounds in shapes (test split)",
        "of a sound the model hears the first 0.1 seconds",
        "the page is at http",
    ]


def test_how_much_of_a_query_is_taken_in_is_said(served: Served):
    def line(modality: str, query: Any) -> str:
        return unescape(re.sub("<[^>]*>", "", page.answered(served.page.found, modality, query).partition("</p>")[0]))

    assert line("audio", wav(0, 0.05)) == "Nearest to this sound"
    assert line("audio", wav(0, 0.5)) == "Nearest to this sound (the first 0.1 of 0.5 seconds are heard)"
    assert line("text", "a red disc") == "Nearest to “a red disc”"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = line("text", "a red disc " * 20)
    assert re.search(r"\(the first [2-8] of 60 words are read\)$", said)
    assert line("audio", None) == "Say what you look for, or give a sound file. Its first 0.1 seconds are heard."
    broken = line("audio", wav(0)[:30])
    assert broken.startswith("This can't be searched by: the sound can't be decoded: it is WAV, but broken")
    assert " at 0x" not in broken


def test_a_sound_that_is_found_says_how_much_of_it_was_heard(tmp_path):
    (tmp_path / "long.wav").write_bytes(wav(0, 2.0))
    for item in (
        Item("audio", "long", "", "", lambda: None, tmp_path / "long.wav"),
        Item("audio", "long", "", "", lambda: wav(0, 2.0)),
    ):
        assert "the first 0.5 of 2.0 seconds are heard" in page._hit(item, SoundInput, 0, None, 0.5)
        assert "heard" not in page._hit(item, SoundInput, 0, None, 3.0)
    gone = Item("audio", "gone", "", "", lambda: None, tmp_path / "gone.wav")
    assert "heard" not in page._hit(gone, SoundInput, 0, None, 0.5)


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(UserError, match=r'the page needs gradio \(.*\): pip install "mmjax\[page\]"'):
        page.serve("nothing")


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_what_is_no_port(port, capsys):
    with pytest.raises(SystemExit):
        main(["demo", "run", f"--port={port}"])
    assert f"'{port}' is no port: 1 to 65535" in capsys.readouterr().err
