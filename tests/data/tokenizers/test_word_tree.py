"""Trees of visual words: leaves and paths, the descent by loops, their files, and how a run keeps them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from mmjax.data import DecodeVideo, PooledPixels, VisualWords, WordTree
from mmjax.data.chains import Chains
from mmjax.data.tokenizers.files import load_tokenizers, save_tokenizers
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer
from mmjax.data.tokenizers.word_tree import (
    CentroidTree,
    Level,
    TreeTokenizer,
    leaves_of,
    paths_of,
    tree_bytes,
    tree_of,
)
from mmjax.errors import UserError


def grown(branching: int = 3, depth: int = 3, width: int = 4, unused: float = 0.3, seed: int = 0) -> CentroidTree:
    """A tree of random centroids, some of whose nodes are unused."""
    random = np.random.default_rng(seed)
    used, levels = np.ones(1, bool), []
    for number in range(1, depth + 1):
        used = np.repeat(used, branching) & (random.random(branching**number) > unused)
        used.reshape(-1, branching)[:, 0] |= levels[-1].used if levels else True  # whoever is used has a child
        centroids = random.normal(size=(len(used), width)).astype(np.float32)
        levels.append(Level(np.where(used[:, None], centroids, 0), np.where(used, 5, 0).astype(np.int32)))
    return CentroidTree(branching, depth, tuple(levels), {"features": 9, "inertia": [3.0, 2.0, 1.5]})


def test_a_leaf_is_the_number_of_its_path():
    leaves = np.arange(3**4)
    paths = paths_of(leaves, 3, 4)
    assert paths.shape == (81, 4)
    assert [int("".join(map(str, path)), 3) for path in paths] == leaves.tolist()
    np.testing.assert_array_equal(leaves_of(paths, 3), leaves)
    assert len({tuple(path) for path in paths.tolist()}) == 81
    assert leaves_of([11, 11, 11, 11], 12) == 12**4 - 1


def test_the_descent_by_loops():
    """On each level in 64 bits, over the used children alone."""
    tree = grown()
    features = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    expected = []
    for feature in features.astype(np.float64):
        node = 0
        for level in tree.levels:
            children = [c for c in range(3 * node, 3 * node + 3) if level.counts[c]]
            node = min(children, key=lambda c: float(np.square(feature - level.centroids[c]).sum()))
        expected.append(node)
    found = TreeTokenizer(tree_bytes(tree)).words(features)
    assert found.dtype == np.int32
    assert found.tolist() == expected
    assert tree.levels[-1].used[found].all()
    assert not tree.levels[-1].used.all()  # there is something to be avoided
    assert len(set(expected)) > 5


def test_a_file_holds_the_tree_and_is_the_same_each_time(tmp_path: Path):
    tree = grown()
    content = tree_bytes(tree)
    assert tree_bytes(tree_of(content)) == content
    found = tree_of(content)
    assert (found.branching, found.depth, found.width, found.about) == (3, 3, 4, tree.about)
    for mine, theirs in zip(found.levels, tree.levels, strict=True):
        np.testing.assert_array_equal(mine.centroids, theirs.centroids)
        np.testing.assert_array_equal(mine.counts, theirs.counts)
    (tmp_path / "words.safetensors").write_bytes(content)
    loaded = WordTree(str(tmp_path / "words.safetensors"), 3, 3).load(None, tmp_path)
    assert loaded == TreeTokenizer(content)
    assert loaded.vocab_size == WordTree(None, 3, 3).vocab_size == 27
    assert pickle.loads(pickle.dumps(loaded)).words(np.zeros((1, 4), np.float32)) == loaded.words(np.zeros((1, 4)))


def changed(name: str, value: np.ndarray | None) -> bytes:
    arrays = load(tree_bytes(grown()))
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    return save(arrays)


def about(**fields: object) -> np.ndarray:
    return np.frombuffer(json.dumps({"branching": 3, "depth": 3, **fields}).encode(), np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a tree at all",
        changed("about", None),
        changed("about", about(branching=4)),
        changed("about", about(branching="3")),
        changed("about", about(depth=10**9)),
        changed("centroids_2", np.zeros((8, 4), np.float32)),
        changed("centroids_2", np.zeros((9, 4), np.float64)),
        changed("centroids_3", np.full((27, 4), np.nan, np.float32)),
        changed("counts_2", None),
        changed("counts_1", np.zeros(3, np.int32)),  # nobody is used, and whoever is below it has no parent
        changed("more", np.zeros(3)),
    ],
    ids=range(12),
)
def test_what_is_no_tree_is_refused(content: bytes):
    with pytest.raises(UserError, match=r"words is no tree of centroids as `mmjax cluster` writes it"):
        tree_of(content, "words")


def test_a_tree_that_lacks_levels_or_has_another_shape_is_not_loaded(tmp_path: Path):
    path = tmp_path / "words.safetensors"
    tree = grown()
    path.write_bytes(tree_bytes(tree._replace(levels=tree.levels[:2])))
    with pytest.raises(UserError, match=r"isn't complete: 2 of 3 levels are there; the `mmjax cluster` that began"):
        WordTree(str(path), 3, 3).load(None, tmp_path)
    path.write_bytes(tree_bytes(tree))
    with pytest.raises(UserError, match=r"has branching 3 and depth 3, and WordTree\(branching=3, depth=2\)"):
        WordTree(str(path), 3, 2).load(None, tmp_path)
    with pytest.raises(UserError, match=r"gone\.safetensors'\): there is no such file; `mmjax cluster"):
        WordTree(str(tmp_path / "gone.safetensors"), 3, 3).load(None, tmp_path)
    with pytest.raises(UserError, match="from the tokenizers of a workdir or an exported folder, and there is none"):
        WordTree(None, 3, 3).load(None, tmp_path)
    with pytest.raises(UserError, match="describes a tree of visual words, and was given a PieceTokenizer"):
        WordTree(None, 3, 3).check(PieceTokenizer.__new__(PieceTokenizer))
    for branching, depth in ((1, 2), (3, 0), (2, 25), (True, 2)):
        with pytest.raises(UserError, match="must be at least 2"):
            WordTree(None, branching, depth)


def test_a_workdir_keeps_it_among_its_tokenizers(tmp_path: Path):
    tree = TreeTokenizer(tree_bytes(grown(width=12)))
    save_tokenizers({"video": tree}, tmp_path / "run" / "tokenizers")
    assert {path.name for path in (tmp_path / "run" / "tokenizers").iterdir()} == {"video.safetensors", "digests.json"}
    kept = load_tokenizers(tmp_path / "run" / "tokenizers")
    assert kept == {"video": tree}
    chain = (PooledPixels(grid=2), VisualWords(WordTree("nowhere", 3, 3)))
    chains = {"video": (DecodeVideo(2), *chain)}
    row = Chains(chains, kept).row({"video": np.zeros((2, 4, 4, 3), np.uint8)}, lambda name: None)
    assert row["video"].tolist() == tree.words(np.zeros((2, 12), np.float32)).tolist()
    with pytest.raises(UserError, match="has no model for WordTree"):
        Chains(chains, {})


def test_it_cuts_no_texts():
    tree = TreeTokenizer(tree_bytes(grown()))
    for call in (lambda: tree.encode("a text"), lambda: tree.decode([1])):
        with pytest.raises(UserError, match="a tree of visual words"):
            call()
