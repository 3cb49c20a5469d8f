"""The towers' arithmetic once more, in plain numpy float64, one example at a time."""

import math
from functools import partial

import jax
import numpy as np
from flax.core import meta

erf = np.vectorize(math.erf)
ACTIVATIONS = {
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def params_of(module, *args, seed=0):
    """Random variables of the shapes that `init` would give, nothing zero or one, without compiling anything."""
    shapes = jax.eval_shape(lambda: meta.unbox(module.init(jax.random.key(seed), *args)))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        offset = 1.0 if path[-1].key == "scale" else 0.0
        return np.float32(offset + 0.2 * rng.standard_normal(leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, shapes)


@partial(jax.jit, static_argnames=("module", "method", "train", "mutable"))
def applied(module, params, *args, method="__call__", **kwargs):
    """`module.apply`, compiled."""
    return module.apply(params, *args, method=method, **kwargs)


def apply(*args, **kwargs):
    """`applied`, as numpy arrays: what is done with arrays of jax one by one is compiled one by one."""
    return jax.tree.map(np.asarray, applied(*args, **kwargs))


def as64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def layer_norm(p, x, eps=1e-6):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["scale"] + p["bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def heads_in(p, x, part):
    """`[n d]` -> `[h n k]`."""
    return np.einsum("nd,dhk->hnk", x, p["kernel"][:, :, part]) + p["bias"][:, part][:, None]


def attend(q, k, v, out, allowed):
    """`allowed` `[n, m]`: whether position n may look at position m."""
    logits = np.einsum("hnk,hmk->hnm", q, k) / np.sqrt(q.shape[-1])
    weights = softmax(np.where(allowed, logits, -1e30))
    return np.einsum("hnm,hmk,hkd->nd", weights, v, out["kernel"]) + out["bias"]


def mlp(p, x, activation):
    return dense(p["out"], ACTIVATIONS[activation](dense(p["in"], x)))


def block(p, x, allowed, activation="gelu"):
    a, normed = p["attention"], layer_norm(p["norm_attention"], x)
    q, k, v = (heads_in(a["qkv"], normed, part) for part in range(3))
    scales = [p[name]["scale"] if name in p else 1.0 for name in ("scale_attention", "scale_mlp")]
    x = x + scales[0] * attend(q, k, v, a["out"], allowed)
    return x + scales[1] * mlp(p["mlp"], layer_norm(p["norm_mlp"], x), activation)


def transformer(p, x, allowed: np.ndarray | bool = True, activation="gelu"):
    allowed = np.broadcast_to(allowed, (len(x), len(x)))
    for i in range(len(p["blocks"]["norm_mlp"]["scale"])):
        x = block(jax.tree.map(lambda leaf, i=i: leaf[i], p["blocks"]), x, allowed, activation)
    return layer_norm(p["norm"], x) if "norm" in p else x


def attention_pool(p, tokens, activation="gelu"):
    q = heads_in(p["attention"]["query"], p["probe"][None], 0)
    k, v = (heads_in(p["attention"]["key_value"], tokens, part) for part in range(2))
    x = attend(q, k, v, p["attention"]["out"], np.ones((1, len(tokens)), bool))
    return (x + mlp(p["mlp"], layer_norm(p["norm"], x), activation))[0]
