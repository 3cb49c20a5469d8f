"""Hierarchical k-means: a tree of centroids, level by level, each fitted to the features of its parents."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax import __version__
from mmjax.data.tokenizers.word_tree import (
    ENDING,
    LARGEST_TREE,
    CentroidTree,
    Level,
    check_shape,
    tree_bytes,
    tree_of,
)
from mmjax.errors import UserError
from mmjax.inference.clustering.lloyd import first_centroids, iterate
from mmjax.inference.clustering.points import Facts, Points, check_finite, look_through, place
from mmjax.runtime import hosts
from mmjax.runtime.files import output, regular
from mmjax.runtime.mesh import Mesh

ITERATIONS = 100

Told = Callable[[int, int, float], None]


def fit_tree(
    features: Any,
    *,
    branching: int = 12,
    depth: int = 4,
    seed: int = 0,
    iterations: int = ITERATIONS,
    out: str | Path | None = None,
    leave_out: bool = False,
    mesh: jax.sharding.Mesh | None = None,
    told: Told = lambda level, iteration, inertia: None,
) -> CentroidTree:
    """Fits a tree of branching**depth leaves to features float `[N, D]`, an array or one that is mapped from a file.

    All nodes of a level are fitted at once, each to the features of its parent, from starts by k-means++, until no
    feature changes its node or after so many iterations. The children of a node with fewer different features are
    fewer. Features are read in pieces and lie in float32 over the mesh's `data` and `fsdp`; the tree is the same for
    any mesh of such devices.

    Args:
        seed: of the starts. The tree is a function of it, the features and the numbers here.
        out: a file that has the tree after each level. A fit that was stopped goes on from it, to the same tree.
        leave_out: whether features with numbers that aren't finite are left out; else they are an error.
        mesh: None: over all devices.
        told: is called after each iteration, with the level from 1 on, the iteration from 0 on and the inertia.

    Returns the tree; its `about` says `features`, `width`, `left_out`, `digest`, `seed`, `iterations`, and by level
    `inertia`, the sum of squared distances to the level's centroids, and `updates`, the iterations that were taken.

    Raises UserError for numbers that can't be, for fewer features than branching, and where `out` holds something else
    than the begin of this tree.
    """
    check_shape("cluster", branching, depth)
    if iterations < 1:
        raise UserError(f"iterations={iterations} must be at least 1")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} must be from 0 to {2**32 - 1}")
    path = None if out is None else checked_out(out)
    facts = look_through(features)
    check_finite(facts, leave_out)
    if (real := facts.count - len(facts.bad)) < branching:
        raise UserError(
            f"{real} features are fewer than the {branching} nodes of the first level: set --branching to at most "
            f"{real}, or give more features"
        )
    about = _about(facts, seed, iterations)
    tree = CentroidTree(branching, depth, (), {**about, "inertia": [], "updates": []})
    if path is not None and hosts.first(path.exists):
        tree = _begun(path, tree, about)
    if len(tree.levels) == depth:
        return tree
    points = place(features, facts, Mesh().build() if mesh is None else mesh, branching)
    parents = points.rows * 0  # lies as they do
    for level in tree.levels:
        parents = _assigned(points, parents, level, branching)
    while len(tree.levels) < depth:
        level, parents, inertia, updates = _fitted(points, parents, tree, seed, iterations, told)
        grown = {**tree.about, "inertia": [*tree.about["inertia"], inertia]}
        grown["updates"] = [*tree.about["updates"], updates]
        tree = CentroidTree(branching, depth, (*tree.levels, level), grown)
        if path is not None:
            _save(path, tree)
    return tree


def checked_out(out: str | Path) -> Path:
    """The path of a tree's file. Raises UserError where none can be written there."""
    path = output.local(out, "--out")
    if path.suffix != ENDING:
        raise UserError(f"--out {out}: a tree is a file {ENDING}, such as {path.with_suffix(ENDING)}")
    output.check_writable(path)
    return path


def _about(facts: Facts, seed: int, iterations: int) -> dict[str, Any]:
    return {
        "features": facts.count,
        "width": facts.width,
        "left_out": len(facts.bad),
        "digest": facts.digest,
        "seed": seed,
        "iterations": iterations,
        "mmjax": __version__,
    }


def _begun(path: Path, wanted: CentroidTree, about: dict[str, Any]) -> CentroidTree:
    """The tree in a file that this fit began. Raises UserError where another one did."""
    there = tree_of(regular.content(path, LARGEST_TREE), str(path))
    mine = {"branching": wanted.branching, "depth": wanted.depth, **about}
    theirs = {"branching": there.branching, "depth": there.depth, **there.about}
    differ = [name for name in mine if name != "mmjax" and mine[name] != theirs.get(name)]
    if differ:
        if differ == ["digest"]:
            said = "other features of the same shape"
        else:
            said = ", ".join(
                f"{name} {theirs.get(name)} there, {mine[name]} here" for name in differ if name != "digest"
            )
        raise UserError(f"{path} holds the tree of another fit: {said}; give another --out, or take the file away")
    return there


def _fitted(
    points: Points, parents: jax.Array, tree: CentroidTree, seed: int, iterations: int, told: Told
) -> tuple[Level, jax.Array, float, int]:
    """The next level, the node in it of every feature, its inertia, and the iterations that were taken."""
    number, branching = len(tree.levels) + 1, tree.branching
    count = branching ** (number - 1)
    key = jax.random.fold_in(jax.random.key(seed), number)
    centroids, used = first_centroids(points, parents, key, count, branching)
    children = parents * 0 - 1
    taken = 0
    while True:
        found = iterate(points, parents, children, centroids, used)
        children = found.child
        inertia = math.fsum(np.asarray(found.inertias).tolist())
        told(number, taken, inertia)
        # Of features that have all stayed, the means are where they were.
        if taken == iterations or (int(found.changed) == 0 and int(found.moved) == 0):
            break
        centroids, taken = found.centroids, taken + 1
    counts = np.asarray(found.counts)
    placed = np.where(counts[..., None] > 0, np.asarray(centroids), 0).reshape(count * branching, -1)
    return Level(placed, counts.reshape(-1)), parents * branching + children, inertia, taken


def _assigned(points: Points, parents: jax.Array, level: Level, branching: int) -> jax.Array:
    """The node of a fitted level for every feature, computed as the fit did."""
    shape = -1, branching
    centroids = level.centroids.reshape(*shape, level.centroids.shape[1])
    found = iterate(points, parents, parents * 0 - 1, centroids, level.used.reshape(shape))
    return parents * branching + found.child


def _save(path: Path, tree: CentroidTree) -> None:
    def write() -> None:
        try:
            output.write(path, tree_bytes(tree))
        except OSError as error:
            raise UserError(f"{path} can't be written ({error.strerror}): give another --out") from error

    hosts.first(write)
