"""Attention by a kernel for TPUs, which never writes the logits to memory (after Dao et al. 2022, arXiv:2205.14135).

The kernels that jax ships (`pallas.ops.tpu`: flash and splash attention) take heads `[b, h, n, k]`, n in multiples of
128, and keep statistics of the softmax in fp32, 128 times over: of a head's 64 channels a TPU stores 128, so that at
the lengths of images these arrays are about as large as the logits that they save
(`tests.benchmarks.tpu_attention`). This kernel takes tokens as the layers around it have them, `[b, n, h * k]`, of any
length. It holds all keys of a head at once, so a softmax needs no second pass and keeps nothing: the backward pass
makes the weights again from queries and keys.

Heads narrower than a register (128 channels) are computed from the whole register with the other heads' channels
zeroed: the matrix unit would be as empty without these, and no channel has to be moved.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int8

from mmjax.errors import UserError
from mmjax.models.layers.attention import compiled_for
from mmjax.models.layers.parameters import partition

LANES = 128  # channels of a register
ROWS = 16  # rows of a register of 16-bit numbers
TILE = 3 * 2**19  # bytes of a tile of logits, of which the backward pass holds several in 16 MiB of fast memory
MOST_KEYS = 4_096  # all keys and values of a head, their gradients, and rows of logits are in fast memory at once


def attend_pallas(
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    value: Float[Array, "b h m k"],
    mask: Bool[Array, "b m"] | None = None,
    causal: bool = False,
    allowed: Bool[Array, "#b #n m"] | None = None,
    spare: int = 0,
) -> Float[Array, "b h n k"]:
    """`attend` by the kernel of this file, on TPUs. Each device of the mesh computes its own examples and heads.

    Raises:
        UserError: there is no TPU, or there are more than 4,096 keys.
    """
    if (platform := compiled_for()) != "tpu":
        raise UserError(f"attention='pallas' runs on a TPU, not on {platform!r}: set it to 'auto' or 'plain'")
    if key.shape[2] > MOST_KEYS:
        raise UserError(f"attention='pallas' takes {MOST_KEYS:,} keys at most, not {key.shape[2]:,}: set it to 'plain'")
    return attend_heads(query, key, value, mask, causal, allowed, spare)


def attend_heads(
    query: Float[Array, "b h n k"],
    key: Float[Array, "b h m k"],
    value: Float[Array, "b h m k"],
    mask: Bool[Array, "b m"] | None = None,
    causal: bool = False,
    allowed: Bool[Array, "#b #n m"] | None = None,
    spare: int = 0,
    interpret: bool = False,
) -> Float[Array, "b h n k"]:
    """`attend_pallas` wherever it runs. interpret: in jax's interpreter of kernels, for tests on a CPU."""
    if spare:
        key, value = key[:, :, :-spare], value[:, :, :-spare]
        mask, allowed = (None if each is None else each[..., :-spare] for each in (mask, allowed))
    batch, heads, queries, size = query.shape
    seen = None if mask is None else mask[:, None]
    if allowed is not None:
        seen = allowed if seen is None else allowed & seen
    mesh = jax.sharding.get_abstract_mesh()
    spec = None
    if mesh.size > 1 and not mesh.manual_axes:  # the compiler can't divide a kernel's work itself
        examples, _, over = partition((batch, queries, heads), "batch", None, "heads") or PartitionSpec(
            None, None, None
        )
        spec = PartitionSpec(examples, None, over)
    parts = 1 if spec is None else math.prod(mesh.shape[axis] for axis in jax.tree.leaves(spec[2]))
    wide = next((n for n in (8, 16, 32, 64) if n >= size), _up(size, LANES))  # a divisor or a multiple of a register
    cut = Tiling(queries, key.shape[2], wide, heads // parts * wide, size**-0.5, causal, allowed is not None, interpret)
    tokens = [_joined(x, wide) for x in (query, key, value)]
    attended: Array = _attend(cut, spec, *tokens, None if seen is None else seen.astype(jnp.int8))
    return jnp.moveaxis(attended.reshape(batch, queries, heads, wide)[..., :size], 1, 2)


def _joined(x: Float[Array, "b h n k"], wide: int) -> Float[Array, "b n d"]:
    """Heads beside each other in a token's channels, each filled up to `wide`."""
    x = jnp.pad(x, [(0, 0)] * 3 + [(0, wide - x.shape[3])])
    return jnp.moveaxis(x, 1, 2).reshape(len(x), x.shape[2], -1)


@dataclass(frozen=True)
class Tiling:
    """The way in which a kernel cuts its work: `block` queries, all keys and one register of channels at a time.

    size: channels of a head, a divisor or a multiple of 128. width: of all heads of a device. blind: whether a query
    that sees no key gives zeros, and not the mean of the values.
    """

    queries: int
    keys: int
    size: int
    width: int
    scale: float
    causal: bool
    blind: bool
    interpret: bool

    @property
    def columns(self) -> int:
        """The keys, in whole registers."""
        return _up(self.keys, LANES)

    @property
    def block(self) -> int:
        """The queries of a tile of logits."""
        most = max(ROWS, TILE // (4 * self.columns))
        return _up(math.ceil(self.queries / math.ceil(self.queries / most)), ROWS)

    @property
    def channels(self) -> int:
        """The channels that are computed at a time."""
        return max(LANES, self.size)

    def cost(self, examples: int, products: int, arrays: int, dtype: Any) -> pl.CostEstimate:
        """The cost of a kernel that has so many products of logits' size, and so many arrays in and out."""
        logits = examples * self.width // self.size * self.queries * self.keys
        tokens = (self.queries + self.keys) // 2
        return pl.CostEstimate(
            flops=2 * products * logits * self.size,
            transcendentals=logits,
            bytes_accessed=arrays * examples * tokens * self.width * jnp.dtype(dtype).itemsize,
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(
    cut: Tiling,
    spec: PartitionSpec | None,
    query: Float[Array, "b n d"],
    key: Float[Array, "b m d"],
    value: Float[Array, "b m d"],
    seen: Int8[Array, "#b #n m"] | None,
) -> Float[Array, "b n d"]:
    """Attention of joined heads. spec: of tokens over the mesh; None: they are on one device. seen: isn't 0 for the
    keys that a query attends to; None: all."""
    return _mapped(spec, functools.partial(_forward, cut), query, key, value, seen=seen)


def _attend_forward(cut: Tiling, spec: Any, query: Array, key: Array, value: Array, seen: Array | None) -> tuple:
    return _attend(cut, spec, query, key, value, seen), (query, key, value, seen)


def _attend_backward(cut: Tiling, spec: Any, kept: tuple, gradient: Array) -> tuple:
    *tokens, seen = kept
    return *_mapped(spec, functools.partial(_backward, cut), *tokens, gradient, seen=seen), None


_attend.defvjp(_attend_forward, _attend_backward)


def _mapped(spec: PartitionSpec | None, kernel: Callable[..., Any], *tokens: Array, seen: Array | None) -> Any:
    """Runs a kernel on each device's part. (Its derivative is its own, so nothing has to be said of variance.)"""
    if spec is None:
        return kernel(*tokens, seen)
    examples = PartitionSpec() if seen is None or len(seen) == 1 else PartitionSpec(spec[0])
    return jax.shard_map(kernel, in_specs=(*[spec] * len(tokens), examples), out_specs=spec, check_vma=False)(
        *tokens, seen
    )


def _forward(cut: Tiling, query: Array, key: Array, value: Array, seen: Array | None) -> Array:
    def kernel(*refs: Any) -> None:
        query, key, value, *seen, out = refs
        visible, lanes = _visible(cut, *seen), _lanes(cut)
        queries, keys, values = _read(cut, query, cut.queries), _read(cut, key, cut.keys), _read(cut, value, cut.keys)
        attended = jnp.zeros(queries.shape, jnp.float32)
        for mine in lanes:
            weights = _weights(cut, jnp.where(mine, queries, 0), keys, visible)
            attended = jnp.where(mine, _product(weights.astype(values.dtype), values, 1, 0), attended)
        out[0] = attended.astype(out.dtype)

    return _call(cut, kernel, "attention", (query, key, value), (), seen, (query,), products=2)[0]


def _backward(cut: Tiling, query: Array, key: Array, value: Array, gradient: Array, seen: Array | None) -> list[Array]:
    """Gradients of queries, keys and values."""

    def kernel(*refs: Any) -> None:
        query, key, value, gradient, *seen, of_query, of_key, of_value, key_sum, value_sum = refs
        visible, lanes = _visible(cut, *seen), _lanes(cut)
        queries, keys, values = _read(cut, query, cut.queries), _read(cut, key, cut.keys), _read(cut, value, cut.keys)
        gradients = _read(cut, gradient, cut.queries)

        @pl.when(pl.program_id(2) == 0)
        def _() -> None:
            key_sum[...], value_sum[...] = jnp.zeros_like(key_sum), jnp.zeros_like(value_sum)

        query_sum = jnp.zeros(queries.shape, jnp.float32)
        for mine in lanes:
            weights = _weights(cut, jnp.where(mine, queries, 0), keys, visible)
            of_weights = _product(jnp.where(mine, gradients, 0), values, 1, 1)
            of_logits = weights * (of_weights - (weights * of_weights).sum(axis=1, keepdims=True))
            of_logits = (of_logits if visible is None else jnp.where(visible, of_logits, 0)).astype(keys.dtype)
            value_sum[...] += jnp.where(mine, _product(weights.astype(values.dtype), gradients, 0, 0), 0)
            key_sum[...] += jnp.where(mine, _product(of_logits, queries, 0, 0), 0)
            query_sum = jnp.where(mine, _product(of_logits, keys, 1, 0), query_sum)
        of_query[0] = (query_sum * cut.scale).astype(of_query.dtype)

        @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
        def _() -> None:
            of_key[0] = (key_sum[...] * cut.scale).astype(of_key.dtype)
            of_value[0] = value_sum[...].astype(of_value.dtype)

    return _call(
        cut, kernel, "attention_backward", (query, key, value), (gradient,), seen, (query, key, value), products=5
    )


def _call(
    cut: Tiling,
    kernel: Callable[..., None],
    name: str,
    heads: tuple[Array, ...],
    more: tuple[Array, ...],
    seen: Array | None,
    out: tuple[Array, ...],
    products: int,
) -> list[Array]:
    """Runs a kernel for each example, register of channels and block of queries. It reads `heads` (queries, keys,
    values), `more` (as queries) and `seen`, and writes what is like `out`: queries, and maybe keys and values."""
    from jax.experimental.pallas import tpu  # imports what only a TPU needs

    examples = len(heads[0])
    of_queries = pl.BlockSpec((1, cut.block, cut.channels), lambda b, h, i: (b, i, h))
    of_keys = pl.BlockSpec((1, cut.columns, cut.channels), lambda b, h, i: (b, 0, h))
    specs = [of_queries, of_keys, of_keys] + [of_queries] * len(more)
    masks = () if seen is None else (seen,)
    specs += [_mask_spec(cut, mask) for mask in masks]
    sums = [tpu.VMEM((cut.columns, cut.channels), jnp.float32)] * (len(out) - 1)
    return pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out],
        grid_spec=pl.GridSpec(
            grid=(examples, pl.cdiv(cut.width, cut.channels), pl.cdiv(cut.queries, cut.block)),
            in_specs=specs,
            out_specs=[of_queries, of_keys, of_keys][: len(out)],
            scratch_shapes=sums,
        ),
        compiler_params=tpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=cut.cost(examples, products, len(heads) + len(more) + len(out), heads[0].dtype),
        interpret=cut.interpret,
        name=name,
    )(*heads, *more, *masks)


def _mask_spec(cut: Tiling, mask: Array) -> pl.BlockSpec:
    """The block of a mask `[b | 1, n | 1, m]`: of each example or of all, of each query or of all."""
    each, rows = len(mask) > 1, mask.shape[1] > 1
    return pl.BlockSpec(
        (1, cut.block if rows else 1, cut.columns), lambda b, h, i: (b if each else 0, i if rows else 0, 0)
    )


def _read(cut: Tiling, ref: Any, rows: int) -> Array:
    """A block `[rows, channels]`; zeros stand where it reaches beyond the array, whose memory may hold anything."""
    block = ref[0]
    first = pl.program_id(2) * cut.block if rows == cut.queries and len(block) == cut.block else 0
    if rows % len(block):
        block = jnp.where(first + _places(block.shape, 0) < rows, block, 0)
    if cut.width % cut.channels:
        channel = pl.program_id(1) * cut.channels + _places(block.shape, 1)
        block = jnp.where(channel < cut.width, block, 0)
    return block


def _lanes(cut: Tiling) -> list[Array]:
    """For each head of a register, which of its channels are that head's, `[1, channels]`."""
    channel = _places((1, cut.channels), 1)
    return [(channel >= first) & (channel < first + cut.size) for first in range(0, cut.channels, cut.size)]


def _visible(cut: Tiling, seen: Any = None) -> Array | None:
    """The keys that each query of the block attends to, `[block | 1, columns]`; None: all."""
    shape = (cut.block, cut.columns)
    found = None if seen is None else seen[0].astype(jnp.int32) != 0
    if cut.causal:
        before = pl.program_id(2) * cut.block + _places(shape, 0) >= _places(shape, 1)
        found = before if found is None else found & before
    return found


def _weights(cut: Tiling, query: Array, key: Array, visible: Array | None) -> Float[Array, "n m"]:
    """The softmax of the logits, in fp32."""
    logits = _product(query * cut.scale, key, 1, 1)
    if visible is not None:
        logits = jnp.where(visible, logits, jnp.finfo(logits.dtype).min)
    real = _places(logits.shape, 1) < cut.keys if cut.keys % LANES else None
    if real is not None:
        logits = jnp.where(real, logits, -jnp.inf)
    if cut.blind and visible is not None:
        real = visible if real is None else visible & real
    weights = jnp.exp(logits - logits.max(axis=1, keepdims=True))
    weights = weights if real is None else jnp.where(real, weights, 0)
    total = weights.sum(axis=1, keepdims=True)
    return weights / (jnp.maximum(total, 1e-30) if cut.blind else total)


def _product(left: Array, right: Array, left_axis: int, right_axis: int) -> Float[Array, "n m"]:
    return jax.lax.dot_general(
        left, right, (((left_axis,), (right_axis,)), ((), ())), preferred_element_type=jnp.float32
    )


def _places(shape: tuple[int, ...], axis: int) -> Array:
    """The place of each element along an axis."""
    return jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def _up(count: int, to: int) -> int:
    return -(-count // to) * to
