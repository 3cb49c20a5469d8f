"""Trees of centroids: hierarchical k-means as a tokenizer of vectors, whose words are the leaves (VideoBERT's).

A file of one is a `.safetensors`, with `about` (JSON: branching, depth, what it was fitted on) and for each level l
from 1 on `centroids_l` float32 `[branching**l, D]` and `counts_l` int32 `[branching**l]`, the features of the fit that
are a node's. The children of node n are `n * branching` to `n * branching + branching - 1`, so that the number of a
leaf, in base `branching`, is the path to it. A node without features is unused: its centroid is zeros, and nothing is
ever assigned to it.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mmjax.data.tokenizers.contract import Tokenizer, TokenizerSpec
from mmjax.errors import UserError
from mmjax.runtime.files import json_text, regular

ENDING = ".safetensors"
LARGEST_TREE = 2**32  # bytes of a file: VideoBERT's tree of 20,736 leaves and 1,024 numbers each has 93 MB
MOST_LEAVES = 2**24


class Level(NamedTuple):
    """The nodes of one level: their centroids, and how many features of the fit are each one's."""

    centroids: Float32[np.ndarray, "nodes d"]
    counts: Int32[np.ndarray, " nodes"]

    @property
    def used(self) -> Bool[np.ndarray, " nodes"]:
        """True for nodes that have features."""
        return self.counts > 0


class CentroidTree(NamedTuple):
    """A tree, or its first levels while it is fitted. about: plain values that say what it was fitted on."""

    branching: int
    depth: int
    levels: tuple[Level, ...]
    about: dict[str, Any]

    @property
    def width(self) -> int:
        """The numbers of a feature, D."""
        return self.levels[0].centroids.shape[1]


def tree_bytes(tree: CentroidTree) -> bytes:
    """The content of a tree's file; the same for the same tree."""
    about = json.dumps({**tree.about, "branching": tree.branching, "depth": tree.depth}, sort_keys=True)
    arrays: dict[str, np.ndarray] = {"about": np.frombuffer(about.encode(), np.uint8)}
    for number, level in enumerate(tree.levels, 1):
        arrays[f"centroids_{number}"] = np.ascontiguousarray(level.centroids, np.float32)
        arrays[f"counts_{number}"] = np.ascontiguousarray(level.counts, np.int32)
    return save(arrays)


def tree_of(content: bytes, where: str = "the file") -> CentroidTree:
    """The tree of a file's content, which may lack its last levels. where: its name, for messages.

    Raises UserError where it is no such file, or its arrays don't fit each other.
    """
    try:
        arrays = load(content)
        about = json_text.parse(arrays.pop("about").tobytes())
        branching, depth = about.pop("branching"), about.pop("depth")
        check_shape("a tree", branching, depth)
        levels: list[Level] = []
        while arrays and len(levels) < depth:
            number = len(levels) + 1
            levels.append(Level(arrays.pop(f"centroids_{number}"), arrays.pop(f"counts_{number}")))
        tree = CentroidTree(branching, depth, tuple(levels), about)
        fit = [
            level.centroids.shape == (branching**number, tree.width) and level.counts.shape == (branching**number,)
            and (level.centroids.dtype, level.counts.dtype) == (np.float32, np.int32)
            and np.isfinite(level.centroids).all()
            for number, level in enumerate(levels, 1)
        ]  # fmt: skip
        orphans = [
            not np.array_equal(below.counts.reshape(-1, branching).any(1), above.used)
            for above, below in itertools.pairwise(levels)
        ]
        if arrays or not levels or not all(fit) or any(orphans) or not levels[0].used.any():
            raise ValueError("its arrays don't make a tree")
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{where} is no tree of centroids as `mmjax cluster` writes it: {error}") from error
    return tree


def check_shape(what: str, branching: Any, depth: Any) -> None:
    """Raises UserError for a branching or a depth that no tree has."""
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (branching, depth))
    if not whole or branching < 2 or depth < 1 or depth > 24 or branching**depth > MOST_LEAVES:
        raise UserError(
            f"{what}: branching={branching!r} must be at least 2, depth={depth!r} at least 1, and branching**depth at "
            f"most {MOST_LEAVES:,}"
        )


def paths_of(leaves: Any, branching: int, depth: int) -> Int32[np.ndarray, "*shape depth"]:
    """The paths to leaves: on each level the child, 0 to branching - 1. `leaves_of` is the way back."""
    places = branching ** np.arange(depth - 1, -1, -1)
    return (np.asarray(leaves)[..., None] // places % branching).astype(np.int32)


def leaves_of(paths: Any, branching: int) -> Int32[np.ndarray, " *shape"]:
    """The leaves at the ends of paths `[..., depth]`: the numbers whose digits in base `branching` they are."""
    paths = np.asarray(paths)
    return (paths * branching ** np.arange(paths.shape[-1] - 1, -1, -1)).sum(axis=-1).astype(np.int32)


def descended(levels: Sequence[Level], branching: int, features: np.ndarray) -> Int32[np.ndarray, " n"]:
    """The node of the last level for each of features `[n, D]`: on every level the nearest of the used children, of
    equally near ones the first.
    """
    nodes = np.zeros(len(features), np.int32)
    for level in levels:
        children = nodes[:, None] * branching + np.arange(branching, dtype=np.int32)
        distances = np.square(features[:, None] - level.centroids[children]).sum(axis=-1, dtype=np.float32)
        nearest = np.where(level.used[children], distances, np.inf).argmin(axis=1)
        nodes = np.take_along_axis(children, nearest[:, None], axis=1)[:, 0]
    return nodes


class TreeTokenizer(Tokenizer):
    """A whole tree, ready to use. It knows vectors alone: there is no text to cut, and no piece for padding.

    tree: the levels. width: the numbers of a feature. vocab_size: the number of leaves, unused ones too.
    """

    SUFFIX = ENDING

    def __init__(self, model: bytes):
        self.model, self.tree = model, tree_of(model)
        if (there := len(self.tree.levels)) < self.tree.depth:
            raise UserError(
                f"the tree of visual words isn't complete: {there} of {self.tree.depth} levels are there; the `mmjax "
                "cluster` that began it goes on with it"
            )
        self.width, self.vocab_size = self.tree.width, self.tree.branching**self.tree.depth
        self.pad = self.bos = self.eos = None

    def words(self, features: Float32[np.ndarray, "n d"]) -> Int32[np.ndarray, " n"]:
        """The leaf of each feature."""
        return descended(self.tree.levels, self.tree.branching, features)

    def encode(self, text: str) -> list[int]:
        raise UserError(f"a tree of visual words can't cut the text {text!r:.40}: its chain is to end in VisualWords")

    def decode(self, ids: Iterable[int]) -> str:
        raise UserError("a tree of visual words knows no text of its words")


@dataclass(frozen=True)
class WordTree(TokenizerSpec):
    """Describes a tree of visual words that `mmjax cluster` fitted: its file, and the shape that it has.

    The file is read once: a workdir and an exported folder keep the tree, and take it from there. With None they always
    do.

    Attributes:
        path: the file.
        branching: children of a node.
        depth: levels, so that there are branching**depth words.

    Raises UserError where no tree has such a shape.
    """

    path: str | None = None
    branching: int = 12
    depth: int = 4

    def __post_init__(self) -> None:
        check_shape("WordTree(...)", self.branching, self.depth)

    @property
    def vocab_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The number of words, branching**depth."""
        return self.branching**self.depth

    def load(self, captions: Iterable[str] | None, folder: Path) -> TreeTokenizer:
        """The tree in `path`.

        Raises UserError for a missing `path`, or where it is no whole tree, or one of another shape.
        """
        del captions, folder
        if self.path is None:
            raise UserError(
                f"{self} takes its tree from the tokenizers of a workdir or an exported folder, and there is none: "
                "give the path of a file that `mmjax cluster` wrote"
            )
        if not Path(self.path).exists():
            raise UserError(
                f"WordTree(path={self.path!r}): there is no such file; `mmjax cluster FILE.py:NAME --entry ENTRY --out "
                f"{self.path}` makes it"
            )
        try:
            return self.check(TreeTokenizer(regular.content(Path(self.path), LARGEST_TREE)))
        except UserError as error:
            raise UserError(f"WordTree(path={self.path!r}): {error}") from error

    def check(self, tokenizer: Tokenizer) -> TreeTokenizer:
        """Returns `tokenizer`. Raises UserError where it is no tree, or one of another shape."""
        if not isinstance(tokenizer, TreeTokenizer):
            raise UserError(f"{self} describes a tree of visual words, and was given a {type(tokenizer).__name__}")
        there = tokenizer.tree
        if (there.branching, there.depth) != (self.branching, self.depth):
            raise UserError(
                f"the tree has branching {there.branching} and depth {there.depth}, and WordTree(branching="
                f"{self.branching}, depth={self.depth}) says otherwise: make them the same"
            )
        return tokenizer
