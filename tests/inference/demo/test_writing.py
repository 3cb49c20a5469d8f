"""The page of a model that writes, in a browser: one talks with it, shows it pictures, and has them captioned."""

import numpy as np
import pytest
from PIL import Image

from mmjax.data import SentencePiece
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.inference.demo import page, writing
from mmjax.inference.demo.search import Index, Place
from mmjax.inference.demo.server import HOST
from tests.evaluate.report.test_page import browse
from tests.inference.demo.test_page import tab
from tests.inference.writing.writing_models import SIDE, TEXTS, VOCAB, captions, talking
from tests.ports import unused_port

TURNS = "[...document.querySelectorAll('.talk li')].map(one => one.innerText.trim())"
DROP = "button[aria-dropeffect]"


def said(count: int) -> str:
    """A script that waits for so many turns of which the last is whole, and gives them."""
    return f"(l => l.length === {count} && !l.join().includes('{writing.WAITING}') ? l.join('|') : null)({TURNS})"


def test_one_talks_with_it_and_has_a_picture_captioned(tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    pytest.importorskip("PySide6.QtWebEngineCore", exc_type=ImportError)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(writing, "WORDS", 5)
    config = captions.as_buildable()
    config.objectives["caption"].alone = True
    model = talking(config, PieceTokenizer(SentencePiece(VOCAB).train(TEXTS * 20)))
    file = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file)
    asked, chat = "<b>a dog</b> {{value}}", model.chat()
    answers = [chat.say(asked, image=file, max_new_tokens=5), chat.say("a cat", max_new_tokens=5)]
    caption = model.chat().say(writing.DESCRIBE, image=file, max_new_tokens=5)

    kept = page._kept()
    made = page.build_page(Index(model, Place("", "", []), {}, {}, []), kept)
    port = unused_port()
    page._launch(made, made.found, port, False)
    try:
        seen = browse(
            f"http://{HOST}:{port}/",  # pyright: ignore[reportArgumentType]
            f"document.querySelector('#captioned {DROP}') && 'there'",
            *tab("Talk"),
            f"document.querySelector('#with-image {DROP}') && 'there'",
            ["click", f"#with-image {DROP}", str(file)],
            "document.querySelector('#with-image img') && 'shown'",
            ["type", "#said textarea, #said input", f"{asked}\n"],
            said(2),
            "document.querySelectorAll('.talk img').length",
            ["type", "#said textarea, #said input", "a cat\n"],
            said(4),
            ["click", "#new"],
            "document.querySelectorAll('.talk li').length === 0 ? 'empty' : null",
            ["type", "#said textarea, #said input", " \n"],
            "(p => p ? p.innerText : null)(document.querySelector('#talk .wrong'))",
            *tab("Caption"),
            f"document.querySelector('#captioned {DROP}')?.checkVisibility() ? 'there' : null",
            ["click", f"#captioned {DROP}", str(file)],
            f"(p => p && !p.innerText.includes('{writing.WAITING}') ? p.innerText.trim() : null)"
            "(document.querySelector('#caption p'))",
            patience=20,
        )
    finally:
        made.close(verbose=False)
        kept.cleanup()
    first, count, both, empty, wrong, *_, text = seen["results"][4:]
    assert first == f"{asked}|{answers[0]}"
    assert (count, empty) == (1, "empty")
    assert both == f"{first}|a cat|{answers[1]}"
    assert wrong == "an empty turn: say something, or show a picture"
    assert text == caption
    assert seen["requests"] == []  # of anyone but this server
