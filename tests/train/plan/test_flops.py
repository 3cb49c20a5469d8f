import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from mmjax.errors import UserError
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.tpu_attention import attend_heads
from mmjax.models.towers.vit import ViT
from mmjax.runtime.mesh import Mesh
from mmjax.train.plan.flops import count

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))


def flops(function, *arguments):
    return count(jax.make_jaxpr(function)(*arguments))


def test_a_product_has_twice_its_three_sizes_and_all_else_nothing():
    assert flops(jnp.matmul, A, B) == 2 * 3 * 5 * 7
    assert flops(lambda a: jnp.exp(a + 1).sum(), A) == 0
    batched = jnp.ones((4, 6, 3, 5)), jnp.ones((4, 6, 5, 7))
    assert flops(jnp.matmul, *batched) == 4 * 6 * 2 * 3 * 5 * 7


def test_a_convolution_is_the_product_that_it_stands_for():
    pictures, kernel = jnp.ones((2, 3, 16, 16)), jnp.ones((10, 3, 4, 4))
    patches = flops(lambda x, k: jax.lax.conv(x, k, (4, 4), "VALID"), pictures, kernel)
    assert patches == 2 * (2 * 4 * 4) * (3 * 4 * 4) * 10


def test_a_kernel_by_pallas_has_what_it_says():
    """Five queries to three keys of 64 channels: two products, and five backward, which makes the logits again."""
    arrays = [jnp.ones((2, 3, n, 64)) for n in (5, 3, 3)]

    def loss(*arrays):
        return attend_heads(*arrays, interpret=True).sum()

    product = 2 * 2 * 3 * 5 * 3 * 64
    assert flops(loss, *arrays) == 2 * product
    assert flops(jax.grad(loss), *arrays) == (2 + 5) * product


def test_cudnns_attention_has_the_products_of_the_plain_one(monkeypatch):
    """Eight positions to six keys; the version is asked for where the kernel is traced, which needs no GPU."""
    from jax._src.cudnn import fused_attention_stablehlo  # no public name has it

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
    query, key = jnp.ones((2, 8, 3, 64), jnp.bfloat16), jnp.ones((2, 6, 3, 64), jnp.bfloat16)

    def loss(how):
        return lambda q, k, v: jax.nn.dot_product_attention(q, k, v, implementation=how).astype(jnp.float32).sum()

    one = 2 * 2 * 3 * 8 * 6 * 64
    for how in ("xla", "cudnn"):
        assert flops(loss(how), query, key, key) == 2 * one
        assert flops(jax.grad(loss(how), (0, 1, 2)), query, key, key) == 6 * one


def test_loops_count_as_often_as_they_run():
    def layers(a, n):
        return jax.lax.scan(lambda x, _: (x @ x, None), a, None, length=n)[0]

    square = jnp.ones((4, 4))
    assert flops(lambda a: layers(a, 6), square) == 6 * 2 * 4**3
    assert flops(lambda a: jax.lax.fori_loop(0, 3, lambda _, x: layers(x, 6), a), square) == 3 * 6 * 2 * 4**3


def test_recomputation_counts_and_both_gradients_do():
    def loss(a, b):
        return jnp.sum(jnp.tanh(a @ b))

    one = 2 * 3 * 5 * 7
    assert flops(jax.value_and_grad(loss, (0, 1)), A, B) == 3 * one
    assert flops(jax.value_and_grad(jax.checkpoint(loss), (0, 1)), A, B) == 4 * one


def test_a_branch_counts_once_and_a_device_what_it_runs():
    square = jnp.ones((8, 8))
    branched = flops(lambda a: jax.lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, a), square)
    assert branched == 2 * 2 * 8**3
    mesh = Mesh(data=4, fsdp=2).build()
    rows = PartitionSpec(("data", "fsdp"))
    mapped = jax.shard_map(lambda a, b: a @ b, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)
    assert flops(mapped, square, square) == flops(jnp.matmul, square, square)


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(UserError, match="how often"):
        flops(lambda a: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, a), jnp.ones((2, 2)))


def test_a_vit_has_the_flops_of_its_formula():
    """Of a block: 4 d^2 for attention's projections and 2 d m for the MLP, a token; 2 n^2 d for attention."""
    n, d, m, depth, batch = 16, 32, 64, 3, 2
    tower = ViT(patch=4, size=16, blocks=Blocks(width=d, depth=depth, heads=4, mlp_dim=m), embed_dim=24, pooling="mean")
    pictures = jnp.zeros((batch, 16, 16, 3), jnp.uint8)
    params = jax.eval_shape(tower.init, jax.random.key(0), pictures)
    block = n * (4 * d * d + 2 * d * m) + 2 * n * n * d
    expected = 2 * batch * (n * 4 * 4 * 3 * d + depth * block + d * 24)
    assert flops(tower.apply, params, pictures) == expected
