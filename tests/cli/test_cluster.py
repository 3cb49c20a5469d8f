"""The options of `mmjax cluster`, and their defaults."""

import inspect

import pytest

from mmjax.cli.main import main
from mmjax.inference.clustering import cluster as module

SIGNATURE = inspect.signature(module.cluster)


@pytest.fixture
def called(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "cluster", lambda *a, **k: calls.append(SIGNATURE.bind(*a, **k).arguments))
    return calls


def test_every_option_reaches_the_fit(called):
    command = (
        "cluster own.py:words seed=4 --entry video --split test --examples 9 --out words.safetensors --branching 3"
    )
    command += " --depth 2 --seed 5 --iterations 7 --leave-out --code a.py data.prefetch=1"
    assert main([*map(str, command.split())]) == 0
    wanted = {"source": "own.py:words", "out": "words.safetensors", "branching": 3, "depth": 2, "seed": 5}
    wanted |= {"iterations": 7, "entry": "video", "split": "test", "examples": 9, "leave_out": True, "code": ["a.py"]}
    assert called == [wanted | {"overrides": ["seed=4", "data.prefetch=1"]}]


def test_what_is_not_said_is_the_fit_s_own_default(called):
    assert main(["cluster", "features.npy", "--out", "words.safetensors"]) == 0
    (found,) = called
    assert (found["branching"], found["depth"], found["seed"], found["iterations"]) == (12, 4, 0, 100)
    given = {name: parameter.default for name, parameter in SIGNATURE.parameters.items()}
    assert all(found[name] == given[name] for name in ("branching", "depth", "seed", "iterations"))
    assert not any(found[name] for name in ("entry", "split", "examples", "overrides", "leave_out", "code"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cluster features.npy", "the following arguments are required: --out"),
        ("cluster --out words.safetensors", "the following arguments are required: SOURCE"),
        ("cluster features.npy --out words.safetensors --depth 0", "'0' is no whole number of at least 1"),
        ("cluster features.npy --out words.safetensors --examples many", "'many' is no whole number of at least 1"),
    ],
)
def test_a_command_that_cannot_be_read_exits_2(command, message, capsys, called):
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not called
