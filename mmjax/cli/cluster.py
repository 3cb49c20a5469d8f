"""`mmjax cluster`: visual words, a tree of centroids of features."""

import argparse

from mmjax.cli import add_code
from mmjax.cli.embed import positive

HELP = "fit a tree of visual words to features (hierarchical k-means)"
EPILOG = """\
examples:
  mmjax cluster features.npy --branching 12 --depth 4 --out words.safetensors
  mmjax cluster embeddings/clips --entry video --out words.safetensors       # the output of mmjax embed
  mmjax cluster my_videobert.py:small --entry video --branching 8 --depth 2 --out words.safetensors

Of an experiment the chain of an entry is run over a split, once and in order, up to its VisualWords; the features are
kept in a file beside --out until the tree is whole. Each level is k-means below all nodes of the one above, from starts
by k-means++; --out has the tree after each level, and the same command completes what was stopped, to the same bytes.
A level is the same on any number of devices. The experiment reads the tree by VisualWords(WordTree("words.safetensors",
branching, depth)), and a run keeps a copy of it among its tokenizers.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("source", metavar="SOURCE", help="VECTORS.npy, a folder of mmjax embed, or FILE[:NAME]")
    parser.add_argument("overrides", metavar="PATH=VALUE", nargs="*", help="a value to set in the experiment")
    parser.add_argument("--out", metavar="FILE.safetensors", required=True, help="where the tree goes")
    parser.add_argument("--branching", type=positive, default=12, help="children of a node (default: 12)")
    parser.add_argument("--depth", type=positive, default=4, help="levels (default: 4, of 12**4 = 20,736 leaves)")
    parser.add_argument("--seed", type=int, default=0, help="of the starts (default: 0)")
    parser.add_argument("--iterations", type=positive, default=100, help="of a level, at most (default: 100)")
    parser.add_argument("--entry", metavar="NAME", help="which entry or modality (default: the only one)")
    parser.add_argument("--split", help="of an experiment's data (default: train)")
    parser.add_argument("--examples", metavar="N", type=positive, help="only so many of the split, spread evenly")
    parser.add_argument("--leave-out", action="store_true", help="leave out features with NaNs and infinities")
    add_code(parser)


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from mmjax.inference.clustering.cluster import cluster

    cluster(
        arguments.source,
        arguments.out,
        branching=arguments.branching,
        depth=arguments.depth,
        seed=arguments.seed,
        iterations=arguments.iterations,
        entry=arguments.entry,
        split=arguments.split,
        examples=arguments.examples,
        overrides=arguments.overrides,
        leave_out=arguments.leave_out,
        code=arguments.code,
    )
