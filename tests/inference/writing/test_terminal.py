"""A conversation in the terminal: its lines are turns, and in a pipe stand the answers alone."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mmjax.cli.main import main
from mmjax.errors import UserError
from mmjax.inference.model import Model
from mmjax.inference.writing import terminal

OPTIONS: dict[str, Any] = {"max_new_tokens": 5}


class Typed(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def picture(pictures: np.ndarray, tmp_path: Path) -> str:
    Image.fromarray(pictures[0]).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


def test_lines_are_turns_and_in_a_pipe_stand_the_answers_alone(
    onlooker: Model, picture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "load", lambda source, **options: onlooker)
    chat = onlooker.chat([{"role": "system", "content": "the cat"}])
    wanted = [chat.say("a dog", image=picture, **OPTIONS), chat.say("[b]and[/b] a cat", **OPTIONS)]
    screen = io.StringIO()
    lines = io.StringIO("a dog\n\n[b]and[/b] a cat\n")
    made = terminal.converse(
        "made", shown={"image": [picture]}, system="the cat", lines=lines, console=Console(file=screen), **OPTIONS
    )
    assert screen.getvalue().splitlines() == wanted
    assert [message["role"] for message in made.messages] == [message["role"] for message in chat.messages]
    with pytest.raises(UserError, match=r"there is no file .*nowhere\.png"):
        terminal.converse("made", lines=io.StringIO("/image nowhere.png this?"), console=Console(file=screen))


def test_in_a_terminal_a_turn_that_cannot_be_used_is_said_again(
    onlooker: Model, picture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "load", lambda source, **options: onlooker)
    screen = io.StringIO()
    lines = Typed(f"/undo\n/image\n/image {picture} a dog\n/image {picture} this?\na cat\n/undo\n")
    console = Console(file=screen, force_terminal=True, color_system=None, width=200)
    made = terminal.converse("made", lines=lines, console=console, **OPTIONS)
    shown = screen.getvalue()
    assert "nothing was said yet" in shown
    assert "/image: name a file" in shown
    assert "the conversation has 2 of image, and made reads 1" in shown
    assert [message["role"] for message in made.messages] == ["user", "assistant"]
    assert made.messages[0]["content"][0] == {"type": "image", "image": picture}


def test_the_command_s_options_are_those_of_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(terminal, "converse", lambda source, **options: seen.update(options, source=source))
    assert main(["chat", "run", "--image", "a.png", "--image", "b.png", "--temperature", "0.7", "--seed", "3"]) == 0
    assert seen["source"] == "run"
    assert seen["shown"] == {"image": ["a.png", "b.png"], "audio": []}
    assert (seen["temperature"], seen["seed"], seen["max_new_tokens"]) == (0.7, 3, 256)
