"""`mmjax prepare`: build a dataset."""

import argparse

HELP = "build a dataset"
EPILOG = """\
examples:
  mmjax prepare spoken_emoji
  mmjax prepare spoken_emoji/multilingual --data-dir /data/tensorflow_datasets

Training and evaluation build a dataset on first use; this builds it beforehand. spoken_emoji, asked_emoji,
emoji_stories, tagged_emoji, esc50 and stamps need no TensorFlow; the Debian package of stamps is fetched by hand
(experiments/README.md, "Demo data"). TFDS's own datasets whose builders need it take pip install "mmjax[tf]"; reading
them needs none.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("dataset", metavar="DATASET", help="a TFDS name, name or name/config")
    parser.add_argument("--data-dir", metavar="DIR", help="default: $TFDS_DATA_DIR, or ~/tensorflow_datasets")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    from mmjax.data.datasets.prepare import prepare_dataset

    prepare_dataset(arguments.dataset, arguments.data_dir)
