"""Masks of attention and context tokens, beside a Transformer that reads one example at a time with dense masks."""

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

from mmjax.errors import UserError
from mmjax.models.layers.attention import attend, attend_fused
from mmjax.models.layers.masks import prefix_causal
from mmjax.models.layers.transformer import Transformer
from tests.flat import flat
from tests.models import oracle

SMALL: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2, "mlp_dim": 24}
LENGTHS, CONTEXTS, PREFIXES = (5, 3, 4), (4, 1, 0), (2, 3, 0)  # of three examples

X, CONTEXT, WEIGHTS = (  # the weights are those of a loss that sees every real token
    np.asarray(jax.random.normal(jax.random.key(i), (3, n, 16))) for i, n in enumerate((5, 4, 5))
)
MASK, CONTEXT_MASK = (np.arange(n) < np.array(real)[:, None] for n, real in ((5, LENGTHS), (4, CONTEXTS)))

FIRST = np.arange(5) < np.array(PREFIXES)[:, None]
OF_EACH = np.tril(np.ones((5, 5), bool)) | FIRST[:, :, None] & FIRST[:, None]  # what `prefix_causal` allows each


def norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def read(p, query, key, value, allowed):
    """Dense attention of one example; a query that is allowed no key takes in zeros."""
    heads = []
    for i in range(2):
        logits = query[i] @ key[i].T / np.sqrt(8)
        weights = jnp.where(allowed, jnp.exp(logits - logits.max(initial=0.0)), 0.0)
        heads.append(weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-30) @ value[i])
    return jnp.einsum("hnk,hkd->nd", jnp.stack(heads), p["out"]["kernel"]) + p["out"]["bias"]


def heads_in(p, x, part):
    return jnp.einsum("nd,dhk->hnk", x, p["kernel"][:, :, part]) + p["bias"][:, part][:, None]


def twin(params, x, allowed, context=None, norm_after=False):
    """One example `[n, d]`; `allowed` `[n, n]`; `context` `[m, d]`, all real. What is masked isn't there."""

    def layer(x, p):
        def self_attention(x, p=p["attention"]):
            query, key, value = (heads_in(p["qkv"], x, part) for part in range(3))
            return read(p, query, key, value, allowed)

        def cross_attention(x, p=p):
            assert context is not None
            p = p["cross"]
            key, value = (heads_in(p["key_value"], context, part) for part in range(2))
            return read(p, heads_in(p["query"], x, 0), key, value, np.ones((len(x), len(context)), bool))

        def mlp(x, p=p["mlp"]):
            inner = jax.nn.gelu(x @ p["in"]["kernel"] + p["in"]["bias"], approximate=False)
            return inner @ p["out"]["kernel"] + p["out"]["bias"]

        for name, branch in (("attention", self_attention), ("cross", cross_attention), ("mlp", mlp)):
            if f"norm_{name}" in p:
                around, scale = p[f"norm_{name}"], p[f"scale_{name}"]["scale"] if f"scale_{name}" in p else 1.0
                x = norm(around, x + scale * branch(x)) if norm_after else x + scale * branch(norm(around, x))
        return x, None

    x, _ = jax.lax.scan(layer, x, params["blocks"])  # over both layers
    return norm(params["norm"], x) if "norm" in params else x


def twin_loss(params, x, context, allowed, crosses, norm_after):
    """Of the three examples, each cut to what is real of it."""
    total = 0.0
    for i, (n, m) in enumerate(zip(LENGTHS, CONTEXTS, strict=True)):
        out = twin(params["params"], x[i, :n], allowed[i, :n, :n], context[i, :m] if crosses else None, norm_after)
        total += jnp.sum(jnp.sin(out) * WEIGHTS[i, :n])
    return total


def loss(module, params, x, context, allowed):
    given = {"context": context, "context_mask": CONTEXT_MASK} if module.cross else {}
    out = cast(jax.Array, module.apply(params, x, MASK, allowed=allowed, **given))
    return jnp.sum(jnp.where(MASK[..., None], jnp.sin(out) * WEIGHTS, 0))


def both(module, params, allowed):
    """Value and gradients, by parameters, tokens and context: of the module on padded examples, and of the twin."""
    dense = np.broadcast_to(allowed, (3, 5, 5))
    with jax.default_matmul_precision("highest"):
        found = jax.jit(jax.value_and_grad(partial(loss, module), argnums=(0, 1, 2)))(params, X, CONTEXT, allowed)
        of_twin = jax.jit(jax.value_and_grad(twin_loss, argnums=(0, 1, 2)), static_argnums=(4, 5))
        wanted = of_twin(params, X, CONTEXT, dense, module.cross, module.blocks.norm == "post")
        return jax.tree.map(np.asarray, (found, wanted))


def params_of(module):
    return oracle.params_of(module, X, *((None, False, None, None, None, CONTEXT) if module.cross else ()))


def assert_close(found, wanted):
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5), found[1], wanted[1])


def test_a_prefix_sees_itself_and_the_rest_is_causal():
    want = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(prefix_causal(4, 2), np.array([want], bool))
    of_each = jax.jit(partial(prefix_causal, 4))(jnp.array([0, 2, 4]))
    np.testing.assert_array_equal(of_each, np.stack([np.tril(np.ones((4, 4))), np.array(want), np.ones((4, 4))]) == 1)
    with pytest.raises(UserError, match="prefix=5 must be between 0 and the 4 tokens that there are"):
        prefix_causal(4, 5)


@pytest.mark.parametrize("prefix", [True, False])
def test_a_mask_equals_one_example_at_a_time(prefix):
    """A prefix of each example; and one mask for all, which lets some tokens attend to none."""
    of_all = np.random.default_rng(0).random((1, 5, 5)) < 0.4
    assert not of_all.any(axis=-1).all()
    module = flat(Transformer, **SMALL, remat="dots" if prefix else None)
    assert_close(*both(module, params_of(module), OF_EACH if prefix else of_all))


@pytest.mark.parametrize("fields", [{"remat": "full", "layer_scale": 0.5}, {"norm": "post"}], ids=str)
def test_context_equals_one_example_at_a_time(fields):
    module = flat(Transformer, **SMALL, cross=True, **fields)
    found, wanted = both(module, params_of(module), OF_EACH)
    assert_close(found, wanted)
    of_context = found[1][2]
    assert not np.any(of_context[~CONTEXT_MASK])  # nor has the example without any
    assert np.abs(of_context[CONTEXT_MASK]).min(axis=0).min() > 0
    assert not np.any(found[1][1][~MASK])


def test_a_sharded_mesh_gives_the_same_values():
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    rules = (("batch", ("data",)), ("embed", "fsdp"), ("heads", "tensor"), ("mlp", "tensor"))
    module = flat(Transformer, **SMALL, cross=True)
    logical = nn.get_partition_spec(jax.eval_shape(lambda: module.init(jax.random.key(0), X, context=CONTEXT)))
    params = params_of(module)
    placed = jax.device_put(params, logical_to_mesh_sharding(logical, mesh, rules))
    allowed = prefix_causal(5, jnp.array(PREFIXES[:2]))

    @jax.jit
    def found(params, context):
        def of(context):
            given = {"allowed": allowed, "context": context, "context_mask": CONTEXT_MASK[:2]}
            return jnp.sum(jnp.sin(cast(jax.Array, module.apply(params, X[:2], MASK[:2], **given))))

        return jax.value_and_grad(of)(context)

    want, want_gradient = found(params, CONTEXT[:2])
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        got, gradient = found(placed, CONTEXT[:2])
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, atol=2e-5)


def test_one_more_padded_token_changes_nothing():
    module = flat(Transformer, **SMALL, cross=True)
    params = params_of(module)
    longer = prefix_causal(6, jnp.array(PREFIXES))
    want = oracle.apply(module, params, X, MASK, allowed=OF_EACH, context=CONTEXT, context_mask=CONTEXT_MASK)
    ones = [(0, 0), (0, 1), (0, 0)]
    x, context = (np.pad(tokens, ones, constant_values=3.0) for tokens in (X, CONTEXT))
    mask, context_mask = (np.pad(real, ones[:2]) for real in (MASK, CONTEXT_MASK))
    got = oracle.apply(module, params, x, mask, allowed=longer, context=context, context_mask=context_mask)
    np.testing.assert_allclose(got[:, :5][MASK], want[MASK], atol=1e-6)


def test_a_blocked_token_gets_no_gradient_from_those_that_it_is_blocked_for():
    module, allowed = flat(Transformer, **SMALL), prefix_causal(5, 2)
    params = params_of(module)

    def of_token(x, place):
        return jnp.sum(jnp.sin(cast(jax.Array, module.apply(params, x, allowed=allowed))[:, place]))

    gradient = jax.jit(jax.grad(of_token))
    for place, seen in ((0, 2), (1, 2), (2, 3), (4, 5)):
        size = np.abs(gradient(X, place)).max(axis=-1)
        assert (size[:, :seen] > 0).all()
        assert not size[:, seen:].any()


def test_only_cross_adds_parameters():
    shapes = {
        cross: jax.eval_shape(
            lambda cross=cross: meta.unbox(
                flat(Transformer, **SMALL, cross=cross).init(jax.random.key(0), X, context=CONTEXT if cross else None)
            )
        )["params"]["blocks"]
        for cross in (False, True)
    }
    added = {name: shapes[True].pop(name) for name in ("cross", "norm_cross")}
    assert shapes[True] == shapes[False]
    assert added["cross"]["key_value"]["kernel"].shape == (2, 16, 2, 2, 8)


def test_dropout_of_the_context_is_its_own():
    module = flat(Transformer, **{**SMALL, "depth": 1}, cross=True, dropout=0.5)
    params = params_of(module)
    keys = jax.random.split(jax.random.key(0), 3)
    given = {"keys": keys, "context": CONTEXT, "context_mask": CONTEXT_MASK}
    apply = jax.jit(partial(module.apply, train=True))
    whole = cast(jax.Array, apply(params, X, **given))
    part = cast(jax.Array, apply(params, X[1:], **{name: value[1:] for name, value in given.items()}))
    np.testing.assert_allclose(part, whole[1:], atol=1e-6)  # an example's noise is its own
    assert np.abs(whole - cast(jax.Array, apply(params, X, **{**given, "keys": keys[::-1]}))).max() > 0.1


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [4, 5])
def test_the_fused_kernel_is_asked_for_the_same(monkeypatch, causal, keys):
    """On a CPU there is no such kernel: jax's other implementation takes its place."""
    rng = np.random.default_rng(0)
    arrays: Any = [rng.standard_normal((3, 2, n, 8)).astype(jnp.bfloat16) for n in (5, keys, keys)]
    query, key, value = arrays
    mask = np.arange(keys) < np.array([[keys], [3], [2]])
    fused = jax.nn.dot_product_attention

    def stand_in(*arrays, implementation, **options):
        assert implementation == "cudnn"
        return fused(*arrays, implementation="xla", **options)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    of = jax.jit(lambda real, allowed: [f(query, key, value, real, causal, allowed) for f in (attend_fused, attend)])
    for allowed in (rng.random((3, 5, keys)) < 0.5, rng.random((1, 1, keys)) < 0.5):
        for real in (mask, None):
            got, want = (np.asarray(found, np.float32) for found in of(real, allowed))
            np.testing.assert_allclose(got, want, atol=0.02)


@pytest.mark.parametrize(
    ("cross", "given", "message"),
    [
        (
            False,
            {"allowed": np.ones((3, 5, 4), bool)},
            "allowed is bool [3, 5, 4], and for 3 sequences of 5 tokens it is bool [3, 5, 5] or bool [1, 5, 5]",
        ),
        (False, {"allowed": np.ones((1, 5, 5), np.float32)}, "allowed is float32 [1, 5, 5]"),
        (False, {"context": CONTEXT}, "no block attends to them: set cross=True"),
        (False, {"context_mask": CONTEXT_MASK}, "without the context tokens that it is for: give context= too"),
        (True, {}, "cross=True attends to context tokens, and there are none: give context="),
        (
            True,
            {"context": CONTEXT[..., :8]},
            "context is float32 [3, 4, 8], and beside tokens [3, 5, 16] it is [3, m, 16]: project it to that width",
        ),
        (True, {"context": CONTEXT[:1]}, "context is float32 [1, 4, 16]"),
        (
            True,
            {"context": CONTEXT, "context_mask": MASK},
            "context_mask is bool [3, 5], and for that context it is bool [3, 4]",
        ),
    ],
)
def test_what_does_not_fit_is_named(cross, given, message):
    with pytest.raises(UserError, match=re.escape(message)):
        unchecked(flat(Transformer, **SMALL, cross=cross).init)(jax.random.key(0), X, **given)


def unchecked(function):
    return lambda *args, **kwargs: jax.eval_shape(lambda: function(*args, **kwargs))
