"""Activations: their values and gradients, and what they keep between the passes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.layers.activations import ACTIVATIONS
from tests.models import oracle

PLAIN = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
}
INPUT = np.linspace(-6, 6, 96).reshape(2, 3, 16)
WEIGHT = np.random.default_rng(0).standard_normal(INPUT.shape)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients_are_those_of_autodiff(name):
    x, weight = jnp.asarray(INPUT, jnp.float32), jnp.asarray(WEIGHT, jnp.float32)
    values, gradients = [], []
    for function in (ACTIVATIONS[name], PLAIN[name]):
        value, back = jax.vjp(function, x)
        values.append(value)
        gradients.append(back(weight)[0])
    np.testing.assert_allclose(values[0], oracle.ACTIVATIONS[name](INPUT), atol=2e-6)
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_sixteen_bits_are_rounded_once_in_either_pass(name):
    """By at most half of bf16's last place of a value, beside fp64; the input's own rounding is in both."""
    x, weight = (jnp.asarray(each, jnp.bfloat16) for each in (INPUT, WEIGHT))
    value, back = jax.vjp(ACTIVATIONS[name], x)
    (gradient,) = back(weight)
    assert value.dtype == gradient.dtype == jnp.bfloat16
    with jax.enable_x64(True):
        exact, exact_back = jax.vjp(PLAIN[name], jnp.asarray(np.asarray(x, np.float64)))
        (exact_gradient,) = exact_back(jnp.asarray(np.asarray(weight, np.float64)))
        for got, want in ((value, exact), (gradient, exact_gradient)):
            np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=2**-8, atol=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_input_alone_is_kept(name):
    x = jnp.asarray(INPUT, jnp.float32)
    kept = jax.tree.leaves(jax.vjp(ACTIVATIONS[name], x)[1])
    assert [leaf.shape for leaf in kept] == [x.shape]
    np.testing.assert_array_equal(kept[0], x)
    assert len(jax.tree.leaves(jax.vjp(PLAIN[name], x)[1])) > 1  # what autodiff keeps, for all of them
