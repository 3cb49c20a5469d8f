"""The first state and step, compiled in threads: once, and not before what is wrong with a run is told."""

import threading
import time
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.runtime import hosts
from mmjax.train import ahead
from mmjax.train.ahead import Ahead
from mmjax.train.loop import train
from mmjax.train.setup import Setup
from tests.trained import tiny_config


class Toy:
    """As a `Setup`: its state is a vector, to which its step adds the sum of a batch. It keeps in which threads it was
    traced."""

    def __init__(self, error: Exception | None = None):
        self.error, self.traced = error, {"state": [], "step": []}
        self.mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
        self.spec = {"rows": np.zeros((4, 2), np.float32)}
        self.experiment = SimpleNamespace(seed=3)

    def _seen(self, what: str) -> None:
        self.traced[what].append(threading.current_thread() is threading.main_thread())
        if self.error is not None:
            raise self.error

    @cached_property
    def creation(self) -> tuple[Any, jax.ShapeDtypeStruct]:
        def create(seed):
            self._seen("state")
            return jnp.full(3, seed * 0.5)

        create = jax.jit(create)
        shape = jax.eval_shape(create, np.uint32(0))
        sharding = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        create = jax.jit(create, out_shardings=sharding)
        return create, jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    def abstract_state(self) -> jax.ShapeDtypeStruct:
        return self.creation[1]

    def fresh_state(self) -> jax.Array:
        return self.creation[0](np.uint32(self.experiment.seed))

    def train_step(self, state) -> Any:
        def step(state, batch):
            self._seen("step")
            return state + batch["rows"].sum(), {}

        return jax.jit(step, donate_argnums=0)


def begun(toy: Toy, fresh: bool = True, steps: bool = True) -> Ahead:
    return Ahead(toy, fresh, steps)  # type: ignore[arg-type]


def stepped(work: Ahead, toy: Toy) -> np.ndarray:
    with jax.set_mesh(toy.mesh):
        rows = jax.device_put(np.ones((4, 2), np.float32), jax.sharding.NamedSharding(toy.mesh, jax.P()))
        state = work.fresh_state()
        step = work.train_step()
        with jax.transfer_guard("disallow"):
            state, _ = step(state, {"rows": rows})
            return jax.device_get(state)


def test_state_and_step_are_made_in_threads_each_traced_once():
    toy = Toy()
    with begun(toy) as work:
        work.begin()
        np.testing.assert_array_equal(stepped(work, toy), np.full(3, 9.5, np.float32))
    assert toy.traced == {"state": [False], "step": [False]}


def test_nothing_is_begun_where_something_is_wrong_first():
    toy = Toy()
    with pytest.raises(UserError, match="no such data"), begun(toy):
        raise UserError("no such data")
    work = begun(toy)
    with work:
        pass
    assert work._step is not None
    with pytest.raises(RuntimeError, match="ended before"):
        work._step.result()
    assert toy.traced == {"state": [], "step": []}


def test_data_that_takes_long_is_not_waited_for(monkeypatch):
    """It is being built."""
    monkeypatch.setattr(ahead, "PATIENCE", 0.01)
    toy = Toy()
    with begun(toy) as work:
        deadline = time.monotonic() + 60
        while not toy.traced["step"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert toy.traced == {"state": [False], "step": [False]}
        stepped(work, toy)


def test_only_what_will_be_asked_for_is_made():
    toy = Toy()
    with begun(toy, fresh=False, steps=False) as work, jax.set_mesh(toy.mesh):
        assert work.abstract_state() == toy.abstract_state()  # of a run that is done: to be restored
    assert toy.traced["step"] == []
    with begun(toy, fresh=False, steps=False) as work:  # its last checkpoints turned out to be damaged
        np.testing.assert_array_equal(stepped(work, toy), np.full(3, 9.5, np.float32))
    assert toy.traced["step"] == [True]


def test_what_is_wrong_with_the_model_is_told_where_it_is_asked_for():
    toy = Toy(UserError("microbatches=2, but"))
    with begun(toy) as work:
        work.begin()
        with pytest.raises(UserError, match="microbatches=2, but"):
            work.fresh_state()
        with pytest.raises(UserError, match="microbatches=2, but"):
            work.train_step()


def test_a_context_of_jax_s_holds_for_what_is_made_in_it():
    """A thread isn't in it."""
    toy = Toy()
    with jax.enable_x64(True), begun(toy) as work:
        stepped(work, toy)
    assert toy.traced == {"state": [True], "step": [True]}


def test_several_hosts_compile_in_one_order(monkeypatch):
    monkeypatch.setattr(hosts, "host", lambda: (0, 2))
    toy = Toy()
    with begun(toy) as work:
        work.begin()
        stepped(work, toy)
    assert toy.traced == {"state": [True], "step": [True]}


def test_a_run_traces_nothing_before_its_data_is_there(shapes: str, tmp_path, monkeypatch):
    def traced(setup: Setup) -> None:
        raise AssertionError("traced")

    monkeypatch.setattr(Setup, "creation", property(traced))
    with pytest.raises(UserError, match=r"nowhere\.csv"):
        train(tiny_config(str(tmp_path / "nowhere.csv")), tmp_path / "run")
    with pytest.raises(AssertionError, match="traced"):  # as one does whose data is there
        train(tiny_config(shapes), tmp_path / "other")
