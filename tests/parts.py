"""Small parts of experiments, for the tests of what reads, changes and writes experiments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import fiddle as fdl
import flax.linen as nn
import optax
import pytest

from mmjax.experiment import record as records
from mmjax.experiment.load import experiment


@dataclass(frozen=True)
class Share:
    """A frozen field-holder, like the transforms."""

    share: float = 0.5
    seeds: tuple[int, ...] = (1, 2)


class Encoder(nn.Module):
    """A tower with a submodule, a choice, optional fields and a default that JSON can't hold."""

    width: int = 16
    rate: float = 0.0
    loss: Literal["softmax", "sigmoid"] = "softmax"
    pool: str | None = None
    limit: float | None = None
    causal: bool = False
    share: Share = Share(0.25)
    head: nn.Module | None = None
    kernel_init: Callable[..., Any] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x)


@dataclass(frozen=True)
class Study:
    """The root, like Experiment."""

    towers: Mapping[str, nn.Module]
    chain: tuple[Share, ...] = ()
    steps: int = 10
    weights: Mapping[str, float | Callable[[int], Any]] = field(default_factory=dict)
    share: Share = Share()


@experiment
def encoder(width: int = 32) -> Encoder:
    return Encoder(width=width)


@experiment
def study(width: int = 64, tied: bool = False) -> Study:
    towers = {name: encoder(width) for name in ("image", "text")}
    if tied:
        towers["text"] = towers["image"]
    ramp = optax.linear_schedule(0.0, 1.0, transition_steps=100)
    return Study(towers=towers, chain=(Share(0.1), Share(seeds=(3,))), weights={"masked": ramp, "paired": 1.0})


def config(**arguments) -> fdl.Config:
    """The graph of `study`."""
    return study.as_buildable(**arguments)  # pyright: ignore[reportFunctionMemberAccess]


def list_too(monkeypatch: pytest.MonkeyPatch, module: str, *names: str) -> None:
    """Puts names of a module on the list, as `module:name`."""
    known = {**records.known(), **{f"{module}:{name}": (module, name) for name in names}}
    monkeypatch.setattr(records, "known", lambda: known)


@pytest.fixture
def listed(monkeypatch):
    """Puts the parts of this file on the list of what experiment.json may name."""
    list_too(monkeypatch, "tests.parts", "Share", "Encoder", "Study")
