"""The options of `mmjax caption`, and their defaults."""

import inspect

import pytest

from mmjax.cli.main import main
from mmjax.inference.writing import caption_folder as module

SIGNATURE = inspect.signature(module.caption_folder)


@pytest.fixture
def called(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "caption_folder", lambda *a, **k: calls.append(SIGNATURE.bind(*a, **k).arguments))
    return calls


def test_every_option_reaches_the_captions(called):
    command = "caption run photos --out out.jsonl --prompt a --max-new-tokens 9 --temperature 0.5 --top-p 0.9 --beams 3"
    command += " --seed 7 --objective cap --step 8 --code a.py --batch-size 5"
    assert main([*map(str, command.split())]) == 0
    wanted = {"source": "run", "folder": "photos", "out": "out.jsonl", "prompt": "a", "max_new_tokens": 9}
    wanted |= {"temperature": 0.5, "top_p": 0.9, "beams": 3, "seed": 7, "objective": "cap", "step": 8}
    assert called == [wanted | {"code": ["a.py"], "batch_size": 5}]


def test_what_is_not_said_is_the_function_s_own_default(called):
    assert main(["caption", "run", "photos", "--out", "out.jsonl"]) == 0
    (found,) = called
    for name, parameter in SIGNATURE.parameters.items():
        if name not in ("source", "folder", "out", "console"):
            assert found[name] == parameter.default


@pytest.mark.parametrize(
    "command", ["caption run --out out.jsonl", "caption run photos", "caption run photos --out o --beams 0"]
)
def test_a_command_that_cannot_be_read_exits_2(command, capsys, called):
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    assert not called
