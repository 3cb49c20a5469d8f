"""`mmjax embed`: the embeddings of a dataset, in files."""

import argparse

from mmjax.cli import add_code

HELP = "write a dataset's embeddings into files"
EPILOG = """\
examples:
  mmjax embed runs/quickstart --out embeddings/quickstart                    # of its own data, the test split
  mmjax embed runs/quickstart photos.csv --out embeddings/photos --modalities image       # all rows of a table
  mmjax embed hf:google/siglip-base-patch16-224 cifar100 --out embeddings/cifar100

The same command completes what was stopped, to the same bytes. Of a table all rows are embedded (--split narrows); of a
list of captions each gets a row, and the picture stands in the first. `mmjax.embeddings.read(DIR)` gives the arrays,
which of their rows are there (valid), ids and labels, without the model; `mmjax evaluate --embeddings` judges them.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("model", metavar="MODEL", help="a workdir, a folder of a model, or a name (as mmjax.load)")
    parser.add_argument(
        "data", metavar="DATA", nargs="?", help="a TFDS name or a table (default: the model's own data)"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="where the embeddings go")
    parser.add_argument("--split", help="train, validation or test (default: test; of a table all rows)")
    parser.add_argument("--modalities", metavar="NAME", nargs="+", help="only these (default: all that the data has)")
    parser.add_argument("--step", type=int, help="which checkpoint of a workdir (default: the latest)")
    add_code(parser)
    parser.add_argument("--rows", type=positive, default=8192, help="examples of a file (default: 8192)")
    parser.add_argument("--batch-size", type=positive, default=256, help="over all devices (default: 256)")


def positive(text: str) -> int:
    """Parses a whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from mmjax.inference.embed_dataset import embed

    embed(
        arguments.model,
        arguments.data,
        arguments.out,
        split=arguments.split,
        modalities=arguments.modalities,
        step=arguments.step,
        code=arguments.code,
        rows=arguments.rows,
        batch_size=arguments.batch_size,
    )
