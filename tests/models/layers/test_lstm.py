"""The LSTM layer goes on from a state as PyTorch's does, and passes over what isn't real."""

from typing import Any

import jax
import numpy as np
import pytest

from mmjax.models.layers.lstm import LstmLayer, LstmState, lstm_step
from mmjax.models.layers.parameters import uniform_init
from tests.models import oracle

RANDOM = np.random.default_rng(0)
X, START = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((3, 5, 4), (2, 3, 6)))
REAL: Any = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)
LAYER = LstmLayer(6, 0.7, uniform_init(0.5), "float32")


def test_it_is_pytorchs_from_a_state_with_the_forget_bias_in_its_bias() -> None:
    torch = pytest.importorskip("torch")
    params = oracle.params_of(LAYER, X, REAL, LstmState(*START))
    held = params["params"]
    theirs = torch.nn.LSTM(4, 6, batch_first=True)
    theirs.weight_ih_l0.data = torch.tensor(held["of_input"]["kernel"].T)
    theirs.weight_hh_l0.data = torch.tensor(held["of_state"]["kernel"].T)
    theirs.bias_ih_l0.data = torch.tensor(held["of_input"]["bias"])
    theirs.bias_hh_l0.data = torch.tensor(np.repeat([0.0, 0.7, 0.0, 0.0], 6).astype(np.float32))
    outputs, last = oracle.apply(LAYER, params, X, REAL, LstmState(*START))
    assert outputs.attended is None
    assert outputs.weights is None
    for row in range(3):
        c, h = (torch.tensor(x[None, row : row + 1]) for x in START)
        if not REAL[row].any():
            np.testing.assert_array_equal([last.memory[row], last.output[row]], START[:, row])
            continue
        with torch.no_grad():
            states, (h, c) = theirs(torch.tensor(X[row][REAL[row]][None]), (h, c))
        np.testing.assert_allclose(outputs.states[row][REAL[row]], states[0].numpy(), atol=1e-6)
        np.testing.assert_allclose([last.memory[row], last.output[row]], [c[0, 0].numpy(), h[0, 0].numpy()], atol=1e-6)
    held_back = outputs.states[1][[0, 2]]  # no words: what was before them stays
    np.testing.assert_array_equal(held_back, [START[1, 1], outputs.states[1, 1]])


def test_a_step_keeps_the_memorys_dtype() -> None:
    with jax.enable_x64(True):
        gates, state = RANDOM.normal(size=(3, 24)), LstmState(*START.astype(np.float64))
        i, f, g, o = np.split(gates, 4, axis=1)
        memory = state.memory / (1 + np.exp(-f - 1)) + np.tanh(g) / (1 + np.exp(-i))
        found = lstm_step(np.float32(gates), state, 1.0)  # pyright: ignore[reportArgumentType]
        assert found.memory.dtype == np.float64
        np.testing.assert_allclose(found.memory, memory, atol=1e-6)
        np.testing.assert_allclose(found.output, np.tanh(memory) / (1 + np.exp(-o)), atol=1e-6)
