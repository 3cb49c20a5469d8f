"""K-means below all nodes of a level at once: starts by k-means++, and Lloyd's iterations (Lloyd 1982).

Every feature knows its parent, and is compared with the parent's children alone. Means are sums of whole numbers, of
which the order doesn't matter: features are whole multiples of a power of two of each dimension (exact but for numbers
2**6 times smaller than the largest), and their sums have three limbs of 15 digits. So a level is the same, to the bit,
on one device and on many, and however a device orders what it adds.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float32, Int32

from mmjax.inference.clustering.points import Points
from mmjax.runtime.mesh import BATCH_AXES

LIMB = 15  # binary digits
_DIGITS = 2**LIMB - 1  # those of a limb
_NONE = 2**31 - 1
ROWS, WHOLE = PartitionSpec(BATCH_AXES), PartitionSpec()


class Pass(NamedTuple):
    """The result of comparing all features with the children of their parents.

    child: the nearest, [n]. centroids, used: those of the next iteration, [parents, branching, D] and [parents,
    branching]. counts: of features by child. inertias: the sum of squared distances of every block. changed: features
    whose nearest child is another than before. moved: children that were empty and have moved.
    """

    child: Int32[Array, " n"]
    centroids: Float32[Array, "parents branching d"]
    counts: Int32[Array, "parents branching"]
    inertias: Float32[Array, " blocks"]
    changed: Int32[Array, ""]
    moved: Int32[Array, ""]


def first_centroids(
    points: Points, parents: Array, key: Any, count: int, branching: int
) -> tuple[Float32[Array, "count branching d"], Bool[Array, "count branching"]]:
    """Starts below each of `count` parents by k-means++ (Arthur and Vassilvitskii 2007): the first centroid is any of
    the parent's features, each next one a feature drawn by its squared distance to the nearest so far.

    Returns them with which are used: a parent with fewer different features has fewer children.
    """
    return _first_centroids(points.features, points.rows, parents, key, count, branching, points.block, points.mesh)


def iterate(
    points: Points, parents: Array, children: Array, centroids: Float32[Any, "p b d"], used: Bool[Any, "p b"]
) -> Pass:
    """Compares every feature with the used children of its parent; then moves each child to the mean of its features.

    A used child without features moves to the parent's feature that is farthest from its own child, if it is the first
    such child of its parent; others stay, until an iteration when they are the first.
    """
    # Powers of two, made by numpy: exact, whatever a device makes of an exponent.
    scales = np.ldexp(np.ones((2, 1), np.float32), np.stack([points.shifts, -points.shifts]))
    return _iterate(points.features, points.rows, parents, children, centroids, used, scales, points.block, points.mesh)


@partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _first_centroids(
    features: Array, rows: Array, parents: Array, key: Array, count: int, branching: int, block: int, mesh: Any
) -> tuple[Array, Array]:
    def local(features: Array, rows: Array, parents: Array, key: Array) -> tuple[Array, Array]:
        def add(place: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            nearest, centroids, used = state
            own = jax.random.fold_in(key, place)

            def drawn(rows: Array, nearest: Array) -> Array:
                """Of exponential times at rates `nearest` the earliest is that of each with a chance by its rate."""
                keys = jax.vmap(partial(jax.random.fold_in, own))(rows)
                times = jnp.log(jax.vmap(jax.random.exponential)(keys)) - jnp.log(nearest)
                return jnp.where((rows >= 0) & (nearest > 0), times, jnp.inf)

            times = _by_blocks(drawn, block, rows, nearest)
            found, chosen = _least(times, rows, parents, count)
            there = found < jnp.inf
            vectors = jnp.where(there[:, None], _looked_up(features, chosen), 0)

            def distance(features: Array, parents: Array) -> Array:
                return jnp.square(features - vectors[parents]).sum(axis=-1)

            distances = _by_blocks(distance, block, features, parents)
            distances = jnp.where(there[parents], distances, jnp.inf)
            nearest = jnp.where(place == 0, distances, jnp.minimum(nearest, distances))
            return nearest, centroids.at[:, place].set(vectors), used.at[:, place].set(there)

        nothing = jnp.zeros((count, branching, features.shape[1])), jnp.zeros((count, branching), bool)
        return jax.lax.fori_loop(0, branching, add, (jnp.ones(len(rows)), *nothing))[1:]

    return _over(mesh, local, (ROWS, ROWS, ROWS, WHOLE), (WHOLE, WHOLE))(features, rows, parents, key)


@partial(jax.jit, static_argnums=(7, 8))
def _iterate(
    features: Array,
    rows: Array,
    parents: Array,
    children: Array,
    centroids: Array,
    used: Array,
    scales: Array,
    block: int,
    mesh: Any,
) -> Pass:
    count, branching, width = centroids.shape
    nodes, often = count * branching, 2**LIMB // block  # blocks whose sums two limbs hold

    def local(
        features: Array, rows: Array, parents: Array, before: Array, centroids: Array, used: Array, scales: Array
    ) -> Pass:
        def compared(state: tuple[Array, ...], place_and_rows: Any) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            limbs, counts = state
            place, (features, rows, parents) = place_and_rows
            distances = jnp.square(features[:, None] - centroids[parents]).sum(axis=-1)
            distances = jnp.where(used[parents], distances, jnp.inf)
            child = distances.argmin(axis=-1).astype(jnp.int32)
            real, least = rows >= 0, distances.min(axis=-1)
            into = jnp.where(real, parents * branching + child, nodes)  # padding goes nowhere
            whole = jnp.round(features * scales[0]).astype(jnp.int32)
            limbs = limbs.at[0, into].add(whole & _DIGITS, mode="drop").at[1, into].add(whole >> LIMB, mode="drop")
            limbs = jax.lax.cond(place % often == often - 1, _carried, lambda limbs: limbs, limbs)
            counts = counts.at[into].add(1, mode="drop")
            return (limbs, counts), (child, least, jnp.where(real, least, 0).sum())

        blocks = _cut(block, features, rows, parents)
        start = jnp.zeros((3, nodes, width), jnp.int32), jnp.zeros(nodes, jnp.int32)
        numbered = jnp.arange(len(rows) // block), blocks
        (limbs, counts), (child, least, inertias) = jax.lax.scan(compared, start, numbered)
        child, least = child.reshape(-1), least.reshape(-1)
        limbs = _carried(jax.lax.psum(_carried(limbs), BATCH_AXES))
        counts = jax.lax.psum(counts, BATCH_AXES).reshape(count, branching)
        changed = jax.lax.psum(((child != before) & (rows >= 0)).sum(dtype=jnp.int32), BATCH_AXES)
        moved, at, vectors = _moves(features, least, rows, parents, used & (counts == 0))
        means = (_means(limbs, counts.reshape(-1, 1)) * scales[1]).reshape(centroids.shape)
        means = jnp.where((counts > 0)[..., None], means, centroids)
        means = means.at[jnp.arange(count), at].set(jnp.where(moved[:, None], vectors, means[jnp.arange(count), at]))
        inertias = jax.lax.all_gather(inertias, BATCH_AXES, tiled=True)
        return Pass(child, means, counts, inertias, changed, moved.sum(dtype=jnp.int32))

    specs = (ROWS, ROWS, ROWS, ROWS, WHOLE, WHOLE, WHOLE)
    results: Any = (ROWS, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE)
    over = _over(mesh, local, specs, Pass(*results))
    return over(features, rows, parents, children, centroids, used, scales)


def _moves(features: Array, least: Array, rows: Array, parents: Array, empty: Array) -> tuple[Array, Array, Array]:
    """For each parent whether its first empty child moves, which child that is, and where it moves to."""
    distances, farthest = _least(jnp.where(rows >= 0, -least, jnp.inf), rows, parents, len(empty))
    return empty.any(axis=1) & (distances < 0), empty.argmax(axis=1), _looked_up(features, farthest)


def _least(scores: Array, rows: Array, parents: Array, count: int) -> tuple[Array, Array]:
    """The least score below each parent, over all devices, and the first row that has it; infinity and any where there
    is none."""
    found = jax.lax.pmin(jax.ops.segment_min(scores, parents, count), BATCH_AXES)
    theirs = jnp.where((scores == found[parents]) & (rows >= 0), rows, _NONE)
    return found, jax.lax.pmin(jax.ops.segment_min(theirs, parents, count), BATCH_AXES)


def _looked_up(features: Array, rows: Array) -> Array:
    """The features of these rows, wherever they lie; zeros for a row that there isn't."""
    places = rows - jax.lax.axis_index(BATCH_AXES) * len(features)
    here = (places >= 0) & (places < len(features))
    mine = jnp.where(here[:, None], features[jnp.where(here, places, 0)], 0)
    return jax.lax.psum(mine, BATCH_AXES)


def _carried(limbs: Int32[Array, "3 nodes d"]) -> Int32[Array, "3 nodes d"]:
    """The same sums, with `LIMB` digits in each limb but the last."""
    low, middle, high = limbs
    middle = middle + (low >> LIMB)
    return jnp.stack([low & _DIGITS, middle & _DIGITS, high + (middle >> LIMB)])


def _means(limbs: Array, counts: Array) -> Array:
    low, middle, high = limbs.astype(jnp.float32)
    sums = (high * 2.0 ** (2 * LIMB) + middle * 2.0**LIMB) + low  # small sums, the last two limbs, are exact
    return sums / jnp.maximum(counts, 1)


def _cut(block: int, *arrays: Array) -> tuple[Array, ...]:
    return tuple(array.reshape(-1, block, *array.shape[1:]) for array in arrays)


def _by_blocks(function: Callable[..., Array], block: int, *arrays: Array) -> Array:
    return jax.lax.map(lambda part: function(*part), _cut(block, *arrays)).reshape(-1)


def _over(mesh: Any, function: Any, inputs: Any, outputs: Any) -> Any:
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)
