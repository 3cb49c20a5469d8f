"""Captions of a folder's pictures: those of the model, a line each; what was stopped goes on to the same lines."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mmjax.errors import UserError
from mmjax.inference.writing import caption_folder as module
from mmjax.inference.writing.caption_folder import caption_folder
from tests.inference.writing.writing_models import SIDE

OPTIONS = {"max_new_tokens": 6, "temperature": 1.0, "seed": 4}


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(2)
    for name in ("a.png", "b.jpg", "within/c.png", "within/d.PNG", ".hidden.png", "z/e.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path)
    (tmp_path / "photos" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "photos" / "notes.txt").write_text("no picture either")
    return tmp_path / "photos"


@pytest.fixture
def loaded(captioner, monkeypatch):
    monkeypatch.setattr(module, "load", lambda source, **options: captioner)
    return captioner


def run(folder, out, **options):
    screen = io.StringIO()
    caption_folder("made", folder, out, console=Console(file=screen, width=100), **OPTIONS | options)
    return screen.getvalue()


def test_each_picture_gets_its_line_and_bad_files_are_named_and_counted(folder, loaded, tmp_path):
    said = run(folder, tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    names = ["a.png", "b.jpg", "bad.png", "within/c.png", "within/d.PNG", "z/e.png"]  # as they are numbered
    assert [line["file"] for line in lines] == [name for name in names if name != "bad.png"]
    assert "bad.png" in said
    assert "5 captions of 6 pictures" in said
    assert "1 could not be read" in said
    greedy = run(folder, tmp_path / "greedy.jsonl", temperature=0.0)
    assert "5 captions" in greedy
    for line in (tmp_path / "greedy.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        assert found["text"] == loaded.caption(folder / found["file"], max_new_tokens=6)


def test_what_was_stopped_goes_on_to_the_same_lines(folder, loaded, tmp_path):
    run(folder, tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_text(encoding="utf-8")
    for size in (0, 20, len(whole.splitlines(keepends=True)[0]), len(whole) // 2, len(whole) - 1, len(whole)):
        (tmp_path / "cut.jsonl").write_bytes(whole.encode()[:size])
        run(folder, tmp_path / "cut.jsonl")
        assert (tmp_path / "cut.jsonl").read_text(encoding="utf-8") == whole


def test_what_cannot_be_captioned_is_told(folder, loaded, speaker, tmp_path, monkeypatch):
    (tmp_path / "other.jsonl").write_text('{"step": 1}\n{"file": "a.png", "text": ""}\n')
    with pytest.raises(UserError, match=r"other\.jsonl, line 1, is no caption"):
        run(folder, tmp_path / "other.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no pictures in it"):
        run(tmp_path / "empty", tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="is no folder"):
        run(tmp_path / "nowhere", tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="temperature=-1"):
        run(folder, tmp_path / "out.jsonl", temperature=-1)
    monkeypatch.setattr(module, "load", lambda source, **options: speaker)
    with pytest.raises(UserError, match="'caption' reads text alone, and captions are of one kind of pictures"):
        run(folder, tmp_path / "out.jsonl")
