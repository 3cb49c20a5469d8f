"""Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762) of heads: plain, and by cuDNN's kernel."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError


def attend(
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    value: Float[Array, "b h m k"],
    mask: Bool[Array, "b m"] | None = None,
    causal: bool = False,
    allowed: Bool[Array, "#b #n m"] | None = None,
    spare: int = 0,
    bias: Float[Array, "h n m"] | None = None,
) -> Float[Array, "b h n k"]:
    """Scaled dot-product attention over the keys that `mask` allows; logits and softmax in fp32.

    `allowed`: the keys that each query may attend to, such as `masks.prefix_causal`; `mask` and `causal` must allow
    them too. A query that `mask` and `causal` leave no key gives the mean of the values; where `allowed` is given, a
    query without a key gives zeros, and no value gets a gradient from it. `spare`: the number of keys at the end that
    are padding in every example. `bias`: of each head, added to the logits.

    Heads stand before positions, so that both products are plain batched matmuls: on a CPU this is a third faster than
    `jax.nn.dot_product_attention`, on [256, 33, 4, 32].
    """
    weights, seen = _weights(query, key, mask, causal, allowed, spare, bias)
    attended = jnp.einsum("bhnm,bhmk->bhnk", weights.astype(value.dtype), value)
    return attended if allowed is None else _zero_where_blind(attended, seen)


def attention_weights(
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    mask: Bool[Array, "b m"] | None = None,
    causal: bool = False,
    allowed: Bool[Array, "#b #n m"] | None = None,
    spare: int = 0,
    bias: Float[Array, "h n m"] | None = None,
) -> Float[Array, "b h n m"]:
    """The weights, float32, by which `attend` takes the mean of the values; zeros where it gives zeros."""
    weights, seen = _weights(query, key, mask, causal, allowed, spare, bias)
    return weights if allowed is None else _zero_where_blind(weights, seen)


def _weights(
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    mask: Bool[Array, "b m"] | None,
    causal: bool,
    allowed: Bool[Array, "#b #n m"] | None,
    spare: int,
    bias: Float[Array, "h n m"] | None,
) -> tuple[Float[Array, "b h n m"], Any]:
    """The softmax of the logits, and the keys that each query sees (`_seen`)."""
    logits = jnp.einsum("bhnk,bhmk->bhnm", query * query.shape[-1] ** -0.5, key, preferred_element_type=jnp.float32)
    logits = logits if bias is None else logits + bias.astype(logits.dtype)
    seen = _seen(mask, causal, allowed, query.shape[2], key.shape[2], spare)
    if seen is not None:
        logits = jnp.where(seen, logits, jnp.finfo(logits.dtype).min)
    return jax.nn.softmax(logits, axis=-1), seen


def attend_fused(
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    value: Float[Array, "b h m k"],
    mask: Bool[Array, "b m"] | None = None,
    causal: bool = False,
    allowed: Bool[Array, "#b #n m"] | None = None,
    spare: int = 0,
) -> Float[Array, "b h n k"]:
    """`attend` by cuDNN's fused kernel (Dao et al. 2022, arXiv:2205.14135), which never holds the logits: for 16-bit
    towers on an NVIDIA GPU.

    Raises:
        UserError: there is no such GPU, or numbers of 32 bits.
    """
    if (platform := compiled_for()) != "gpu":
        raise UserError(f"attention='cudnn' runs on an NVIDIA GPU, not on {platform!r}: set it to 'auto' or 'plain'")
    if query.dtype.itemsize != 2:
        raise UserError(f"attention='cudnn' computes in 16 bits, not in dtype={query.dtype.name!r}: set either")
    positions, keys = query.shape[2], key.shape[2]
    query, key, value = (jnp.moveaxis(_even(x, axis=2), 1, 2) for x in (query, key, value))
    options: dict[str, Any] = {}
    whole = (len(key), 1, query.shape[1], key.shape[1])  # the kernel wants a mask for each query
    if allowed is not None:
        seen = jnp.broadcast_to(_seen(mask, False, allowed, positions, keys, spare), (len(key), 1, positions, keys))
        options["mask"] = _even(_even(seen, axis=3), axis=2)
    elif mask is not None:
        options["mask"] = jnp.broadcast_to(_even(_seen(mask, False, None, positions, keys, spare), axis=3), whole)
    elif keys % 2 or spare:
        options["key_value_seq_lengths"] = jnp.full(len(key), keys - spare, jnp.int32)
    fused = jax.nn.dot_product_attention(query, key, value, is_causal=causal, implementation="cudnn", **options)
    attended = jnp.moveaxis(fused[:, :positions], 1, 2)
    if allowed is None:
        return attended
    return _zero_where_blind(attended, _seen(mask, causal, allowed, positions, keys, spare))


def compiled_for() -> str:
    """The platform of what is being traced, `cpu`, `gpu` or `tpu`: that of the mesh that is set (its devices need not
    be there), or else of this process's own devices."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def _seen(
    mask: Bool[Array, "b m"] | None,
    causal: bool,
    allowed: Bool[Array, "#b #n m"] | None,
    positions: int,
    keys: int,
    spare: int,
) -> Any:
    """A mask of the keys that each query attends to, `[b|1, 1, n|1, m]` or `[n, m]`; None: all."""
    seen = None if mask is None else mask[:, None, None, :]
    if spare:
        real = (jnp.arange(keys) < keys - spare)[None, None, None, :]
        seen = real if seen is None else seen & real
    if causal:
        before = jnp.tril(jnp.ones((positions, keys), bool))
        seen = before if seen is None else seen & before
    if allowed is not None:
        seen = allowed[:, None] if seen is None else seen & allowed[:, None]
    return seen


def _zero_where_blind(attended: Float[Array, "b h n k"], seen: Array | None) -> Float[Array, "b h n k"]:
    """Zeros for the queries that see no key."""
    return attended if seen is None else jnp.where(seen.any(axis=-1, keepdims=True), attended, 0)


def _even(x: Array, axis: int) -> Array:
    """Pads an odd number of positions with one of zeros, for which jax has no gradient of the kernel."""
    if x.shape[axis] % 2 == 0:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, 1)
    return jnp.pad(x, widths)
