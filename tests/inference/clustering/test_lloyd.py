"""K-means below many parents at once: Lloyd's iterations by loops in 64 bits, starts by their chances, empty nodes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.inference.clustering.lloyd import first_centroids, iterate
from mmjax.inference.clustering.points import Points, look_through, place
from mmjax.runtime.mesh import Mesh


def placed(features: np.ndarray, branching: int, devices: int = 8) -> Points:
    return place(features, look_through(features), Mesh().build(jax.devices()[:devices]), branching)


def spread(points: Points, parents: Any) -> jax.Array:
    """The parents of all rows, of the padding too."""
    return jnp.zeros(len(points.rows), jnp.int32).at[: len(parents)].set(jnp.asarray(parents, jnp.int32))


def by_loops(
    features: np.ndarray, parents: np.ndarray, centroids: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Lloyd's iteration in 64 bits: the nearest child of each, the means, and the inertia."""
    features, centroids = features.astype(np.float64), centroids.astype(np.float64)
    child, inertia = np.zeros(len(features), int), 0.0
    for row, feature in enumerate(features):
        distances = [
            np.square(feature - centroid).sum() if there else np.inf
            for centroid, there in zip(centroids[parents[row]], used[parents[row]], strict=True)
        ]
        child[row] = np.argmin(distances)
        inertia += distances[child[row]]
    means = centroids.copy()
    for parent in range(len(centroids)):
        for one in range(centroids.shape[1]):
            mine = features[(parents == parent) & (child == one)]
            if len(mine):
                means[parent, one] = mine.mean(axis=0)
    return child, means, inertia


def test_iterations_are_lloyd_s():
    """From the same starts, with as many in 64 bits; each dimension has a scale of its own."""
    random = np.random.default_rng(0)
    features = (random.normal(size=(301, 5)) * [1e-3, 1, 30, 1e5, 0] + [0, 5, 0, -3e5, 7]).astype(np.float32)
    features[:, 3] /= 1e5  # so that it doesn't outweigh the others
    parents = random.integers(0, 3, 301)
    points = placed(features, 4)
    starts, used = first_centroids(points, spread(points, parents), jax.random.key(1), 3, 4)
    assert np.asarray(used).all()
    assert all(
        (features[parents == p] == one).all(axis=1).any() for p, each in enumerate(np.asarray(starts)) for one in each
    )
    found, expected = iterate(points, spread(points, parents), spread(points, []) - 1, starts, used), np.asarray(starts)
    before = None
    for _ in range(12):
        child, means, inertia = by_loops(features, parents, expected, np.asarray(used))
        np.testing.assert_array_equal(np.asarray(found.child)[:301], child)
        np.testing.assert_allclose(found.centroids, means, rtol=2e-6, atol=1e-7)
        np.testing.assert_allclose(np.asarray(found.inertias, np.float64).sum(), inertia, rtol=1e-6)
        counts = [[((parents == p) & (child == c)).sum() for c in range(4)] for p in range(3)]
        np.testing.assert_array_equal(found.counts, counts)
        assert int(found.changed) == (301 if before is None else (child != before).sum())
        before, expected = child, means
        found = iterate(points, spread(points, parents), found.child, found.centroids, used)
    assert int(found.changed) < 20  # it has gone some way


@pytest.mark.parametrize("scale", [1e-11, 0.3, 1e10])
def test_means_are_exact_whatever_the_scale_and_the_order(scale: float):
    """Against numpy's sums in 64 bits; a large number and its negative leave the small one between them."""
    random = np.random.default_rng(1)
    half = random.normal(size=(5_000, 1)).astype(np.float32)
    features = np.concatenate([half, -half, [[0.25]]]).astype(np.float32) * np.float32(scale)
    used, one = np.array([[True, False]]), np.zeros((1, 2, 1), np.float32)
    means = []
    for devices, order in ((1, np.arange(len(features))), (8, random.permutation(len(features)))):
        points = placed(features[order], 2, devices)
        found = iterate(points, spread(points, []), spread(points, []) - 1, one, used)
        means.append(float(found.centroids[0, 0, 0]))
        assert int(found.counts[0, 0]) == len(features)
    assert means[0] == means[1]
    expected = features.astype(np.float64).mean()
    assert abs(means[0] - expected) <= 2.0**-23 * abs(expected) + 2.0**-29 * np.abs(features).max()


@pytest.mark.parametrize("devices", [1, 8])
def test_sums_of_many_features_do_not_overflow(devices: int):
    """150,000 numbers of which each fills both limbs, of either sign: either limb's sum alone would leave 32 bits."""
    features = np.where(np.arange(150_000) % 50_000 < 49_999, np.nextafter(np.float32(1), np.float32(0)), 0.5)
    features = np.stack([features, -features], axis=1).astype(np.float32)
    points = placed(features, 2, devices)
    nobody, used = np.zeros((1, 2, 2), np.float32), np.array([[True, False]])
    found = iterate(points, spread(points, []), spread(points, []) - 1, nobody, used)
    expected = features.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(np.asarray(found.centroids)[0, 0], expected, rtol=2.0**-23)


def test_starts_are_drawn_by_their_squared_distances():
    """3,000 parents of the same four features: how often each is the first, and the second after which."""
    four, count = np.array([[0.0], [1.0], [3.0], [3.5]], np.float32), 3_000
    parents = np.repeat(np.arange(count), 4)
    points = placed(np.tile(four, (count, 1)), 2)
    found, used = first_centroids(points, spread(points, parents), jax.random.key(5), count, 2)
    assert np.asarray(used).all()
    first, second = (np.asarray(found)[:, place, 0] for place in (0, 1))
    for value in four[:, 0]:
        chosen = first == value
        assert abs(chosen.mean() - 1 / 4) < 0.03
        shares = np.square(four[:, 0] - value)
        expected = shares / shares.sum()
        np.testing.assert_allclose([(second[chosen] == v).mean() for v in four[:, 0]], expected, atol=0.07)
        assert not (second[chosen] == value).any()


def test_starts_differ_by_the_key_and_not_by_the_devices():
    features = np.random.default_rng(2).normal(size=(700, 6)).astype(np.float32)
    found = []
    for seed, devices in ((0, 8), (0, 1), (1, 8)):
        points = placed(features, 5, devices)
        found.append(np.asarray(first_centroids(points, spread(points, []), jax.random.key(seed), 1, 5)[0]))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_a_parent_of_few_different_features_has_few_children():
    features = np.array([[1.0], [1.0], [2.0], [5.0], [5.0], [5.0], [7.0], [8.0], [9.0]], np.float32)
    parents = [0, 0, 0, 1, 1, 1, 3, 3, 3]
    points = placed(features, 3)
    centroids, used = first_centroids(points, spread(points, parents), jax.random.key(0), 4, 3)
    assert np.asarray(used).sum(axis=1).tolist() == [2, 1, 0, 3]
    assert sorted(np.asarray(centroids)[0, :2, 0].tolist()) == [1, 2]
    assert np.asarray(centroids)[1, 0, 0] == 5
    assert not np.asarray(centroids)[~np.asarray(used)].any()
    found = iterate(points, spread(points, parents), spread(points, []) - 1, 3 * centroids, used)
    child = np.asarray(found.child)[:9]
    assert np.asarray(used)[parents, child].all()  # although an unused one, at 0, is nearer to 1 than 3 is


def test_an_empty_child_moves_to_the_farthest_feature_of_its_parent():
    features = np.array([[0.0], [1.0], [2.0], [10.0], [100.0], [101.0], [104.0]], np.float32)
    parents = np.array([0, 0, 0, 0, 1, 1, 1])
    away = np.float32(1024)  # padding, at 0, would be farthest
    points = placed(features + away, 3)
    starts = np.array([[[0.0], [-50.0], [-60.0]], [[100.0], [101.0], [104.0]]], np.float32)  # two have nobody
    used = np.ones((2, 3), bool)
    first = iterate(points, spread(points, parents), spread(points, []) - 1, starts + away, used)
    np.testing.assert_allclose(np.asarray(first.centroids)[0, :, 0] - away, [3.25, 10, -60])  # the first of the two
    np.testing.assert_array_equal(np.asarray(first.centroids)[1, :, 0] - away, [100, 101, 104])
    assert int(first.moved) == 1
    second = iterate(points, spread(points, parents), first.child, first.centroids, used)
    np.testing.assert_allclose(
        np.asarray(second.centroids)[0, :, 0] - away, [1, 10, 0]
    )  # 0 is as far from 3.25 as can be
    third = iterate(points, spread(points, parents), second.child, second.centroids, used)
    assert (np.asarray(third.counts) > 0).all()
    assert int(third.moved) == 0
    inertias = [float(found.inertias.sum()) for found in (first, second, third)]
    assert inertias[0] > inertias[1] > inertias[2]
    there = placed(np.full((7, 1), 5, np.float32), 3)  # where all lie on their child, none moves
    still = iterate(there, spread(there, parents), spread(there, []) - 1, 0 * starts + [[5], [6], [7]], used)
    assert int(still.moved) == 0
    assert int((np.asarray(still.counts) == 0).sum()) == 4
