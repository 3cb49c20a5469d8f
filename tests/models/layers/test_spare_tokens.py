"""Blocks that run with a token of padding more, where their attention wants an even length."""

from collections.abc import Iterator

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo  # no public name has the check of a version

from mmjax.models.layers import rotary, transformer
from mmjax.models.layers.blocks import Blocks
from mmjax.models.layers.masks import prefix_causal
from mmjax.models.layers.transformer import Transformer
from mmjax.train.plan.flops import _jaxprs
from tests.models import oracle
from tests.models.layers.test_attention import of_one

ATTENDS = "dot_product_attention_fwd"


@pytest.mark.parametrize("how", ["all", "masked, rotary, causal, allowed"])
def test_a_token_of_padding_more_changes_nothing(monkeypatch, how):
    """Where a kernel wants an even length, blocks run with such a token: values and gradients are those without it."""
    model = Transformer(Blocks(width=16, depth=2, heads=2, mlp_dim=24), causal="causal" in how)
    x = jax.random.normal(jax.random.key(1), (2, 5, 16))
    params = oracle.params_of(model, x)
    mask = jnp.array([[True] * 5, [True, True, False, True, False]]) if "masked" in how else None
    allowed = prefix_causal(5, jnp.array([2, 4])) if "allowed" in how else None
    angles = rotary.angles(np.arange(5.0, dtype=np.float32)[:, None], 8) if "rotary" in how else None
    weight = jnp.asarray(np.random.default_rng(3).standard_normal(x.shape), jnp.float32)
    weight = weight if mask is None else weight * mask[..., None]

    def run():
        def of(params, x):
            y = model.apply(params, x, mask, angles=angles, allowed=allowed)
            return jnp.sum(jnp.asarray(y) * weight), y

        (_, y), gradients = jax.jit(jax.value_and_grad(of, (0, 1), has_aux=True))(params, x)
        return (y if mask is None else y * mask[..., None]), gradients

    without = run()
    monkeypatch.setattr(transformer, "spare_tokens", lambda attention, length, size, dtype: length % 2)
    lengthened = run()
    for got, want in zip(jax.tree.leaves(lengthened), jax.tree.leaves(without), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * max(1.0, float(jnp.abs(want).max())))


def test_blocks_with_fused_attention_have_an_even_length(monkeypatch):
    """So nothing is padded within them; and of what fused attention gives, `dots` computes nothing again."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
    blocks = Blocks(width=64, depth=2, heads=1, remat="dots", dtype="bfloat16", attention="cudnn")
    model, x = Transformer(blocks), jax.ShapeDtypeStruct((2, 5, 64), jnp.bfloat16)
    with jax.sharding.use_abstract_mesh(of_one("gpu")):
        params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)
        loss = lambda params, x: jnp.sum(jnp.asarray(model.apply(params, x)).astype(jnp.float32))  # noqa: E731
        traced = jax.make_jaxpr(jax.grad(loss))(params, x)
    (forward,) = [each for each in primitives(traced.jaxpr) if each.primitive.name.startswith(ATTENDS)]
    assert forward.invars[0].aval.str_short() == "bfloat16[2,6,1,64]"
    loops = [each.params["jaxpr"].jaxpr for each in primitives(traced.jaxpr) if each.primitive.name == "scan"]
    forwards, backwards = ({each.primitive.name for each in primitives(loop)} for loop in loops)
    assert any(name.startswith("dot_product_attention_bwd") for name in backwards)
    assert "pad" not in forwards


def primitives(jaxpr: jax.extend.core.Jaxpr) -> Iterator[jax.extend.core.JaxprEqn]:
    """The operations of a function that is traced, and of those that it calls."""
    for each in jaxpr.eqns:
        yield each
        for inner in _jaxprs(each.params):
            yield from primitives(getattr(inner, "jaxpr", inner))
