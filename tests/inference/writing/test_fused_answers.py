"""Answers to a question that a fusion has read with the picture: those of the decoder word by word; and who asks."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.errors import UserError
from mmjax.inference.demo import writing as page
from mmjax.inference.model import Model
from mmjax.inference.writing import caption_folder as module
from mmjax.inference.writing.caption_folder import caption_folder
from tests.evaluate.writing.dense import dense_greedy
from tests.inference.writing.writing_models import SIDE, answers, made

ASKED = ["what is red", "the ball"]


@pytest.fixture(scope="module")
def answerer(tokenizer: PieceTokenizer) -> Model:
    return made(answers.as_buildable(), tokenizer)


def dense(model: Model, tokenizer: PieceTokenizer, picture: np.ndarray | None, question: str, most: int) -> str:
    """Towers, fusion and decoder by hand; without a picture the fusion has no token of one."""
    parts, params = model.experiment, model.params
    ids = np.array([[tokenizer.bos, *tokenizer.encode(question), tokenizer.eos]], np.int32)
    given: dict[str, Any] = {
        "text": ids,
        "image": np.zeros((1, SIDE, SIDE, 3), np.uint8) if picture is None else picture[None],
    }
    tokens: dict[str, Any] = {
        name: parts.towers[name].apply({"params": params[f"towers_{name}"]}, x, method="tokens")
        for name, x in given.items()
    }
    x, real = tokens["image"]
    tokens["image"] = x, real & (picture is not None)
    fused, _ = parts.fusions["read"].apply({"params": params["fusions_read"]}, tokens)
    decoder, own = parts.objectives["caption"].decoder, params["objectives_caption"]["decoder"]
    seen = {"text": fused["text"]}
    words, _ = dense_greedy(decoder, own, [tokenizer.bos], most, [tokenizer.eos], seen, tokenizer.vocab_size)
    return tokenizer.decode(words)


def test_an_answer_is_the_dense_decoder_s(answerer: Model, tokenizer: PieceTokenizer, pictures: np.ndarray) -> None:
    pictures = pictures[:2]
    wanted = [[dense(answerer, tokenizer, picture, question, 7) for question in ASKED] for picture in pictures]
    assert len({text for row in wanted for text in row}) > 1
    likely = answerer.log_likelihood(["a cat"], image=[*pictures, pictures[0]], text=[*[ASKED[0]] * 2, ASKED[1]])
    assert len({round(float(one), 4) for one in likely[:, 0]}) == 3  # picture and question matter
    for picture, row in zip(pictures, wanted, strict=True):
        found = answerer.answer(image=picture, text=ASKED, max_new_tokens=7)
        assert found == [text.strip() for text in row]
        assert answerer.answer(image=picture, text=ASKED[1].upper(), max_new_tokens=7) == row[1].strip()
    both = answerer.generate(image=list(pictures), text=ASKED[0], max_new_tokens=7)
    assert both == [row[0] for row in wanted]
    assert "".join(answerer.stream(image=pictures[1], text=ASKED[0], max_new_tokens=7)) == wanted[1][0]
    blind = answerer.answer(text=ASKED[0], max_new_tokens=7)
    assert blind == dense(answerer, tokenizer, None, ASKED[0], 7).strip()


def test_what_cannot_be_asked_is_told(answerer: Model, pictures: np.ndarray) -> None:
    with pytest.raises(UserError, match="needs the question: text="):
        answerer.answer(image=pictures[0])
    with pytest.raises(UserError, match=r"prompt='Q'\) has no \{\}"):
        answerer.answer(image=pictures[0], text="what", prompt="Q")
    asked = answerer.answer(image=pictures[0], text="is red", prompt="what {}")
    assert asked == answerer.answer(image=pictures[0], text="what is red")


def test_a_folder_is_asked_a_question(answerer: Model, pictures: np.ndarray, tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "photos").mkdir()
    for name, picture in zip("abc", pictures, strict=True):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.setattr(module, "load", lambda source, **options: answerer)
    told: dict[str, Any] = {"max_new_tokens": 6, "console": Console(file=io.StringIO())}
    caption_folder("made", tmp_path / "photos", tmp_path / "out.jsonl", prompt=ASKED[0], **told)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    wanted = answerer.generate(image=list(pictures), text=ASKED[0], max_new_tokens=6)
    assert [(line["file"], line["text"]) for line in lines] == list(
        zip(["a.png", "b.png", "c.png"], wanted, strict=True)
    )
    with pytest.raises(UserError, match="answers a question on each picture: give it by --prompt"):
        caption_folder("made", tmp_path / "photos", tmp_path / "none.jsonl", **told)


def test_the_page_asks(answerer: Model, pictures: np.ndarray, tmp_path: Any) -> None:
    (speaker,) = page.speakers(answerer)
    assert (speaker.asked, speaker.pictures, speaker.chats) == (True, "image", False)
    file = tmp_path / "cat.png"
    Image.fromarray(pictures[0]).save(file)
    *_, shown = page.captioned(speaker, tmp_path, {"path": str(file), "meta": {"_type": "gradio.FileData"}}, ASKED[0])
    assert answerer.generate(image=file, text=ASKED[0], max_new_tokens=page.WORDS).strip() in shown
    *_, wrong = page.captioned(speaker, tmp_path, {"path": str(file), "meta": {"_type": "gradio.FileData"}}, "")
    assert "question" in wrong
