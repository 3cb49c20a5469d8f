"""Trees: the same on any mesh and after any stop; inertia falls with every level and iteration; what is refused."""

import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mmjax.data.tokenizers.word_tree import TreeTokenizer, paths_of, tree_bytes, tree_of
from mmjax.errors import UserError
from mmjax.inference.clustering import fit as module
from mmjax.inference.clustering.fit import fit_tree
from mmjax.runtime.files import output
from mmjax.runtime.mesh import Mesh

SHAPE: dict[str, Any] = {"branching": 3, "depth": 3, "iterations": 30}
ONE = Mesh().build(jax.devices()[:1])


def nested(each: int = 12, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Features in 27 clusters within 9 within 3, far apart on each level, and the path of each."""
    random = np.random.default_rng(7)
    paths = np.repeat(paths_of(np.arange(27), 3, 3), each, axis=0)
    centres = [random.normal(size=(3**level, width)) * 20.0 / 6**level for level in range(1, 4)]
    nodes = [paths[:, :level] @ 3 ** np.arange(level - 1, -1, -1) for level in range(1, 4)]
    features = np.sum([centre[node] for centre, node in zip(centres, nodes, strict=True)], axis=0)
    return (features + 1e-3 * random.normal(size=features.shape)).astype(np.float32), paths


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    found = nested()[0]
    return found[np.random.default_rng(0).permutation(len(found))]


@pytest.fixture(scope="module")
def expected(features: np.ndarray) -> bytes:
    return tree_bytes(fit_tree(features, **SHAPE))


def test_a_tree_is_the_same_on_one_device_and_on_eight(features: np.ndarray, expected: bytes):
    assert tree_bytes(fit_tree(features, **SHAPE, mesh=ONE)) == expected
    other = fit_tree(features, **SHAPE, mesh=Mesh(data=2, fsdp=2, tensor=2).build())
    assert tree_bytes(other) == expected
    assert tree_bytes(fit_tree(features, **SHAPE, seed=1)) != expected


def test_the_leaf_of_every_feature_is_the_nearest_child_on_every_level(features: np.ndarray, expected: bytes):
    """By the numpy that reads the tree, and by loops in 64 bits: counts, means and inertia of every level."""
    tree = tree_of(expected)
    words = TreeTokenizer(expected).words(features)
    for number, level in enumerate(tree.levels, 1):
        nodes = words // 3 ** (3 - number)
        np.testing.assert_array_equal(np.bincount(nodes, minlength=3**number), level.counts)
        inertia = 0.0
        for node in np.flatnonzero(level.counts):
            mine = features[nodes == node].astype(np.float64)
            np.testing.assert_allclose(level.centroids[node], mine.mean(axis=0), atol=1e-5)
            inertia += np.square(mine - level.centroids[node]).sum()
        np.testing.assert_allclose(tree.about["inertia"][number - 1], inertia, rtol=1e-5)
    assert all(count < 30 for count in tree.about["updates"])  # it has come to rest


def test_clusters_within_clusters_are_found():
    """With ten starts of k-means++ at least one tree whose leaves are the 27 clusters."""
    features, paths = nested(each=5)
    best = min((fit_tree(features, **SHAPE, seed=seed) for seed in range(10)), key=lambda t: t.about["inertia"][-1])
    words = TreeTokenizer(tree_bytes(best)).words(features).reshape(27, 5)
    assert (words == words[:, :1]).all()
    assert len(set(words[:, 0].tolist())) == 27
    for level in (1, 2):  # clusters of one parent have leaves of one parent
        theirs, mine = paths[::5, :level], paths_of(words[:, 0], 3, 3)[:, :level]
        for a in range(27):
            np.testing.assert_array_equal((theirs == theirs[a]).all(axis=1), (mine == mine[a]).all(axis=1))


def test_inertia_falls_with_every_iteration_and_level():
    features = np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32)
    told: dict[int, list[float]] = {}
    tree = fit_tree(features, **SHAPE, told=lambda level, _, inertia: told.setdefault(level, []).append(inertia))
    for level, inertias in told.items():
        assert len(inertias) > 3
        assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(inertias))
        assert inertias[-1] == tree.about["inertia"][level - 1]
        assert len(inertias) == tree.about["updates"][level - 1] + 1
    whole = np.square(features - features.mean(axis=0)).sum()
    assert whole > told[1][-1] > told[2][-1] > told[3][-1] > 0
    least = fit_tree(features, **{**SHAPE, "iterations": 1})  # each level still falls below the one above
    assert least.about["updates"] == [1, 1, 1]
    assert whole > least.about["inertia"][0] > least.about["inertia"][1] > least.about["inertia"][2]


@pytest.mark.parametrize("levels", [1, 2])
def test_stopped_after_a_level_it_goes_on_to_the_same_tree(features, expected, levels, tmp_path: Path, monkeypatch):
    out = tmp_path / "words.safetensors"
    real, begun = output.write, []

    def write(path: Path, content: bytes) -> None:
        if len(begun) == levels:
            path.with_name(f".{path.name}.9.tmp").write_bytes(content[:50])
            raise KeyboardInterrupt
        begun.append(content)
        real(path, content)

    monkeypatch.setattr(module.output, "write", write)
    with pytest.raises(KeyboardInterrupt):
        fit_tree(features, **SHAPE, out=out)
    assert len(tree_of(out.read_bytes()).levels) == levels
    monkeypatch.setattr(module.output, "write", real)
    told = []
    tree = fit_tree(features, **SHAPE, out=out, mesh=ONE, told=lambda level, *_: told.append(level))
    assert out.read_bytes() == tree_bytes(tree) == expected
    assert set(told) == set(range(levels + 1, 4))  # the levels that were there aren't fitted again
    told.clear()
    assert tree_bytes(fit_tree(features, **SHAPE, out=out, told=lambda *_: told.append(0))) == expected
    assert not told


def test_a_file_of_another_fit_is_refused(features: np.ndarray, expected: bytes, tmp_path: Path):
    out = tmp_path / "words.safetensors"
    out.write_bytes(expected)
    changes = [
        ({"seed": 4}, r"seed 0 there, 4 here; give another --out, or take the file away"),
        ({"depth": 2}, r"depth 3 there, 2 here"),
        ({"branching": 4, "iterations": 9}, r"branching 3 there, 4 here, iterations 30 there, 9 here"),
    ]
    for change, message in changes:
        with pytest.raises(UserError, match=message):
            fit_tree(features, **{**SHAPE, **change}, out=out)
    other = features.copy()
    other[3, 2] += 1e-3
    with pytest.raises(UserError, match="holds the tree of another fit: other features of the same shape"):
        fit_tree(other, **SHAPE, out=out)
    with pytest.raises(UserError, match="features 324 there, 323 here"):
        fit_tree(features[1:], **SHAPE, out=out)
    assert out.read_bytes() == expected
    out.write_bytes(b"a letter")
    with pytest.raises(UserError, match="is no tree of centroids"):
        fit_tree(features, **SHAPE, out=out)
    assert out.read_bytes() == b"a letter"


def test_few_different_features_leave_leaves_unused():
    features = np.repeat(np.array([[0.0, 0.0], [0.0, 9.0], [5.0, 0.0], [5.0, 1.0]], np.float32), 4, axis=0)
    tree = fit_tree(features, branching=3, depth=3)
    used = [int(level.used.sum()) for level in tree.levels]
    assert used == [3, 4, 4]
    assert tree.about["inertia"][1:] == [0, 0]
    reader = TreeTokenizer(tree_bytes(tree))
    assert len(set(reader.words(features).tolist())) == 4
    near = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32) * 9
    assert tree.levels[-1].used[reader.words(near)].all()


def test_features_that_are_not_finite_are_left_out_if_that_is_said(features: np.ndarray, expected: bytes):
    bad = np.insert(features, [4, 200], np.nan, axis=0)
    with pytest.raises(UserError, match=r"2 of 326 features hold numbers that aren't finite, rows 4, 201: mend them"):
        fit_tree(bad, **SHAPE)
    tree = fit_tree(bad, **SHAPE, leave_out=True)
    assert (tree.about["features"], tree.about["left_out"]) == (326, 2)
    assert tree.levels[-1].counts.sum() == 324


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"branching": 1}, "branching=1 must be at least 2"),
        ({"branching": 100, "depth": 4}, r"at most 16,777,216"),
        ({"depth": 0}, "depth=0 at least 1"),
        ({"iterations": 0}, "iterations=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be from 0"),
        (
            {"branching": 25},
            "24 features are fewer than the 25 nodes of the first level: set --branching to at most 24",
        ),
        ({"out": "words.npz"}, r"--out words\.npz: a tree is a file \.safetensors, such as words\.safetensors"),
        ({"out": "gs://bucket/words.safetensors"}, "is an address"),
        ({"out": "no/such/folder/words.safetensors"}, "there is no folder"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        fit_tree(np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32), **arguments)
