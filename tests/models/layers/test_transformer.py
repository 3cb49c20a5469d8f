import re
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from flax.linen.spmd import logical_to_mesh_sharding
from jax.sharding import PartitionSpec

from mmjax.errors import UserError
from mmjax.models.layers.attention import attend, attend_fused
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.transformer import Block, Transformer
from mmjax.runtime.mesh import ACTIVATION_RULES, Mesh, state_shardings
from tests.flat import flat
from tests.models import oracle

SMALL: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2, "mlp_dim": 24}


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (2, 5, 16))


@pytest.fixture(scope="module")
def params(x):
    return oracle.params_of(flat(Transformer, **SMALL), x)


@partial(jax.jit, static_argnames="module")
def value_and_gradient(module, params, x, mask=None):
    def loss(params, x):
        out = cast(jax.Array, module.apply(params, x, mask))
        return jnp.sum(jnp.sin(out))

    return jax.value_and_grad(loss, argnums=(0, 1))(params, x)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "quick_gelu"])
def test_transformer_equals_float64_numpy(x, params, activation):
    mask = np.array([[True, True, True, False, False], [True, False, True, True, True]])
    module = flat(Transformer, **SMALL, activation=activation, causal=activation == "quick_gelu")
    causal = np.tril(np.ones((5, 5), bool)) if module.causal else True
    weights = oracle.as64(params)["params"]
    got = jax.jit(module.apply)(params, x, mask)
    for row in range(2):
        allowed = np.asarray(mask[row])[None] & causal
        want = oracle.transformer(weights, np.asarray(x[row], np.float64), allowed, activation)
        np.testing.assert_allclose(got[row], want, atol=2e-5)


def test_layer_scale_equals_float64_numpy_and_starts_at_its_value(x, params):
    module = flat(Transformer, **SMALL, layer_scale=0.25)
    initial = meta.unbox(jax.jit(module.init)(jax.random.key(0), x))["params"]["blocks"]
    for name in ("scale_attention", "scale_mlp"):
        np.testing.assert_array_equal(initial.pop(name)["scale"], np.full((2, 16), 0.25, np.float32))
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(jnp.shape, params["params"]["blocks"])  # None adds nothing
    drawn = oracle.params_of(module, x)
    got = jax.jit(module.apply)(drawn, x)
    for row in range(2):
        want = oracle.transformer(oracle.as64(drawn)["params"], np.asarray(x[row], np.float64))
        np.testing.assert_allclose(got[row], want, atol=2e-5)


def test_scan_equals_a_loop_over_blocks(x, params):
    block = Block(Blocks(**SMALL), length=5)

    def unrolled(params, x):
        x = x.reshape(10, 16)
        for i in range(2):
            x, _ = block.apply({"params": jax.tree.map(lambda leaf, i=i: leaf[i], params["params"]["blocks"])}, x)
        return jnp.sum(jnp.sin(cast(jax.Array, nn.LayerNorm().apply({"params": params["params"]["norm"]}, x))))

    want, want_gradient = jax.jit(jax.value_and_grad(unrolled, argnums=(0, 1)))(params, x)
    got, gradient = value_and_gradient(flat(Transformer, **SMALL), params, x)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), gradient, want_gradient)


@pytest.mark.parametrize(("remat", "unroll"), [("full", 1), ("dots", 1), ("dots", 2)])
def test_remat_and_unroll_change_neither_value_nor_gradient(x, params, remat, unroll):
    want = value_and_gradient(flat(Transformer, **SMALL, remat=None), params, x)
    got = value_and_gradient(flat(Transformer, **SMALL, remat=remat, unroll=unroll), params, x)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), got, want)


def test_remat_keeps_less(x, params):
    def residuals(remat):
        """Numbers that the forward pass hands to the backward pass."""
        module = flat(Transformer, **SMALL, remat=remat)
        _, pullback = jax.eval_shape(lambda p: jax.vjp(lambda p: module.apply(p, x), p), params)
        return sum(leaf.size for leaf in jax.tree.leaves(pullback))

    assert residuals("full") < residuals("dots") < residuals(None)


@pytest.mark.parametrize("unroll", [1, 2])
def test_without_a_loop_a_barrier_keeps_compilers_from_undoing_remat(x, params, unroll):
    gradient = jax.grad(lambda p: jnp.sum(cast(jax.Array, flat(Transformer, **SMALL, unroll=unroll).apply(p, x))))
    assert ("optimization_barrier" in jax.jit(gradient).lower(params).as_text()) == (unroll == 2)


def test_causal_state_depends_on_the_past_alone(x, params):
    apply = jax.jit(flat(Transformer, **SMALL, causal=True).apply)
    changed = apply(params, x.at[:, 3, 0].add(1.0))
    unchanged = apply(params, x)
    np.testing.assert_array_equal(changed[:, :3], unchanged[:, :3])
    assert np.abs(changed[:, 3:] - unchanged[:, 3:]).max(axis=-1).min() > 1e-4


def test_masked_tokens_influence_nothing_and_an_empty_row_stays_finite(x, params):
    module = flat(Transformer, **SMALL)
    mask = np.array([[True, True, False, True, False], [False] * 5])
    apply = jax.jit(module.apply)
    a, b = apply(params, x, mask), apply(params, np.where(mask[..., None], x, np.float32(7)), mask)
    np.testing.assert_array_equal(a[0][mask[0]], b[0][mask[0]])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(value_and_gradient(module, params, x, mask)))


def test_attend_matches_jax():
    q, k, v = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 5, 8)), jnp.float32)
    mask = jnp.arange(5) < jnp.array([[5], [3]])
    swap = partial(jnp.swapaxes, axis1=1, axis2=2)

    @jax.jit
    def both(q, k, v):
        theirs = jax.nn.dot_product_attention(swap(q), swap(k), swap(v), mask=mask[:, None, None], is_causal=True)
        return swap(theirs), attend(q, k, v, mask, causal=True)

    want, got = both(q, k, v)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_logits_and_softmax_are_float32_in_bfloat16():
    q = jnp.ones((1, 1, 2, 4), jnp.bfloat16)
    text = str(jax.make_jaxpr(attend)(q, q, q))
    assert re.search(r"f32\[1,1,2,2\] = dot_general", text)
    assert re.search(r"f32\[1,1,2,2\] = exp", text)
    assert attend(q, q, q).dtype == jnp.bfloat16


def test_the_block_stands_once_whatever_the_depth(x):
    def dots(depth):
        module = Transformer(blocks=Blocks(width=16, depth=depth, heads=2))
        params = jax.eval_shape(lambda: meta.unbox(module.init(jax.random.key(0), x)))
        loss = jax.grad(lambda p: jnp.sum(jnp.asarray(module.apply(p, x))))
        return jax.jit(loss).lower(params).as_text().count("stablehlo.dot_general")

    assert dots(4) == dots(24) > 0


def test_logical_axes(x):
    variables = jax.eval_shape(lambda: flat(Transformer, **SMALL).init(jax.random.key(0), x))
    specs = nn.get_partition_spec(variables)["params"]
    block = specs["blocks"]
    assert block["attention"]["qkv"]["kernel"] == PartitionSpec("layers", "embed", "heads", None, "head_dim")
    assert block["attention"]["qkv"]["bias"] == PartitionSpec("layers", "heads", None, "head_dim")
    assert block["attention"]["out"]["kernel"] == PartitionSpec("layers", "heads", "head_dim", "embed")
    assert block["mlp"]["in"]["kernel"] == PartitionSpec("layers", "embed", "mlp")
    assert block["mlp"]["in"]["bias"] == PartitionSpec("layers", "mlp")
    assert block["mlp"]["out"]["kernel"] == PartitionSpec("layers", "mlp", "embed")
    assert block["norm_mlp"]["scale"] == PartitionSpec("layers", "embed")
    assert specs["norm"]["scale"] == PartitionSpec("embed")


def test_a_sharded_mesh_gives_the_same_values(x, params):
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rules = (("batch", ("data",)), ("embed", "fsdp"), ("heads", "tensor"), ("mlp", "tensor"))
    module = flat(Transformer, **SMALL)
    logical = nn.get_partition_spec(jax.eval_shape(lambda: module.init(jax.random.key(0), x)))
    placed = jax.device_put(params, logical_to_mesh_sharding(logical, mesh, rules))
    want, want_gradient = value_and_gradient(module, params, x)
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        got, gradient = value_and_gradient(module, placed, x)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5), gradient, want_gradient)


def test_over_tensor_two_sums_a_block_are_all_that_devices_say_to_each_other(x, params):
    """Megatron's cut: a device's heads and hidden units are its own, and neither kernels nor tokens are gathered."""
    mesh = Mesh(tensor=2).build(jax.devices()[:2])
    module = flat(Transformer, **SMALL)
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        boxed = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
        placed = jax.device_put(params, state_shardings(boxed, mesh))
        program = value_and_gradient.lower(module, placed, x).compile().as_text()
    said = re.findall(r"= (\S+) (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", program or "")
    assert [name for _, name in said] == ["all-reduce"] * 4  # attention and MLP, in both loops' bodies
    assert {re.sub(r"\{.*", "", shape) for shape, _ in said} == {"f32[10,16]"}


@pytest.mark.parametrize("inits", ["xavier", "clip"])
def test_initial_deviations_equal_theory(inits):
    width, mlp_dim, depth = 128, 512, 6
    module = Transformer(blocks=Blocks(width=width, depth=depth, heads=4, mlp_dim=mlp_dim, inits=inits))
    init = jax.jit(lambda key: meta.unbox(module.init(key, jnp.zeros((1, 2, width)))))
    blocks = init(jax.random.key(0))["params"]["blocks"]
    theory = {
        "xavier": (width**-0.5, width**-0.5, (2 / (width + mlp_dim)) ** 0.5, (2 / (width + mlp_dim)) ** 0.5),
        "clip": (width**-0.5, (2 * depth * width) ** -0.5, (2 * width) ** -0.5, (2 * depth * width) ** -0.5),
    }[inits]
    attention, mlp = blocks["attention"], blocks["mlp"]
    kernels = (attention["qkv"], attention["out"], mlp["in"], mlp["out"])
    for part, std in zip(kernels, theory, strict=True):
        assert np.std(part["kernel"], axis=tuple(range(1, part["kernel"].ndim))) == pytest.approx(
            [std] * depth, rel=0.02
        )
        assert not np.any(part["bias"])
    assert not np.array_equal(mlp["in"]["kernel"][0], mlp["in"]["kernel"][1])  # each layer draws its own


def test_bfloat16_computes_in_bfloat16_with_float32_parameters(x, params):
    module = flat(Transformer, **SMALL, dtype="bfloat16")
    initial = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {jnp.dtype("float32")}
    out, reference = jax.jit(module.apply)(params, x), oracle.apply(flat(Transformer, **SMALL), params, x)
    assert out.dtype == jnp.bfloat16
    assert 0 < np.abs(out.astype(jnp.float32) - reference).max() < 0.1


def test_dropout_acts_in_training_alone(x, params):
    module = flat(Transformer, **SMALL, dropout=0.5)
    np.testing.assert_array_equal(oracle.apply(module, params, x), oracle.apply(flat(Transformer, **SMALL), params, x))
    train = jax.jit(lambda key: module.apply(params, x, train=True, rngs={"dropout": key}))
    a = train(jax.random.key(3))
    np.testing.assert_array_equal(a, train(jax.random.key(3)))
    assert np.abs(a - train(jax.random.key(4))).max() > 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, r"heads=3 does not divide width=16.*\[1, 2, 4, 8, 16\]"),
        ({"activation": "gelu_tan"}, "activation='gelu_tan' is not one of gelu, .*did you mean gelu_tanh"),
        ({"remat": "dot"}, "remat='dot' is not one of full, dots; did you mean dots"),
        ({"inits": "xaver"}, "inits='xaver' .* did you mean xavier"),
    ],
)
def test_errors_say_what_would_do(x, fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: flat(Transformer, **{**SMALL, **fields}).init(jax.random.key(0), x))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention": "cudn"}, "attention='cudn' is not one of auto, plain, cudnn, pallas; did you mean cudnn?"),
        (
            {"attention": "cudnn", "dtype": "bfloat16"},
            "an NVIDIA GPU, not on 'cpu': set it to 'auto' or 'plain'",
        ),
    ],
)
def test_attention_that_cannot_be_had_says_what_can(x, changed, message):
    with pytest.raises(UserError, match=re.escape(message)):
        jax.eval_shape(flat(Transformer, **SMALL, **changed).init, jax.random.key(0), x)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention_asks_for_what_the_plain_one_computes(monkeypatch, causal, masked):
    """On a CPU there is no such kernel: jax's other implementation takes its place."""
    rng = np.random.default_rng(0)
    mask: Any = np.array([[True, True, False, False, False], [True, False, True, True, True]]) if masked else None
    arrays: Any = [rng.standard_normal((2, 3, 5, 8)).astype(jnp.bfloat16) for _ in range(3)]
    fused = jax.nn.dot_product_attention
    asked = []

    def stand_in(*arrays, implementation, **options):
        asked.append(implementation)
        return fused(*arrays, implementation="xla", **options)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    both = jax.jit(lambda query, key, value: [of(query, key, value, mask, causal) for of in (attend_fused, attend)])
    got, want = (np.asarray(found, np.float32) for found in both(*arrays))
    assert asked == ["cudnn"]
    np.testing.assert_allclose(got, want, atol=0.02)
    with pytest.raises(UserError, match="not in dtype='float32'"):
        attend_fused(arrays[0].astype(np.float32), *arrays[1:])
