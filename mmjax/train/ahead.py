"""Compiles what the first step needs in threads, while the run's data is made ready and read."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np

from mmjax.runtime import hosts
from mmjax.train.setup import Setup
from mmjax.train.step import TrainState

PATIENCE = 3.0  # seconds: data that takes longer is being built, and what is wrong with any other has been told by then


class Ahead:
    """The first state and the compiled train step of a run, made in threads from `begin` on, or from PATIENCE seconds
    after it was entered.

    They are made when they are asked for where several hosts must compute the same in the same order, and where a
    context of jax's (`jax.enable_x64`) is entered, which a thread would not be in.

    The threads begin nothing once this is left. One that compiles goes on until that is done, and the process ends
    after it: XLA can't be interrupted.
    """

    def __init__(self, setup: Setup, fresh: bool, steps: bool):
        """fresh: whether the state of step 0 will be asked for. steps: whether the train step will be."""
        self._setup, self._fresh, self._steps = setup, fresh, steps
        self._due, self._closed = threading.Event(), threading.Event()
        self._traced: Future[Any] | None = None
        self._state: Future[TrainState] | None = None
        self._step: Future[Any] | None = None

    def __enter__(self) -> Self:
        if hosts.host()[1] > 1:
            return self
        # What traces holds Python's lock, what compiles doesn't: the state compiles while the step is traced.
        pool = ThreadPoolExecutor(2, "ahead")
        if pool.submit(_settings).result() == _settings():
            self._traced = pool.submit(self._trace)
            self._state = pool.submit(self._made) if self._fresh else None
            self._step = pool.submit(self._compiled) if self._steps else None
        pool.shutdown(wait=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._due.set()

    def begin(self) -> None:
        """Nothing stands in the run's way any more."""
        self._due.set()

    def abstract_state(self) -> TrainState:
        """Gives what `Setup.abstract_state` does. The mesh must be set, as below."""
        self.begin()
        if self._traced is not None:
            self._traced.result()
        return self._setup.abstract_state()

    def fresh_state(self) -> TrainState:
        """Gives what `Setup.fresh_state` does; to be asked for once."""
        self.begin()
        if self._state is None:
            return self._setup.fresh_state()
        state, self._state = self._state.result(), None  # not kept: it is as large as the model and its moments
        return state

    def train_step(self) -> Any:
        """The train step, `(state, batch) -> (state, metrics)`, for states that lie as the abstract one does."""
        self.begin()
        return self._setup.train_step(self._setup.abstract_state()) if self._step is None else self._step.result()

    def _trace(self) -> Any:
        """The first state's program, not compiled; None where none is asked for."""
        self._due.wait(PATIENCE)
        self._check()
        with jax.set_mesh(self._setup.mesh):
            create, _ = self._setup.creation
            return create.lower(self._seed) if self._fresh else None

    def _made(self) -> TrainState:
        assert self._traced is not None
        program = self._traced.result()
        self._check()
        with jax.set_mesh(self._setup.mesh):
            return program.compile()(self._seed)

    def _compiled(self) -> Any:
        assert self._traced is not None
        self._traced.result()
        self._check()
        with jax.set_mesh(self._setup.mesh):
            state = self._setup.abstract_state()
            batch = {name: jax.ShapeDtypeStruct(rows.shape, rows.dtype) for name, rows in self._setup.spec.items()}
            program = self._setup.train_step(state).lower(state, batch)
        self._check()
        return program.compile()

    def _check(self) -> None:
        """Raises where nobody is left who would ask."""
        if self._closed.is_set():
            raise RuntimeError("the run ended before its first step")

    @property
    def _seed(self) -> np.uint32:
        return np.uint32(self._setup.experiment.seed)


def _settings() -> dict[str, Any]:
    """All of jax's, as they are in this thread."""
    return dict(jax.config.values)
