"""The kernel for TPUs beside `attend`, in jax's interpreter of kernels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.models.layers.attention import attend
from mmjax.models.layers.tpu_attention import MOST_KEYS, Tiling, attend_heads, attend_pallas
from mmjax.runtime.mesh import ACTIVATION_RULES, Mesh


def heads(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def masks(kind, batch, queries, keys):
    """What of `mask`, `causal`, `allowed` and `spare` the words in `kind` name; an example and a query see nothing."""
    random = np.random.default_rng(7)
    given = {}
    if "mask" in kind:
        given["mask"] = jnp.asarray(random.random((batch, keys)) < 0.6).at[0].set(False)
    if "allowed" in kind:
        rows = 1 if "row" in kind else queries
        given["allowed"] = jnp.asarray(random.random((batch, rows, keys)) < 0.6).at[1, 0].set(False)
    if "spare" in kind:
        given["spare"] = 3
    return given | ({"causal": True} if "causal" in kind else {})


@pytest.mark.parametrize(
    ("shape", "keys", "kind"),
    [
        ((2, 3, 37, 64), 37, ""),  # three heads: half of the second register is beyond the array
        ((2, 2, 20, 32), 37, "mask"),
        ((2, 2, 37, 72), 37, "causal mask"),  # 72 channels, filled up to a register
        ((2, 1, 20, 128), 128, "mask allowed"),
        ((2, 2, 20, 64), 37, "row allowed spare"),  # as a context's mask
        ((1, 1, 900, 64), 900, "causal"),  # blocks of queries, the last of which is beyond the array
    ],
)
def test_it_is_attend_in_value_and_gradient(shape, keys, kind):
    batch, count, queries, size = shape
    query, key, value = heads(0, *shape), heads(1, batch, count, keys, size), heads(2, batch, count, keys, size)
    options = masks(kind, batch, queries, keys)
    plain, back = jax.vjp(partial(attend, **options), query, key, value)
    fused, fused_back = jax.vjp(partial(attend_heads, **options, interpret=True), query, key, value)
    gradient = heads(3, *shape)
    for there, expected in zip((fused, *fused_back(gradient)), (plain, *back(gradient)), strict=True):
        np.testing.assert_allclose(there, expected, atol=3e-6, rtol=1e-5)


def test_sixteen_bits_are_as_near_to_the_truth_as_plain_attention_is():
    inputs = [heads(seed, 2, 2, 37, 64) for seed in range(4)]
    halves = [x.astype(jnp.bfloat16) for x in inputs]

    def gradients(attention, query, key, value, gradient):
        value, back = jax.vjp(attention, query, key, value)
        return [jnp.asarray(x, jnp.float32) for x in (value, *back(gradient))]

    true = gradients(attend, *[x.astype(jnp.float32) for x in halves])
    plain, fused = gradients(attend, *halves), gradients(partial(attend_heads, interpret=True), *halves)
    for exact, expected, there in zip(true, plain, fused, strict=True):
        assert jnp.linalg.norm(there - exact) < 1.2 * jnp.linalg.norm(expected - exact)


def test_each_device_computes_its_own_examples_and_heads():
    """Over data=2 and tensor=2, as the rules of a run say; nothing is gathered."""
    import flax.linen as nn

    mesh = Mesh(data=2, tensor=2).build(jax.devices()[:4])
    query, key, value = (heads(seed, 4, 4, 5, 64) for seed in range(3))
    options = masks("mask", 4, 5, 5)

    def both(query, key, value):
        out, back = jax.vjp(partial(attend_heads, **options, interpret=True), query, key, value)
        return out, back(out)

    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        spec = jax.sharding.PartitionSpec(("data", "fsdp"), "tensor")
        placed = [jax.device_put(x, jax.NamedSharding(mesh, spec)) for x in (query, key, value)]
        compiled = jax.jit(both).lower(*placed).compile()
        out, gradients = compiled(*placed)
    assert "all-gather" not in str(compiled.as_text())
    assert out.sharding.shard_shape(out.shape) == (2, 2, 5, 64)
    expected, back = jax.vjp(partial(attend, **options), query, key, value)
    for there, known in zip((out, *gradients), (expected, *back(expected)), strict=True):
        np.testing.assert_allclose(there, known, atol=3e-6, rtol=1e-5)


def test_tiles_of_logits_stay_small():
    for length in (1, 197, 577, 1_024, MOST_KEYS):
        cut = Tiling(length, length, 64, 768, 0.125, False, False, False)
        assert cut.block * -(-length // cut.block) < length + 16 * -(-length // cut.block)  # little is computed in vain
        assert 4 * cut.block * cut.columns <= 3 * 2**20


def test_where_it_does_not_run():
    with pytest.raises(UserError, match="attention='pallas' runs on a TPU, not on 'cpu': set it to 'auto' or 'plain'"):
        attend_pallas(heads(0, 1, 1, 2, 64), heads(1, 1, 1, 2, 64), heads(2, 1, 1, 2, 64))
