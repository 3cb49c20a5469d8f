"""Every fusion of tokens is the same on meshes that cut examples, parameters and heads: embedding and gradient."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.runtime.mesh import ACTIVATION_RULES, state_shardings
from tests.models.fusion.test_tokens import FUSIONS, drawn, given


def repeated(tokens: Any) -> Any:
    """Sixteen examples, for eight devices."""
    return jax.tree.map(lambda x: jnp.tile(x, (4,) + (1,) * (x.ndim - 1))[:16], tokens)


@pytest.mark.parametrize(
    "name", ["merged", "merged, placed", "cross", "coattention", "coattention, shared", "multiway"]
)
@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_a_mesh_changes_nothing(name: str, shape: tuple[int, ...]) -> None:
    module, inputs = FUSIONS[name]
    tokens = repeated(given(inputs))
    variables = drawn(module, tokens)
    keys = jax.random.split(jax.random.key(7), 16)

    def loss(variables: Any, tokens: Any) -> Any:
        fused, embedding = module.apply(variables, tokens, train=True, keys=keys)
        seen = sum(jnp.sum(jnp.where(mask[..., None], x, 0) ** 2) for x, mask in fused.values())
        return jnp.mean(embedding**2) + seen / 1_000, embedding

    (expected, embedding), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables, tokens)
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    held = jax.device_put(variables, state_shardings(jax.eval_shape(module.init, jax.random.key(0), tokens), mesh))
    rows = jax.device_put(tokens, NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        (found, other), again = jax.jit(jax.value_and_grad(loss, has_aux=True))(held, rows)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(other, embedding, rtol=0, atol=1e-5 * np.abs(embedding).max())
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * norm)
