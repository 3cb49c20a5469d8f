"""Compiled programs that runs of a test process share: equal experiments on equal meshes have one state and one step.

Experiments are equal that look so when printed: not for tests of code of one's own, which may change behind its name.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

MADE: dict[str, Any] = {}


@contextlib.contextmanager
def shared_programs() -> Iterator[None]:
    """Runs within it trace and compile what no run before them did: jitted functions keep what they compiled."""
    from mmjax.train.setup import Setup

    if isinstance(Setup.__dict__["creation"], property):  # within another
        yield
        return
    creation, train_step = Setup.__dict__["creation"].func, Setup.train_step

    def once(kind: str, setup: Setup, make: Callable[[], Any]) -> Any:
        e, rows = setup.experiment, {name: (x.shape, x.dtype) for name, x in setup.spec.items()}
        devices = [device.id for device in setup.mesh.devices.flat]
        key = repr((kind, setup.pretrainer, e.optimizer, e.seed, e.steps, e.ema, e.spike, rows, setup.mesh, devices))
        if key not in MADE:
            MADE[key] = make()
        return MADE[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Setup, "creation", property(lambda setup: once("state", setup, lambda: creation(setup))))
        patch.setattr(Setup, "train_step", lambda setup, state: once("step", setup, lambda: train_step(setup, state)))
        yield


@pytest.fixture(scope="module")
def programs() -> Iterator[None]:
    """`shared_programs`, for a file whose runs are many and alike."""
    with shared_programs():
        yield
