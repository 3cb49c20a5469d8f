"""METEOR and SPICE by stand-ins of pycocoevalcap, and the reason where one is missing."""

import sys
from types import ModuleType

import pytest

from mmjax.errors import UserError
from mmjax.evaluate.metrics.written import java_metrics as module
from mmjax.evaluate.metrics.written.java_metrics import java_metrics

TEXTS, REFERENCES = [["a", "dog"], []], [[["a", "dog", "runs"], ["dogs"]], [["a", "cat"]]]


class Stub:
    """A scorer that notes what it is asked."""

    asked: tuple = ()

    def compute_score(self, gts, res):
        Stub.asked = gts, res
        return 0.5, [0.75, 0.25]


class Parts(Stub):
    def compute_score(self, gts, res):
        return 0.3, [{"All": {"f": 0.4}, "Color": {"f": 1.0}}, {"All": {"f": 0.2}}]


class NoNetwork(Stub):
    def __init__(self):
        raise OSError("no\n network")


@pytest.fixture
def installed(monkeypatch):
    """Puts classes in the place of pycocoevalcap's, and a `java` on the path, which nobody runs."""
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/bin/{name}")

    def install(**classes):
        for name, kind in classes.items():
            made = ModuleType(name)
            setattr(made, {"meteor": "Meteor", "spice": "Spice"}[name], kind)
            for place in ("pycocoevalcap", f"pycocoevalcap.{name}"):
                monkeypatch.setitem(sys.modules, place, ModuleType(place))
            monkeypatch.setitem(sys.modules, f"pycocoevalcap.{name}.{name}", made)

    return install


def test_both_are_asked_and_told(installed):
    installed(meteor=Stub, spice=Parts)
    scores = java_metrics(TEXTS, REFERENCES)
    assert scores.corpus == {"meteor": 0.5, "spice": 0.3}
    assert {name: each.tolist() for name, each in scores.examples.items()} == {
        "meteor": [0.75, 0.25],
        "spice": [0.4, 0.2],
    }
    assert scores.left_out == ""
    assert Stub.asked == ({0: ["a dog runs", "dogs"], 1: ["a cat"]}, {0: ["a dog"], 1: [""]})


def test_one_that_fails_is_left_out_with_its_reason(installed):
    installed(meteor=Stub, spice=NoNetwork)
    scores = java_metrics(TEXTS, REFERENCES)
    assert set(scores.corpus) == set(scores.examples) == {"meteor"}
    assert scores.left_out == "spice left out: OSError: no network"


def test_without_the_package(installed, monkeypatch):
    installed()
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    scores = java_metrics(TEXTS, REFERENCES)
    assert scores.corpus == scores.examples == {}
    assert scores.left_out.count("pip install pycocoevalcap") == 2


def test_without_java(monkeypatch):
    monkeypatch.setenv("PATH", "")
    scores = java_metrics(TEXTS, REFERENCES)
    assert scores == ({}, {}, "meteor and spice left out: there is no program `java` here")
    with pytest.raises(UserError, match="text 0"):
        java_metrics(["a dog"], REFERENCES[:1])
