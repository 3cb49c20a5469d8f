"""Computes contrastive losses without the logit matrix: by tiles on one device, round a ring of devices on a mesh.

Each device keeps its rows; the columns travel, a chunk at a time, from device to device until every row has been
compared with them and they are back on their own device. Each row and column keeps eight numbers (`Met`); no tile of
logits outlives its loop step, and the backward pass recomputes it, so that the memory is that of a tile and not that of
the logit matrix. Values and gradients are those of the dense losses in `contrastive.objective`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from mmjax.errors import UserError
from mmjax.objectives.contrastive.tile import Met, Pull, Rows, Tile, merge, nothing_met, product
from mmjax.objectives.numerics import at_least_fp32

RING_AXES = ("data", "fsdp")  # the axes of the mesh that cut the batch: `mmjax.runtime.mesh.BATCH_AXES`
TILE = 512  # rows and columns of a tile: beyond it a CPU gains no time, and a TPU takes more memory


@dataclasses.dataclass(frozen=True)
class RingPlan:
    """The way to iterate over the pairs. `axes`: of the mesh, that the rows are cut over; `parts`: their number of
    parts.
    """

    loss: Literal["softmax", "sigmoid"]
    label_smoothing: float
    tile: int
    axes: tuple[str, ...] = ()
    parts: int = 1
    direction: Literal["both", "forward", "backward"] = "both"


def mesh_parts() -> tuple[tuple[str, ...], int]:
    """The axes of the mesh in use (`jax.set_mesh`) that cut the batch, and the number of parts."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in RING_AXES if mesh.shape.get(axis, 1) > 1)
    return axes, math.prod(mesh.shape[axis] for axis in axes)


def ring_loss(
    a: Rows,
    b: Rows,
    scale: Float[Array, ""],
    bias: Float[Array, ""] | None = None,
    *,
    label_smoothing: float = 0.0,
    tile: int | None = None,
    direction: Literal["both", "forward", "backward"] = "both",
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Computes `objective.softmax_loss` (bias=None) or `objective.sigmoid_loss`, in the memory of a tile.

    Under `jax.set_mesh` the rows of both sides lie over `data` and `fsdp`, and the columns go round the ring.

    Args:
        a, b: the two sides; their numbers of rows may differ.
        scale: the logits' scale s (not its logarithm). bias: added to the logits, sigmoid only.
        label_smoothing: softmax only; the part of the target spread evenly over all candidates.
        tile: rows and columns of a tile, at most the rows that a device holds; None: 512, or half of those rows if
            that is less.
        direction: softmax only; which of the two cross-entropies the loss is.

    Raises:
        UserError: rows that don't divide over the mesh; a tile below 1 or larger than a device's part of the rows;
            rows that lie on several devices where no mesh is set.
    """
    axes, parts = mesh_parts()
    rows = [len(side.valid) for side in (a, b)]
    for n in rows:
        if n % parts:
            raise UserError(f"a contrastive loss of {n} rows on a mesh whose {' and '.join(axes)} cut them in {parts}: "
                            f"{n // parts * parts} or {(n // parts + 1) * parts} rows would do")  # fmt: skip
    if tile is not None and not 1 <= tile <= min(rows) // parts:
        raise UserError(
            f"tile={tile}: a tile is at least 1 and at most {min(rows) // parts}, the rows of a device "
            f"({min(rows)} in {parts}); leave it out for the default"
        )
    if parts == 1:
        check_whole(a.vectors, b.vectors)
    vectors = at_least_fp32(a.vectors), at_least_fp32(b.vectors)
    loss = "softmax" if bias is None else "sigmoid"
    tile = tile or max(1, min(TILE, min(rows) // parts // 2))
    plan = RingPlan(loss, label_smoothing, tile, axes, parts, direction)
    scale = jnp.asarray(scale, vectors[0].dtype)
    bias = jnp.zeros_like(scale) if bias is None else jnp.asarray(bias, scale.dtype)
    return _loss(plan, a._replace(vectors=vectors[0]), b._replace(vectors=vectors[1]), scale, bias)


def check_whole(*vectors: Float[Array, "n e"]) -> None:
    """Raises UserError where rows are cut over devices without a mesh set: each device would have to gather all of
    them.
    """
    for x in vectors:
        traced = isinstance(x, Tracer)
        sharding: Any = jax.typeof(x).sharding if traced else getattr(x, "sharding", None)
        if not isinstance(sharding, NamedSharding) or sharding.mesh.empty:
            continue
        # On an Auto mesh a traced array's type has the mesh, but not how the array is cut over it.
        cut = RING_AXES if traced else jax.tree.leaves(tuple(sharding.spec[:1]))
        if math.prod(sharding.mesh.shape.get(axis, 1) for axis in cut) > 1:
            raise UserError(
                f"a contrastive loss of embeddings on a mesh of {dict(sharding.mesh.shape)}, but no mesh is set: "
                "call it within `with jax.set_mesh(mesh):`"
            )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(plan: RingPlan, a: Rows, b: Rows, scale: Array, bias: Array) -> tuple[Array, dict[str, Array]]:
    return _loss_forward(plan, a, b, scale, bias)[0]


def _loss_forward(plan: RingPlan, a: Rows, b: Rows, scale: Array, bias: Array) -> Any:
    forward = _over_mesh(plan, functools.partial(_forward, plan), (True, True, False, False), (False, True, True))
    out, a_met, b_met = forward(a, b, scale, bias)
    return out, (a, b, scale, bias, a_met, b_met)


def _loss_backward(plan: RingPlan, residuals: Any, gradient: Any) -> Any:
    backward = _over_mesh(
        plan, functools.partial(_backward, plan), (True, True, False, False, True, True, False), (True, True, False)
    )
    a, b, scale, bias, a_met, b_met = residuals
    a_vectors, b_vectors, (of_scale, of_bias) = backward(a, b, scale, bias, a_met, b_met, gradient[0])
    return Rows(a_vectors, None, None), Rows(b_vectors, None, None), of_scale, of_bias  # type: ignore[arg-type]


_loss.defvjp(_loss_forward, _loss_backward)


def _over_mesh(
    plan: RingPlan, function: Callable[..., Any], inputs: tuple[bool, ...], outputs: tuple[bool, ...]
) -> Any:
    """Maps `function` over each device's part; the flags say which arguments and results are cut by rows
    (else whole).
    """
    if not plan.axes:
        return function
    specs = [PartitionSpec(plan.axes) if cut else PartitionSpec() for cut in inputs + outputs]
    return jax.shard_map(function, in_specs=tuple(specs[: len(inputs)]), out_specs=tuple(specs[len(inputs) :]))


def _forward(plan: RingPlan, a: Rows, b: Rows, scale: Array, bias: Array) -> tuple[tuple[Array, dict], Met, Met]:
    """The loss with its metrics, and the statistics of rows and columns."""
    dtype = a.vectors.dtype

    def meet(pair: Tile, a_met: Met, b_met: Met) -> tuple[Met, Met]:
        return merge(a_met, pair.met(plan.loss, 1)), merge(b_met, pair.met(plan.loss, 0))

    def chunk(start: Array, fresh: Array, a_met: Met, b_met: Met) -> tuple[Met, Met]:
        columns = _part(b, start, fresh)

        def hop(_: Any, carry: Any) -> Any:
            columns, column_met, a_met = carry

            def row_tile(i: Array, carry: Any) -> Any:
                column_met, a_met = carry
                at, new = _span(i, len(a.valid), plan.tile)
                pair = Tile(_part(a, at, new), columns, scale, bias)
                met, column_met = meet(pair, _take(a_met, at, len(new)), column_met)
                return column_met, _write(a_met, met, at)

            column_met, a_met = lax.fori_loop(0, _count(len(a.valid), plan.tile), row_tile, (column_met, a_met))
            columns, column_met = _onward(plan, (columns, column_met))
            return columns, column_met, a_met

        carry = columns, _take(b_met, start, len(fresh)), a_met
        _, column_met, a_met = lax.fori_loop(0, plan.parts, hop, carry)
        return a_met, _write(b_met, column_met, start)

    def column_chunk(k: Array, carry: Any) -> Any:
        return chunk(*_span(k, len(b.valid), plan.tile), *carry)

    start = tuple(_varying(plan, nothing_met(len(side.valid), dtype)) for side in (a, b))
    a_met, b_met = lax.fori_loop(0, _count(len(b.valid), plan.tile), column_chunk, start)
    return _value(plan, a, b, a_met, b_met), a_met, b_met


def _backward(
    plan: RingPlan, a: Rows, b: Rows, scale: Array, bias: Array, a_met: Met, b_met: Met, gradient: Array
) -> tuple[Array, Array, tuple[Array, Array]]:
    """The gradients of a's and b's vectors, and of the scale and the bias."""
    a_pull, b_pull = _pulls(plan, a, b, a_met, b_met, gradient)
    zeros = lambda like: _varying(plan, jnp.zeros(like.shape, like.dtype))  # noqa: E731

    def column_chunk(k: Array, carry: Any) -> Any:
        of_a, of_b, of_both = carry
        start, fresh = _span(k, len(b.valid), plan.tile)
        columns, pull = _part(b, start, fresh), _take(b_pull, start, len(fresh))

        def hop(_: Any, carry: Any) -> Any:
            columns, pull, of_columns, of_a, of_both = carry

            def row_tile(i: Array, carry: Any) -> Any:
                of_columns, of_a, of_both = carry
                at, new = _span(i, len(a.valid), plan.tile)
                rows = _part(a, at, new)
                of_logits = Tile(rows, columns, scale, bias).gradient(plan.loss, _take(a_pull, at, len(new)), pull)
                of_rows = product("ij,je->ie", of_logits, columns.vectors)
                of_a = _write(of_a, _take(of_a, at, len(new)) + scale * of_rows, at)
                of_columns += scale * product("ij,ie->je", of_logits, rows.vectors)
                # d loss/d s = sum_ij g_ij a_i.b_j, from the vectors: cheaper than another pass over the tile
                of_both = of_both[0] + jnp.sum(rows.vectors * of_rows), of_both[1] + of_logits.sum()
                return of_columns, of_a, of_both

            inner = of_columns, of_a, of_both
            inner = lax.fori_loop(0, _count(len(a.valid), plan.tile), row_tile, inner)
            of_columns, of_a, of_both = inner
            columns, pull, of_columns = _onward(plan, (columns, pull, of_columns))
            return columns, pull, of_columns, of_a, of_both

        carry = columns, pull, zeros(columns.vectors), of_a, of_both
        _, _, of_columns, of_a, of_both = lax.fori_loop(0, plan.parts, hop, carry)
        return of_a, _write(of_b, _take(of_b, start, len(fresh)) + of_columns, start), of_both

    carry = zeros(a.vectors), zeros(b.vectors), (zeros(scale), zeros(bias))
    of_a, of_b, of_both = lax.fori_loop(0, _count(len(b.valid), plan.tile), column_chunk, carry)
    return of_a, of_b, _sum(of_both, plan)


def _pulls(plan: RingPlan, a: Rows, b: Rows, a_met: Met, b_met: Met, gradient: Array) -> tuple[Pull, Pull]:
    if plan.loss == "sigmoid":
        weight = gradient / jnp.maximum(_sum(a_met.partners.sum(), plan), 1)
        weight = jnp.where(_sum(a_met.partners.sum(), plan) > 0, weight, 0)
        return tuple(Pull(jnp.full_like(met.top, 1) * weight, *[jnp.zeros_like(met.top)] * 3)
                     for met in (a_met, b_met))  # type: ignore[return-value] # fmt: skip

    directions = 2 if plan.direction == "both" else 1

    def pull(met: Met, candidates: Rows, direction: str) -> Pull:
        asks = met.partners > 0
        weight = asks * gradient / (directions * jnp.maximum(_sum(asks.sum(), plan), 1))
        weight = weight if plan.direction in ("both", direction) else jnp.zeros_like(weight)
        target = (1 - plan.label_smoothing) * weight / jnp.maximum(met.partners, 1)
        evenly = plan.label_smoothing * weight / jnp.maximum(_sum(candidates.valid.sum(), plan), 1)
        return Pull(weight, met.normaliser, target, evenly)

    return pull(a_met, b, "forward"), pull(b_met, a, "backward")


def _value(plan: RingPlan, a: Rows, b: Rows, a_met: Met, b_met: Met) -> tuple[Array, dict[str, Array]]:
    """The loss and its metrics, from the statistics of rows and columns."""
    n_a, n_b, pairs = _sum(tuple(x.astype(a_met.top.dtype).sum() for x in (a.valid, b.valid, a_met.partners)), plan)

    def hits(met: Met) -> Array:
        asks = met.partners > 0
        hit, count = _sum((jnp.sum(asks & (met.top_positive > met.top_negative)), asks.sum()), plan)
        return hit / jnp.maximum(count, 1)

    def cross_entropy(met: Met, candidates: Array) -> Array:
        asks = met.partners > 0
        evenly = (met.positives + met.negatives) / jnp.maximum(candidates, 1)
        target = (1 - plan.label_smoothing) * met.positives / jnp.maximum(met.partners, 1)
        each = met.normaliser - target - plan.label_smoothing * evenly
        total, count = _sum((jnp.sum(jnp.where(asks, each, 0)), asks.sum()), plan)
        return total / jnp.maximum(count, 1)

    positives, negatives = _sum((a_met.positives.sum(), a_met.negatives.sum()), plan)
    metrics = {
        "accuracy": (hits(a_met) + hits(b_met)) / 2,
        "positive_logit": positives / jnp.maximum(pairs, 1),
        "negative_logit": negatives / jnp.maximum(n_a * n_b - pairs, 1),
    }
    if plan.loss == "sigmoid":
        losses = _sum(a_met.positive_losses.sum() + a_met.negative_losses.sum(), plan)
        return jnp.where(pairs > 0, losses / jnp.maximum(pairs, 1), 0), metrics
    forward, backward = cross_entropy(a_met, n_b), cross_entropy(b_met, n_a)
    losses = {"both": (forward + backward) / 2, "forward": forward, "backward": backward}
    return losses[plan.direction], metrics | {"loss_forward": forward, "loss_backward": backward}


def _count(n: int, tile: int) -> int:
    return -(-n // min(tile, n))


def _span(i: Array, n: int, tile: int) -> tuple[Array, Bool[Array, " t"]]:
    """The start of tile i of n rows, and a mask of the rows that are its own. The last tile is moved back to lie within
    the rows, over some of its neighbour's: padding would copy everything.
    """
    tile = min(tile, n)
    start = jnp.minimum(i * tile, n - tile)
    return start, start + jnp.arange(tile) >= i * tile


def _part(side: Rows, start: Array, fresh: Bool[Array, " t"]) -> Rows:
    vectors, valid, group = _take(side, start, len(fresh))
    valid = valid & fresh
    return Rows(jnp.where(valid[:, None], vectors, 0), valid, group)


def _take(tree: Any, start: Array, size: int) -> Any:
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size), tree)


def _write(tree: Any, part: Any, start: Array) -> Any:
    return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, 0), tree, part)


def _onward(plan: RingPlan, tree: Any) -> Any:
    """Sends a tree to the next device of the ring."""
    if not plan.axes:
        return tree
    ring = [(i, (i + 1) % plan.parts) for i in range(plan.parts)]
    return jax.tree.map(lambda x: lax.ppermute(x, plan.axes, ring), tree)


def _sum(tree: Any, plan: RingPlan) -> Any:
    return lax.psum(tree, plan.axes) if plan.axes else tree


def _varying(plan: RingPlan, tree: Any) -> Any:
    """Marks values that are equal on all devices as different on each, as a loop's carry must be."""
    return jax.tree.map(lambda x: lax.pcast(x, plan.axes, to="varying"), tree) if plan.axes else tree
